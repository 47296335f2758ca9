//! The ports that a loaded program judges.
//!
//! Before: the loader wrote them into the object. After: the parser asks which service a port has.
//! Holds: constants, which the kernel freezes when it loads the program. Never: reads a map.

use aya_ebpf::Global;
use dot_common::{
    packet::Service,
    settings::{Ports, Services},
};

/// Ports of DNS over TLS, as [`Ports::pack`] has them; set by the loader before a program loads, and frozen then.
#[unsafe(no_mangle)]
static PORTS_DOT: Global<u64> = Global::new(0);

/// The port of cleartext DNS, in the same way.
#[unsafe(no_mangle)]
static PORT_DO53: Global<u32> = Global::new(0);

/// The ports that this program was loaded with. Even a user with rights to write every map cannot make it judge the ports of
/// another service.
pub(crate) struct OwnPorts;

impl Services for OwnPorts {
    #[inline(always)]
    fn service(&self, port: u16) -> Option<Service> {
        Ports::unpack(PORTS_DOT.load(), PORT_DO53.load()).service(port)
    }
}
