//! How long dotd waits for a client to read, depending on how fast it reads. Pure.
//!
//! Before: `writer` or `linger` has octets that a client does not take. After: it knows until when to wait.
//! Holds: the moment at which the wait ends, and how many octets the client had taken at the last look.
//! Never: counts octets as taken that only the kernel holds, or waits for a client without end.

use std::time::Duration;

use tokio::time::Instant;

/// The slowest acceptable rate in octets a second: two ISDN channels, 128 kbit/s.
const OCTETS_PER_SECOND_MIN: u32 = 16 * 1024;
/// The wait extends at most this many timeouts ahead. Two: the kernel of a client that reads steadily opens its window
/// in steps of a sixteenth of its buffer (RFC 9293 §3.8.6.2.2), so the octets read during a timeout may be acknowledged
/// at its end.
const TIMEOUTS_AHEAD_MAX: u32 = 2;

/// A client's pace.
#[derive(Default)]
pub(super) struct Pace {
    ends: Option<Instant>,
    taken: u64,
}

impl Pace {
    /// When a client is cut. `None`: nothing waits for it.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// Nothing waits any more.
    pub(super) fn rest(&mut self) {
        self.ends = None;
    }

    /// Octets wait; the client has taken `taken` octets since its connection began. Returns when the wait ends.
    ///
    /// The client has one timeout from the first call on, and gains time at 16 KiB a second for what it takes. The wait
    /// never extends further than two timeouts: octets that are taken at once are no steady pace.
    pub(super) fn note(&mut self, now: Instant, taken: u64, timeout: Duration) -> Instant {
        let gained = gained(taken.saturating_sub(self.taken));
        let ends = self.ends.map_or(now + timeout, |ends| ends + gained);
        let ends = ends.min(now + timeout * TIMEOUTS_AHEAD_MAX);
        (self.ends, self.taken) = (Some(ends), taken);
        ends
    }
}

/// The time that a client gains by taking octets. Below the minimum rate it gains less time than passes, so a trickle
/// ends too.
fn gained(octets: u64) -> Duration {
    // Beyond 4 GiB at once there is nothing to gain: the wait is limited.
    Duration::from_secs(1) * u32::try_from(octets).unwrap_or(u32::MAX) / OCTETS_PER_SECOND_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);
    const KIB: u64 = 1024;

    /// Seconds until a client is cut that takes `octets` after each `step` seconds. `None`: not within an hour. The
    /// calls come when it takes octets and when the wait ends, as in `writer`.
    fn cut_after(octets: u64, step: u32) -> Option<u32> {
        let (start, mut pace, mut taken) = (Instant::now(), Pace::default(), 0);
        pace.note(start, 0, TIMEOUT);
        (1..3600).find(|second| {
            if second % step == 0 {
                taken += octets;
            }
            let now = start + Duration::from_secs(1) * *second;
            let is_looked_at = second % step == 0 || pace.ends().is_some_and(|ends| ends <= now);
            is_looked_at && pace.note(now, taken, TIMEOUT) <= now
        })
    }

    /// Goal: a trickle gains less time than it takes, so it ends as silence does; a client at the minimum rate is never
    /// cut. Method: rates from nothing to twice the minimum, a step each second.
    #[test]
    fn a_trickle_ends() {
        assert_eq!(cut_after(0, 1), Some(10));
        assert_eq!(cut_after(1, 1), Some(11), "an octet a second");
        assert_eq!(cut_after(8 * KIB, 1), Some(20), "half of the least pace");
        assert_eq!(cut_after(16 * KIB, 1), None);
        assert_eq!(cut_after(32 * KIB, 1), None);
    }

    /// Goal: a client that reads 16 KiB a second is never cut, even if its kernel acknowledges in steps as long as a
    /// timeout; below the rate, or with pauses beyond the timeout, it is. Method: the same rate in steps of one second
    /// to ten.
    ///
    #[test]
    fn a_steady_reader_is_never_cut_however_its_kernel_takes_it() {
        for step in 1..=9 {
            assert_eq!(cut_after(16 * KIB * u64::from(step), step), None, "steps of {step} s");
            assert_eq!(cut_after(20 * KIB * u64::from(step), step), None, "steps of {step} s");
            assert!(cut_after(12 * KIB * u64::from(step), step).is_some(), "slower, in steps of {step} s");
        }
        assert_eq!(cut_after(16 * KIB * 10, 10), None, "what is taken as the timeout ends counts");
        assert_eq!(cut_after(1024 * KIB, 11), Some(10), "nothing for longer than the timeout");
    }

    /// Goal: octets taken at once gain no more than two timeouts. Method: 4 MiB at once, then nothing.
    ///
    #[test]
    fn much_at_once_buys_two_timeouts() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        pace.note(start, 0, TIMEOUT);
        let later = start + Duration::from_secs(2);
        assert_eq!(pace.note(later, 4096 * KIB, TIMEOUT), later + TIMEOUT * 2);
        assert_eq!(pace.note(later + TIMEOUT, 4096 * KIB, TIMEOUT), later + TIMEOUT * 2);
    }

    /// Goal: octets taken before any waited gain nothing, and a client has its whole timeout each time octets begin to
    /// wait. Method: two waits, with a rest and a megabyte between them.
    #[test]
    fn each_wait_begins_anew() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        assert_eq!(pace.note(start, 1024 * KIB, TIMEOUT), start + TIMEOUT);
        pace.rest();
        assert_eq!(pace.ends(), None);
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.note(later, 2048 * KIB, TIMEOUT), later + TIMEOUT);
        assert_eq!(pace.note(later, 2048 * KIB, TIMEOUT), later + TIMEOUT);
    }
}
