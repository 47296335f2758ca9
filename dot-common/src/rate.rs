//! A limit on the rate at which a client sends something: the generic cell rate algorithm, with one number per client.
//!
//! Before: [`crate::judge`] has a packet that a limit counts. After: it is within its rate, or above it.
//! Holds: the arithmetic, and the keys of the map RATE. The number is the time at which the next packet would
//! be exactly on schedule; a burst lets packets come before it.
//! Never: reads a clock, or writes: the kernel half exchanges the number atomically, a test keeps it in a table.
//!
//! In any span of time `t` a client is admitted at most `burst + rate · t` times, however it spaces its packets.
//!
//! Source: ITU-T I.371, Annex A (virtual scheduling).

use crate::{flow::FlowKey, prefix::ClientPrefix};

/// What is counted separately.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Connections to a DNS-over-TLS port.
    DotSyn = 1,
    /// TCP connections to the cleartext port.
    Do53Syn = 2,
    /// Queries by UDP to the cleartext port.
    Do53Query = 3,
    /// Connections to a DNS-over-TLS port that began with the ACK of a SYN proxy's cookie.
    DotCompletion = 4,
}

/// A rate and its burst, as times. 16 octets, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Time that each packet takes of its client's schedule; 0: no limit.
    pub period_ns: u64,
    /// The most by which a client may be ahead of its schedule.
    pub tolerance_ns: u64,
}

const _: () = assert!(size_of::<Rate>() == 16);

const SECOND_NS: u64 = 1_000_000_000;

/// How old the time that a CPU has read may become while others go on: interrupts, a paused virtual machine.
pub const STALE_NS: u64 = SECOND_NS;

impl Rate {
    /// `per_second` packets, `burst` (at least one) of them at once; 0 per second is no limit.
    ///
    /// The period is rounded up: never more than asked for.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        if per_second == 0 {
            return Self { period_ns: 0, tolerance_ns: 0 };
        }
        let period_ns = SECOND_NS.div_ceil(per_second as u64);
        Self { period_ns, tolerance_ns: burst.saturating_sub(1) as u64 * period_ns }
    }

    /// Whether there is a limit.
    #[must_use]
    #[inline(always)]
    pub const fn is_limit(&self) -> bool {
        self.period_ns != 0
    }

    /// The client's next `scheduled_ns` if a packet at `now_ns` is within its rate; a new client's is 0.
    ///
    /// A time that no packet under this rate can have caused comes from another rate, before a reload: the client
    /// starts with an empty schedule.
    #[must_use]
    #[inline(always)]
    pub const fn admit(&self, scheduled_ns: u64, now_ns: u64) -> Option<u64> {
        let ahead = scheduled_ns.saturating_sub(now_ns);
        let ahead = if ahead > self.tolerance_ns + self.period_ns + STALE_NS { 0 } else { ahead };
        if ahead > self.tolerance_ns { None } else { Some(now_ns + ahead + self.period_ns) }
    }
}

/// The key of the map RATE: a class in the highest four bits over a client's [`ClientPrefix`].
#[must_use]
#[inline(always)]
pub const fn key(class: Class, client: ClientPrefix) -> u64 {
    (class as u64) << 60 | client.key()
}

/// The sender of a packet, as limits and bans see it.
#[must_use]
#[inline(always)]
pub const fn client(flow: &FlowKey, prefix_v4: u8, prefix_v6: u8) -> ClientPrefix {
    let aligned = flow.client[0].swap_bytes();
    if flow.is_v6() {
        ClientPrefix::new(6, aligned, prefix_v6)
    } else {
        ClientPrefix::new(4, aligned, prefix_v4)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{collections::BTreeSet, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    /// The times at which packets are admitted.
    fn admitted(rate: &Rate, arrivals: &[u64]) -> Vec<u64> {
        let mut scheduled = 0;
        let mut passed = Vec::new();
        for now in arrivals {
            if let Some(next) = rate.admit(scheduled, *now) {
                scheduled = next;
                passed.push(*now);
            }
        }
        passed
    }

    /// Times from gaps, some of them zero, some of them as long as a burst takes to become available again.
    fn arrivals() -> impl Strategy<Value = Vec<u64>> {
        let gap = prop_oneof![3 => Just(0u64), 3 => 0..2_000_000u64, 1 => 0..3_000_000_000u64];
        (0u64..1 << 40, prop::collection::vec(gap, 1..400)).prop_map(|(start, gaps)| {
            gaps.iter()
                .scan(start, |now, gap| {
                    *now += gap;
                    Some(*now)
                })
                .collect()
        })
    }

    /// Goal: a class, a version and a prefix each make a key of their own, and a prefix's addresses share one.
    #[test]
    fn keys_are_apart() {
        let flow = |first, second, is_v6| FlowKey::new([first, second, 3, 4], 5, [6; 4], 53, is_v6);
        let mut keys = BTreeSet::new();
        for class in [Class::DotSyn, Class::Do53Syn, Class::Do53Query, Class::DotCompletion] {
            for (first, second, is_v6) in [(1, 0, false), (2, 0, false), (1, 0, true), (1, 0x100, true)] {
                assert!(keys.insert(key(class, client(&flow(first, second, is_v6), 32, 56))));
            }
            assert!(!keys.insert(key(class, client(&flow(1, 0xff, true), 32, 56))), "one /56 is one client");
            assert!(!keys.insert(key(class, client(&flow(1, 9, false), 32, 56))), "IPv4 has one word");
        }
    }

    /// Goal: after a reload to a stricter rate no client waits for the schedule of the old rate.
    #[test]
    fn foreign_schedules_begin_anew() {
        let (old, new) = (Rate::new(1, 1000), Rate::new(100, 10));
        let now = 1 << 40;
        let mut scheduled = 0;
        while let Some(next) = old.admit(scheduled, now) {
            scheduled = next;
        }
        assert_eq!(scheduled, now + 1000 * SECOND_NS);
        assert_eq!(new.admit(scheduled, now), Some(now + new.period_ns));
    }

    /// Goal: a CPU that read its clock late does not take the schedule of another CPU for one of another rate.
    #[test]
    fn stale_clocks_open_no_door() {
        let rate = Rate::new(1000, 10);
        let late = 1 << 40;
        let mut scheduled = 0;
        for step in 0..2000 {
            scheduled = rate.admit(scheduled, late + step * 500_000).unwrap_or(scheduled);
        }
        assert_eq!(rate.admit(scheduled, late), None);
    }

    /// Goal: zero is no limit, and the largest values do not overflow.
    #[test]
    fn extremes_are_lawful() {
        assert!(!Rate::new(0, 7).is_limit());
        assert_eq!(Rate::new(1, 0), Rate::new(1, 1));
        for (per_second, burst) in [(1, u32::MAX), (u32::MAX, u32::MAX), (u32::MAX, 1), (1, 1)] {
            let rate = Rate::new(per_second, burst);
            assert!(rate.is_limit() && rate.admit(u64::MAX, 1 << 62).is_some());
        }
    }

    proptest! {
        /// Goal: the documented bound holds. Method: every window between two admitted packets of random arrivals,
        /// counted.
        #[test]
        fn no_window_admits_more_than_burst_and_rate(
            arrivals in arrivals(), per_second in 1u32..2_000_000, burst in 1u32..80,
        ) {
            let rate = Rate::new(per_second, burst);
            let passed = admitted(&rate, &arrivals);
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let count = u128::try_from(last - first + 1).unwrap();
                    let earned = u128::from(to - from) * u128::from(per_second) / u128::from(SECOND_NS);
                    prop_assert!(count <= u128::from(burst) + earned, "{count} in {} ns", to - from);
                }
            }
        }

        /// Goal: a client that keeps to the rate is never refused, and its burst is available once it was saved up.
        #[test]
        fn who_keeps_to_the_rate_is_never_refused(
            start in 0u64..1 << 50, slack in prop::collection::vec(0..5_000_000u64, 1..200),
            per_second in 1u32..2_000_000, burst in 1u32..80,
        ) {
            let rate = Rate::new(per_second, burst);
            let mut now = start;
            let mut times = Vec::new();
            for slack in slack {
                now += rate.period_ns + slack;
                times.push(now);
            }
            now += u64::from(burst) * rate.period_ns;
            times.resize(times.len() + burst as usize, now);
            prop_assert_eq!(admitted(&rate, &times).len(), times.len());
        }

        /// Goal: a client above its rate gets no less than its rate. Method: more packets than the rate allows, evenly
        /// spaced.
        #[test]
        fn who_is_over_the_rate_still_gets_it(per_second in 1u32..2_000_000, burst in 1u32..80, times in 2u64..9) {
            let rate = Rate::new(per_second, burst);
            let arrivals: Vec<u64> = (0..2000).map(|step| (1 << 40) + step * rate.period_ns / times).collect();
            let earned = (arrivals[1999] - arrivals[0]) / rate.period_ns;
            let passed = admitted(&rate, &arrivals).len() as u64;
            prop_assert!(passed >= u64::from(burst) + earned - 1, "{passed}");
        }
    }
}
