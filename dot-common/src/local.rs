//! What a CPU remembers of the destinations it saw last: whether each is this machine's.
//!
//! Before: a packet to one of our ports. After: it is judged, or passes uncounted because it is on its way to another
//! machine, or to a virtual one behind a bridge.
//! Holds: the entry, its place, and what makes it void. Never: decides; a destination that is not remembered is asked for in
//! the tries that the loader fills.

use crate::flow::FlowKey;

/// One destination. 24 octets, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// Its address, as in [`FlowKey`].
    pub server: [u64; 2],
    /// The [`Settings::generation`] in which it was asked for.
    ///
    /// [`Settings::generation`]: crate::settings::Settings::generation
    pub generation: u32,
    /// IP version, and [`Destination::LOCAL`]; 0: nothing is remembered.
    pub said: u32,
}

const _: () = assert!(size_of::<Destination>() == 24 && align_of::<Destination>() == 8);

impl Destination {
    /// Bit of `said`: it is this machine's.
    pub const LOCAL: u32 = 1 << 8;

    /// What is to be remembered of a packet's destination.
    #[must_use]
    #[inline(always)]
    pub const fn of(flow: &FlowKey, generation: u32, is_local: bool) -> Self {
        let local = if is_local { Self::LOCAL } else { 0 };
        Self { server: flow.server, generation, said: flow.version | local }
    }

    /// Whether a packet's destination is local, if it is the one remembered and nothing has changed since.
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

/// The place of a packet's destination. Destinations that share one cost each other a look into the tries, no more.
#[must_use]
#[inline(always)]
pub const fn place(flow: &FlowKey) -> u32 {
    let [a, b] = flow.server;
    /// 2^32 divided by the golden ratio: neighbours are spread.
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

    /// Goal: what is remembered is of this destination, this IP version and these addresses. Method: one difference at a
    /// time.
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

    /// Goal: neighbours have places of their own, nearly all of them, and none lies outside the map.
    #[test]
    fn neighbours_are_spread() {
        let places: BTreeSet<u32> = (0..128).map(|last| place(&flow(0xc633_6400 | last))).collect();
        assert!(places.len() > 100, "{}", places.len());
        assert!(places.iter().all(|place| *place < 1 << DESTINATIONS_BITS));
    }
}
