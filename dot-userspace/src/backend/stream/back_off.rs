//! How often in a row a backend could not be reached, when it is tried again, and whether queries wait for that.
//!
//! Before: a connection could not be opened, or closed without an answer. After: dotd tries less and less often;
//! the first answer over any connection ends that.
//! Why queries wait: a server restarts within the time that a query has, and there may be no other backend.
//! Holds: the failures in a row, since when, and until when no connection is opened.
//! Never: counts simultaneous failed attempts as several failures, or keeps a query waiting for a backend that
//! was down before.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// The first failures in a row, during which queries wait if there is no other backend. After them queries wait
/// only until a query's timeout has passed since the first failure, and then fail at once.
const PATIENT_FAILURES: u32 = 3;
/// Back-off after the first failure; it doubles with each…
const BACK_OFF_MIN: Duration = Duration::from_millis(25);
/// …up to this: dotd finds a backend that is back within a second.
const BACK_OFF_MAX: Duration = Duration::from_millis(800);

/// The failures of one backend, as one worker sees them.
#[derive(Default)]
pub struct BackOff {
    failures: Cell<u32>,
    /// The time of the first failure. `None`: there was no failure, or the backend had never answered, so this is
    /// no restart.
    since: Cell<Option<Instant>>,
    not_before: Cell<Option<Instant>>,
}

impl BackOff {
    /// When the next connection may be opened. `None`: now.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.not_before.get().filter(|until| now < *until)
    }

    /// Counts one more failure; `was_there`: the backend had answered before. Returns until when no connection is
    /// opened.
    pub fn count(&self, was_there: bool, chance: u16, now: Instant) -> Instant {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        if failures == 1 {
            self.since.set(Some(now).filter(|_| was_there));
        }
        let until = now + back_off(failures, chance);
        self.not_before.set(Some(until));
        until
    }

    /// Counts a connection that could not be opened. Attempts at the same time count as one failure.
    pub fn count_unopened(&self, was_there: bool, chance: u16, now: Instant) -> Instant {
        self.until(now).unwrap_or_else(|| self.count(was_there, chance, now))
    }

    /// A connection has given its first answer: the backend is there.
    pub fn forget(&self) {
        self.failures.set(0);
        self.since.set(None);
        self.not_before.set(None);
    }

    /// Whether the backend could not be reached and has answered nothing since. A silent connection is no
    /// evidence either way.
    pub fn is_any(&self) -> bool {
        self.failures.get() > 0
    }

    /// Whether queries, which have `timeout` each, wait for the backend to be reached.
    pub fn is_worth_waiting(&self, timeout: Duration, now: Instant) -> bool {
        let is_restarting =
            self.since.get().is_some_and(|since| now.saturating_duration_since(since) < timeout);
        self.failures.get() <= PATIENT_FAILURES || is_restarting
    }
}

/// How long no connection is opened after this many failures in a row. Up to a quarter of the time is random, so
/// that workers do not all come back at once.
fn back_off(failures: u32, chance: u16) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = BACK_OFF_MIN.saturating_mul(1 << doublings).min(BACK_OFF_MAX);
    whole - whole.mul_f64(f64::from(chance) / f64::from(u16::MAX) / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: attempts thin out, never beyond a second, and spread. Method: every failure count, both ends of
    /// chance.
    #[test]
    fn back_off_doubles_is_bounded_and_spreads() {
        for failures in 1..100 {
            let (longest, shortest) = (back_off(failures, 0), back_off(failures, u16::MAX));
            let expected = BACK_OFF_MIN.saturating_mul(1 << (failures - 1).min(16)).min(BACK_OFF_MAX);
            assert_eq!(longest, expected);
            assert_eq!(shortest, expected * 3 / 4);
            assert!(longest < Duration::from_secs(1));
        }
    }

    /// Goal: attempts that fail together are one failure. Method: five at the same time.
    #[test]
    fn attempts_at_once_are_one_failure() {
        let (failures, now) = (BackOff::default(), Instant::now());
        let until: Vec<Instant> = (0..5).map(|_| failures.count_unopened(true, 0, now)).collect();
        assert_eq!(until, [now + BACK_OFF_MIN; 5]);
        assert_eq!(
            failures.count_unopened(true, 0, now + BACK_OFF_MIN),
            now + 3 * BACK_OFF_MIN,
            "the second"
        );
    }

    /// Goal: queries wait for a backend that had answered before until a query's timeout has passed, however
    /// often it cannot be reached; a backend that had never answered gets three failures. Method: failures in a
    /// row, with a moved clock.
    #[test]
    fn a_restart_has_a_querys_time() {
        let (timeout, began) = (Duration::from_secs(2), Instant::now());
        for was_there in [true, false] {
            let failures = BackOff::default();
            let mut now = began;
            for _ in 0..PATIENT_FAILURES {
                now = failures.count(was_there, 0, now);
            }
            assert!(failures.is_worth_waiting(timeout, now + timeout), "the first, however long they take");
            failures.count(false, 0, now);
            assert_eq!(failures.is_worth_waiting(timeout, now), was_there);
            assert!(!failures.is_worth_waiting(timeout, began + timeout));
            failures.forget();
            assert!(failures.is_worth_waiting(timeout, began + timeout) && !failures.is_any());
        }
    }
}
