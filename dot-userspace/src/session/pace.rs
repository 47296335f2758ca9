//! How long a client may let what it is owed wait, by how fast it takes that. Pure.
//!
//! Before: `writer` or `linger` has octets that a client does not take. After: it knows until when it waits for it.
//! Holds: the moment at which patience ends, and how many octets the client had taken when somebody last looked.
//! Never: takes octets for taken that only the kernel holds, or waits for a client without end.

use std::time::Duration;

use tokio::time::Instant;

/// Octets a second that are taken for reading: two ISDN channels, 128 kbit/s.
const OCTETS_PER_SECOND_MIN: u32 = 16 * 1024;
/// Timeouts that patience reaches ahead at most. Two: the kernel of a client that reads steadily opens its window in steps
/// of a sixteenth of its buffer (RFC 9293 §3.8.6.2.2), so that what is read in a timeout may be taken at its end.
const TIMEOUTS_AHEAD_MAX: u32 = 2;

/// A client's pace.
#[derive(Default)]
pub(super) struct Pace {
    ends: Option<Instant>,
    taken: u64,
}

impl Pace {
    /// When a client that lets us wait is cut; `None` while none does.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// Nothing waits any more.
    pub(super) fn rest(&mut self) {
        self.ends = None;
    }

    /// Something waits; the client has taken `taken` octets since its connection began. Returns when patience ends.
    ///
    /// It has one timeout from the first look on, and what it takes gains it time at 16 KiB a second. Patience never reaches
    /// further than two timeouts: what is taken at once is no pace.
    pub(super) fn note(&mut self, now: Instant, taken: u64, timeout: Duration) -> Instant {
        let gained = gained(taken.saturating_sub(self.taken));
        let ends = self.ends.map_or(now + timeout, |ends| ends + gained);
        let ends = ends.min(now + timeout * TIMEOUTS_AHEAD_MAX);
        (self.ends, self.taken) = (Some(ends), taken);
        ends
    }
}

/// Time that a client gains by taking so many octets. Where it takes no more than the least a second it gains less than
/// passes, so that a trickle ends too.
fn gained(octets: u64) -> Duration {
    // Beyond 4 GiB at once nothing is to gain: patience has its end.
    Duration::from_secs(1) * u32::try_from(octets).unwrap_or(u32::MAX) / OCTETS_PER_SECOND_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);
    const KIB: u64 = 1024;

    /// Seconds until a client is cut that takes `octets` after each `step` seconds; `None`: not within an hour. It is looked
    /// at when it takes something, and when its patience ends, as `writer` does.
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

    /// Goal: a trickle gains less than it takes, so that it ends as silence does; a client that keeps the least pace is never
    /// cut. Method: paces from nothing to twice the least, a step each second.
    #[test]
    fn a_trickle_ends() {
        assert_eq!(cut_after(0, 1), Some(10));
        assert_eq!(cut_after(1, 1), Some(11), "an octet a second");
        assert_eq!(cut_after(8 * KIB, 1), Some(20), "half of the least pace");
        assert_eq!(cut_after(16 * KIB, 1), None);
        assert_eq!(cut_after(32 * KIB, 1), None);
    }

    /// Goal: a client that takes 16 KiB a second is never cut, also where its kernel takes that in steps as long as a timeout;
    /// below the pace, or with pauses beyond the timeout, it is. Method: the same pace in steps of one second to ten.
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

    /// Goal: what is taken at once is not saved up as patience beyond two timeouts. Method: 4 MiB at once, then nothing.
    ///
    #[test]
    fn much_at_once_buys_two_timeouts() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        pace.note(start, 0, TIMEOUT);
        let later = start + Duration::from_secs(2);
        assert_eq!(pace.note(later, 4096 * KIB, TIMEOUT), later + TIMEOUT * 2);
        assert_eq!(pace.note(later + TIMEOUT, 4096 * KIB, TIMEOUT), later + TIMEOUT * 2);
    }

    /// Goal: what was taken before anything waited counts for nothing, and a client has its whole timeout each time that
    /// something begins to wait. Method: two waits, with a rest and a megabyte between them.
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
