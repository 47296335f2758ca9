//! When our stack first answered the SYN of each connection: a table of fixed size, with one word in each slot.
//!
//! Before: the learner sees a SYN-ACK leave. After: the worker that accepts the connection reads how long ago that was, and
//! empties the slot.
//! Holds: the place of a connection, and the shape of its word: a tag, and a time.
//! Never: reads a clock, or writes: the kernel half stores the word, a worker empties it.
//!
//! The stack answers a SYN in the same interrupt in which the SYN came, so the time of the first SYN-ACK is the time of the
//! SYN. Two connections can share a slot: the later one takes it, and the earlier one is not measured.

use crate::flow::FlowKey;

/// Slots of the table, a power of two: 512 KiB. Connections between their SYN and their accept share it.
pub const SLOTS: u32 = 65_536;
const SLOT_BITS: u32 = SLOTS.trailing_zeros();

/// A step of time is 2^10 ns: the low half of a word wraps after 73 minutes.
const STEP_BITS: u32 = 10;
/// The most steps from a SYN to its accept, 120 s: a SYN-ACK is retransmitted for 63 s by default (tcp_synack_retries).
const LIFE_STEPS: u32 = 117_187_500;

/// The place at which a connection's time is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The slot.
    pub slot: u32,
    /// A tag that distinguishes the connection from most others in this slot.
    tag: u32,
}

impl Place {
    /// The place of a connection.
    #[must_use]
    #[inline(always)]
    pub const fn of(flow: &FlowKey) -> Self {
        let ([a, b], [c, d]) = (flow.client, flow.server);
        let mixed = mix(mix(mix(mix(mix(0, a), b), c), d), flow.ports as u64);
        Self { slot: (mixed >> (64 - SLOT_BITS)) as u32, tag: (mixed >> (32 - SLOT_BITS)) as u32 }
    }

    /// The word of a connection whose SYN was answered at `now_ns`.
    #[must_use]
    #[inline(always)]
    pub const fn word(&self, now_ns: u64) -> u64 {
        (self.tag as u64) << 32 | step(now_ns) as u64
    }

    /// The age of the connection's time in a slot's word. `None`: the word is another connection's, or too old.
    #[must_use]
    #[inline(always)]
    pub const fn age_ns(&self, word: u64, now_ns: u64) -> Option<u64> {
        let steps = step(now_ns).wrapping_sub(word as u32);
        if word == 0 || (word >> 32) as u32 != self.tag || steps > LIFE_STEPS {
            return None;
        }
        Some((steps as u64) << STEP_BITS)
    }
}

#[inline(always)]
const fn step(now_ns: u64) -> u32 {
    (now_ns >> STEP_BITS) as u32
}

#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    /// 2^64 over the golden ratio (Knuth, TAOCP 6.4): neighbours end far apart.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = (hash ^ word).wrapping_mul(FACTOR);
    mixed ^ mixed >> 29
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{collections::BTreeSet, vec};

    use super::*;

    fn flow(client: u32, port: u16) -> FlowKey {
        FlowKey::new([client, 0, 0, 0], port, [0xc000_0201, 0, 0, 0], 853, false)
    }

    /// Goal: a connection finds its own time, until it is too old or another one has the slot. Method: times by hand, also
    /// across the wrap of the low half. Covers: C-700
    #[test]
    fn a_time_is_its_connections() {
        let place = Place::of(&flow(0xcb00_7107, 1000));
        for now_ns in [0, 5_000_000_000, ((1u64 << 32) - 3) << STEP_BITS] {
            let word = place.word(now_ns);
            assert_eq!(place.age_ns(word, now_ns + 7 * 1024), Some(7 * 1024));
            assert_eq!(place.age_ns(word, now_ns + 121_000_000_000), None, "too old");
            let other = Place::of(&flow(0xcb00_7107, 1001));
            assert_eq!(other.age_ns(word, now_ns), None);
        }
        assert_eq!(place.age_ns(0, 9_000), None, "an empty slot");
        assert_eq!(place.age_ns(place.word(9_000_000), 8_000_000), None, "from the future");
    }

    /// Goal: connections of one client, and of neighbours, are spread over the slots and told apart. Method: all ports of two
    /// clients. Covers: C-700
    #[test]
    fn places_are_spread() {
        let mut load = vec![0u32; SLOTS as usize];
        let mut seen = BTreeSet::new();
        for client in [0xc633_6401, 0xc633_6402] {
            for port in 0..=u16::MAX {
                let place = Place::of(&flow(client, port));
                load[place.slot as usize] += 1;
                assert!(seen.insert((place.slot, place.tag)), "{client:x} {port}");
            }
        }
        assert!(load.iter().all(|count| *count < 16), "{:?}", load.iter().max());
    }
}
