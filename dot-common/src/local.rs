//! Each CPU's cache of recent destinations: whether each of them belongs to this machine.
//!
//! Before: a packet to one of our ports. After: it is judged, or passes uncounted because its destination is another
//! machine, or a virtual machine behind a bridge.
//! Holds: the entry, its place, and what invalidates it. Never: decides; a destination without an entry is looked up in
//! the tries that the loader fills.

use crate::flow::FlowKey;

/// One destination. 24 octets, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// Its address, as in [`FlowKey`].
    pub server: [u64; 2],
    /// The [`Settings::generation`] in which the destination was looked up.
    ///
    /// [`Settings::generation`]: crate::settings::Settings::generation
    pub generation: u32,
    /// IP version, and [`Destination::LOCAL`]; 0: the entry is empty.
    pub said: u32,
}

const _: () = assert!(size_of::<Destination>() == 24 && align_of::<Destination>() == 8);

impl Destination {
    /// Bit of `said`: the destination belongs to this machine.
    pub const LOCAL: u32 = 1 << 8;

    /// The entry for a packet's destination.
    #[must_use]
    #[inline(always)]
    pub const fn of(flow: &FlowKey, generation: u32, is_local: bool) -> Self {
        let local = if is_local { Self::LOCAL } else { 0 };
        Self { server: flow.server, generation, said: flow.version | local }
    }

    /// Whether a packet's destination is local, if the entry is this destination's and nothing has changed since.
    #[must_use]
    #[inline(always)]
    pub const fn recall(&self, flow: &FlowKey, generation: u32) -> Option<bool> {
        let ([a, b], [c, d]) = (self.server, flow.server);
        let difference = (self.said & !Self::LOCAL ^ flow.version) | (self.generation ^ generation);
        if (a ^ c) | (b ^ d) | difference as u64 != 0 {
            return None;
        }
        Some(self.said & Self::LOCAL != 0)
    }
}

/// Destinations that a CPU remembers, as a power of two.
pub const DESTINATIONS_BITS: u32 = 8;

/// The place of a packet's destination. Destinations with the same place only cause each other a look-up in the tries.
#[must_use]
#[inline(always)]
pub const fn place(flow: &FlowKey) -> u32 {
    let [a, b] = flow.server;
    /// 2^32 divided by the golden ratio: it spreads neighbouring addresses.
    const SPREAD: u32 = 0x9e37_79b1;
    let folded = a ^ b.rotate_left(13);
    let folded = (folded ^ folded >> 32) as u32;
    folded.swap_bytes().wrapping_mul(SPREAD) >> (32 - DESTINATIONS_BITS)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeSet;

    use super::*;

    fn flow(address: u32) -> FlowKey {
        FlowKey::new([5; 4], 5, [address, 0, 0, 0], 853, false)
    }

    /// Goal: an entry is used only for its own destination, its IP version and its generation of addresses. Method: one
    /// difference at a time.
    #[test]
    fn a_destination_is_void_when_anything_changed() {
        for is_local in [true, false] {
            let known = Destination::of(&flow(7), 3, is_local);
            assert_eq!(known.recall(&flow(7), 3), Some(is_local));
            assert_eq!(known.recall(&flow(8), 3), None, "another destination");
            assert_eq!(known.recall(&flow(7), 4), None, "other addresses");
            assert_eq!(known.recall(&FlowKey { version: 6, ..flow(7) }, 3), None, "another IP version");
        }
        assert_eq!(Destination::default().recall(&flow(0), 1), None, "nothing is remembered at first");
    }

    /// Goal: nearly all neighbouring addresses have places of their own, and no place lies outside the map.
    #[test]
    fn neighbours_are_spread() {
        let places: BTreeSet<u32> = (0..128).map(|last| place(&flow(0xc633_6400 | last))).collect();
        assert!(places.len() > 100, "{}", places.len());
        assert!(places.iter().all(|place| *place < 1 << DESTINATIONS_BITS));
    }
}
