//! Notices of the kernel half about refused clients: one for each client, reason and minute.
//!
//! Before: [`crate::judge`] refused a packet, or would have. After: a line in the log, by the control thread.
//! Holds: the notice's shape, the memory of sent notices (a table of fixed size, one word in each slot), and the pace
//! at which notices are sent.
//! Never: reads a clock, or writes: the kernel half stores the word, a test a table.
//!
//! Two clients can share a slot: the later one takes the slot, and the earlier one may be named twice. Because the pace
//! bounds how often slots are written, a flood from a million addresses evicts few entries.

use crate::{
    prefix::ClientPrefix,
    rate::Rate,
    verdict::{Action, Reason, Verdict},
};

/// One notice. 16 octets, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// The key of the client's [`ClientPrefix`].
    pub client: u64,
    /// The number of a [`Reason`].
    pub reason: u32,
    /// The number of an [`Action`].
    pub action: u32,
}

const _: () = assert!(size_of::<Notice>() == 16);

impl Notice {
    /// The verdict, unless a number is unknown.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        Verdict::numbered(self.reason, self.action)
    }
}

/// Whether a verdict deserves a notice: a client was refused, or would have been, that is on no list of the operator's,
/// and whose packet a stack would have accepted.
#[must_use]
#[inline(always)]
pub const fn is_noted(verdict: Verdict) -> bool {
    !matches!(verdict.action, Action::Pass)
        && matches!(
            verdict.reason,
            Reason::DotSynRate
                | Reason::Do53SynRate
                | Reason::Do53QueryRate
                | Reason::HandshakeCost
                | Reason::WideCost
                | Reason::Banned
                | Reason::CleartextOnDot
                | Reason::TlsOnDo53
                | Reason::UdpOnDot
        )
}

/// Slots of the table, a power of two. 64 KiB; the pace fills at most 70 slots for a reason in a minute.
pub const SLOTS: u32 = 8192;
const SLOT_BITS: u32 = SLOTS.trailing_zeros();

/// How often notices of one reason are sent, over all clients: ten at once, then one a second.
pub const PACE: Rate = Rate::new(1, 10);

/// Reasons for which the table of paces has room.
pub const REASONS_MAX: u32 = 64;
const _: () = assert!(Reason::ALL.len() <= REASONS_MAX as usize);

/// Length of a minute, in steps of 2^30 ns: 60.1 s.
const MINUTE_STEPS: u32 = 56;
const STEP_BITS: u32 = 30;

/// The place at which a notice of a client and a reason is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The slot.
    pub slot: u32,
    /// A tag that distinguishes them from most others in this slot.
    tag: u32,
}

impl Place {
    /// The place for a client and the number of a reason.
    #[must_use]
    #[inline(always)]
    pub const fn of(client: ClientPrefix, reason: u32) -> Self {
        /// 2^64 over the golden ratio (Knuth, TAOCP 6.4): neighbours end far apart.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        // A client's key leaves the highest five bits free.
        let mixed = (client.key() ^ (reason as u64) << 59).wrapping_mul(FACTOR);
        Self { slot: (mixed >> (64 - SLOT_BITS)) as u32, tag: (mixed >> (32 - SLOT_BITS)) as u32 }
    }

    /// Whether a slot's word allows a notice at `now_ns`: the word is another client's, or a minute old.
    #[must_use]
    #[inline(always)]
    pub const fn is_due(&self, word: u64, now_ns: u64) -> bool {
        let is_ours = (word >> 32) as u32 == self.tag && word != 0;
        !is_ours || step(now_ns).wrapping_sub(word as u32) >= MINUTE_STEPS
    }

    /// The word for a slot whose notice was sent at `now_ns`.
    #[must_use]
    #[inline(always)]
    pub const fn word(&self, now_ns: u64) -> u64 {
        (self.tag as u64) << 32 | step(now_ns) as u64
    }
}

/// The time in steps; never zero, which marks an empty slot.
#[inline(always)]
const fn step(now_ns: u64) -> u32 {
    ((now_ns >> STEP_BITS) as u32).wrapping_add(1)
}

/// The fates of notices, in the order of the map NOTICE_COUNTS.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Put into the ring.
    Sent = 0,
    /// Not sent, because of [`PACE`].
    HeldBack = 1,
    /// Lost, because the ring was full.
    Lost = 2,
}

impl Fate {
    /// Every fate.
    pub const ALL: [Self; 3] = [Self::Sent, Self::HeldBack, Self::Lost];
}

/// Octets of the ring: a power of two and whole pages. More than ten seconds of every reason at its pace.
pub const RING_OCTETS: u32 = 65_536;

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{collections::BTreeSet, vec, vec::Vec};

    use super::*;
    use crate::counters;

    const MINUTE_NS: u64 = 60_000_000_000;

    /// Goal: a client is named once a minute for a reason, whatever the slot's first word was. Method: a packet a
    /// second.
    #[test]
    fn names_once_a_minute() {
        let place = Place::of(ClientPrefix::v4(0xc000_0201, 32), Reason::Banned as u32);
        assert!(place.is_due(0, 0), "an empty slot");
        let mut word = 0;
        let mut named = Vec::new();
        for second in 0..600 {
            let now_ns = second * 1_000_000_000;
            if place.is_due(word, now_ns) {
                word = place.word(now_ns);
                named.push(second);
            }
        }
        assert!((10..=11).contains(&named.len()), "{named:?}");
        assert!(named.windows(2).all(|pair| pair[1] - pair[0] >= 59), "{named:?}");
        assert!(place.is_due(place.word(0), 2 * MINUTE_NS) && !place.is_due(place.word(0), MINUTE_NS / 2));
    }

    /// Goal: notices that share a slot are told apart: neither reasons nor neighbours silence each other. Method: all
    /// reasons of a /16.
    #[test]
    fn places_are_spread_and_tagged() {
        let mut load = vec![0u32; SLOTS as usize];
        let mut seen = BTreeSet::new();
        for reason in [Reason::DotSynRate, Reason::UdpOnDot, Reason::Banned] {
            for host in 0..0x1_0000 {
                let place = Place::of(ClientPrefix::v4(0xc633_0000 | host, 32), reason as u32);
                load[place.slot as usize] += 1;
                assert!(seen.insert((place.slot, place.tag)), "{host:x} {reason:?}");
            }
        }
        // 24 on average.
        assert!(load.iter().all(|count| (6..60).contains(count)), "{:?}", load.iter().max());
    }

    /// Goal: every refusal for a reason of dotd's is noted, with each of its actions, and reads back unchanged. Method: the
    /// reasons that can also only be counted; a full house, which is no client's doing, is the one exception.
    #[test]
    fn notices_read_back() {
        for reason in Reason::ALL.iter().filter(|reason| reason.actions().contains(&Action::WouldDrop)) {
            assert_eq!(
                is_noted(Verdict::drop(*reason)),
                *reason != Reason::Pressure,
                "{reason:?}: see is_noted"
            );
        }
        let noted: Vec<_> = counters::rows().filter(|verdict| is_noted(*verdict)).collect();
        assert_eq!(noted.len(), 9 * 2 + 1, "{noted:?}");
        for verdict in noted {
            let notice = Notice { client: 1, reason: verdict.reason as u32, action: verdict.action as u32 };
            assert_eq!(notice.verdict(), Some(verdict));
        }
        assert!(!is_noted(Verdict::drop(Reason::Denied)) && !is_noted(Verdict::pass(Reason::Syn)));
        assert_eq!(Notice { client: 1, reason: 999, action: 0 }.verdict(), None);
    }
}
