//! What the kernel half tells of traced clients, in a lab.
//!
//! Before: a lab, and prefixes. After: the events of packets that the lab judged. Never: attaches anything.

use std::iter;

use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use dot_common::{
    maps::{TRACE_EVENTS, TRACE_LOST, TRACED},
    traced::{Traced, TracedPrefix},
};

use crate::xdp_lab::Lab;

/// The maps.
pub struct Traces {
    clients: Array<MapData, Traced>,
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
}

impl Traces {
    /// Takes them out of a lab.
    ///
    /// # Panics
    /// When they were taken already.
    #[must_use]
    pub fn take(lab: &mut Lab) -> Self {
        let mut take = |name: &str| lab.object.take_map(name).expect("the object has all maps");
        Self {
            clients: Array::try_from(take(TRACED)).expect("an array"),
            ring: RingBuf::try_from(take(TRACE_EVENTS)).expect("a ring"),
            lost: PerCpuArray::try_from(take(TRACE_LOST)).expect("an array"),
        }
    }

    /// Traces these clients; the settings must say so too.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn trace(&mut self, clients: &[TracedPrefix]) {
        let mut traced = Traced::default();
        traced.clients.iter_mut().zip(clients).for_each(|(to, from)| *to = *from);
        self.clients.set(0, traced, 0).expect("it is written");
    }

    /// Client (its first four octets), action and reason of each packet that was told since the last call.
    pub fn told(&mut self) -> Vec<([u8; 4], u32, u32)> {
        let entries = iter::from_fn(|| {
            let entry = self.ring.next()?.to_vec();
            let number =
                |from: usize| u32::from_ne_bytes(entry[from..from + 4].try_into().expect("four octets"));
            assert_eq!(entry.len(), 64);
            Some((entry[16..20].try_into().expect("four octets"), number(60), number(56)))
        });
        entries.collect()
    }

    /// Packets that were not told because there was no room, or too many came.
    ///
    /// # Panics
    /// When the kernel refuses to read.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.get(&0, 0).expect("it is read").iter().sum()
    }
}
