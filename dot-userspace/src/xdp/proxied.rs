//! What the SYN proxy at tc ingress did.
//!
//! Before: the object is loaded. After: the report has the program's counts. Holds: the map. Never: writes it.

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use dot_common::maps::{PROXY_ANSWERED, PROXY_COMPLETED, PROXY_COUNTS, PROXY_REFUSED};

use super::{
    XdpError,
    attach::{refused, take},
    report::ProxyCounts,
};

/// The program's counts.
pub(super) struct Proxied(PerCpuArray<MapData, u64>);

impl Proxied {
    /// Takes the map out of the object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        let map = take(object, PROXY_COUNTS)?;
        PerCpuArray::try_from(map).map(Self).map_err(|error| refused(PROXY_COUNTS, &error))
    }

    /// All CPUs together.
    pub(super) fn read(&self) -> ProxyCounts {
        let total = |fate| self.0.get(&fate, 0).map_or(0, |per_cpu| per_cpu.iter().sum());
        ProxyCounts {
            answered: total(PROXY_ANSWERED),
            completed: total(PROXY_COMPLETED),
            refused: total(PROXY_REFUSED),
        }
    }
}
