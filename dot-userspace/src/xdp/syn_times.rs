//! The time since a connection's SYN, when a worker accepts it.
//!
//! Before: the learner noted when the stack answered the SYN. After: the worker knows the time from the SYN to the
//! accept: the client's part of the TCP handshake, and the wait in the kernel's queue.
//! Holds: the mapped table. Never: makes a system call, or measures a connection that a SYN cookie made.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use aya::{Ebpf, maps::Map};
use dot_common::{
    flow::FlowKey,
    maps::SYN_TIMES,
    syn_times::{Place, SLOTS},
};

use super::{
    XdpError,
    attach::{absent, take},
    bans::now_ns,
    mapped::Mapped,
};

/// The table.
pub(super) struct SynTimes(Mapped<AtomicU64>);

impl SynTimes {
    /// Takes the table out of an object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        let Map::Array(map) = take(object, SYN_TIMES)? else { return Err(absent(SYN_TIMES)) };
        let mapped = Mapped::map(map.fd(), SLOTS as usize);
        mapped.map(Self).map_err(|error| XdpError::Load { what: SYN_TIMES.into(), reason: error.to_string() })
    }

    /// The time since a connection's SYN; removes it from the table.
    pub(super) fn since(&self, client: SocketAddr, server: SocketAddr) -> Option<Duration> {
        let place = Place::of(&flow_of(client, server));
        let word = self.0.cells().get(place.slot as usize)?;
        let age_ns = place.age_ns(word.load(Relaxed), now_ns())?;
        word.store(0, Relaxed);
        Some(Duration::from_nanos(age_ns))
    }
}

/// The key of a connection in the kernel half.
pub(super) fn flow_of(client: SocketAddr, server: SocketAddr) -> FlowKey {
    let words = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(address) => [address.to_bits(), 0, 0, 0],
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [96, 64, 32, 0].map(|shift| u32::try_from(bits >> shift & 0xffff_ffff).unwrap_or_default())
        }
    };
    let is_v6 = client.ip().to_canonical().is_ipv6();
    FlowKey::new(words(client.ip()), client.port(), words(server.ip()), server.port(), is_v6)
}
