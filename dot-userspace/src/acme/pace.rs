//! When the next attempt begins. Pure.
//!
//! Before: a certificate and its dates, or a failure. After: `client` waits until then.
//! Never: asks an authority again within [`RETRY_MIN`] of a refusal, or sooner than it said.
//!
//! Source: RFC 9773 §4.2 (a time in the suggested window, by chance), RFC 8555 §6.6 (Retry-After).

use std::time::{Duration, SystemTime};

/// After the first failure. Let's Encrypt takes five failed proofs of a name in an hour: with doubling there are four.
pub(super) const RETRY_MIN: Duration = Duration::from_secs(5 * 60);
/// After an attempt in which the authority was not reached, which no limit of it counts: the network of a machine that starts may be
/// late.
const UNREACHED_MIN: Duration = Duration::from_secs(10);
/// After many.
const RETRY_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest wait that an authority can ask for, and the longest of all after a failure.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The wait after an order during which the process ended.
const UNFINISHED_MIN: Duration = Duration::from_secs(60);
/// The clock may be set meanwhile: the time is looked at this often.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// A certificate is renewed no sooner than this after it was issued, or in half of its life if that is shorter.
const REST: Duration = Duration::from_secs(3600);

/// The window for a renewal that an authority suggests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub start: SystemTime,
    pub end: SystemTime,
}

/// The validity of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub from: SystemTime,
    pub until: SystemTime,
}

/// When a certificate is renewed: in the authority's window if it has one, otherwise when two thirds of its life are over. `chance`: a
/// number below 1 that stays the same for this certificate.
pub(super) fn renewal(life: Life, window: Option<Window>, chance: f64) -> SystemTime {
    let length = life.until.duration_since(life.from).unwrap_or_default();
    let usual = life.from + length.mul_f64(2.0 / 3.0);
    let wanted = match window {
        Some(Window { start, end }) => {
            // A window behind the end of the certificate would leave clients without one.
            let (start, end) = (start.min(life.until), end.min(life.until));
            start + end.duration_since(start).unwrap_or_default().mul_f64(chance)
        }
        // Many servers begin at the same minute: the last part of the two thirds is theirs to choose from.
        None => usual - (length / 50).mul_f64(chance),
    };
    wanted.max(life.from + REST.min(length / 2))
}

/// How long to wait after `failures` in a row. `asked`: what the authority said.
pub(super) fn retry(failures: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let doubled = RETRY_MIN.saturating_mul(1_u32 << failures.saturating_sub(1).min(10)).min(RETRY_MAX);
    let own = doubled + (doubled / 10).mul_f64(chance);
    own.max(asked.unwrap_or_default().min(WAIT_MAX))
}

/// How long to wait after so many attempts in a row in which the authority was not reached.
pub(super) fn unreached(failures: u32, chance: f64) -> Duration {
    let doubled = UNREACHED_MIN.saturating_mul(1_u32 << failures.saturating_sub(1).min(10)).min(RETRY_MIN);
    doubled + (doubled / 10).mul_f64(chance)
}

/// How long to wait after an order during which the process ended, when so many refusals came before it.
pub(super) fn unfinished(refusals: u32) -> Duration {
    UNFINISHED_MIN.saturating_mul(1_u32 << refusals.min(11)).min(RETRY_MAX)
}

/// How long to sleep before a renewal at `at`. `window_until`: when the authority is asked for its window again; a time that is over means
/// that it is not asked now.
pub(super) fn look(at: SystemTime, window_until: SystemTime, now: SystemTime) -> Duration {
    let left = |until: SystemTime| until.duration_since(now).unwrap_or(LOOK_INTERVAL);
    left(at).min(left(window_until)).min(LOOK_INTERVAL)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    /// Goal: a renewal comes at two thirds of a certificate's life, in the authority's window if there is one, and never after its end.
    /// Method: lives of 90 days and of 6; windows before, in and behind the life. Covers: C-750
    #[test]
    fn a_renewal_comes_in_time() {
        let (from, until) = (UNIX_EPOCH, UNIX_EPOCH + DAY * 90);
        let life = Life { from, until };
        for chance in [0.0, 0.5, 0.999] {
            let at = renewal(life, None, chance);
            assert!(at <= from + DAY * 60 && at >= from + DAY * 58, "{at:?}");
            let window = Window { start: from + DAY * 20, end: from + DAY * 21 };
            let at = renewal(life, Some(window), chance);
            assert!(at >= window.start && at <= window.end, "{at:?}");
            let late = Window { start: from + DAY * 100, end: from + DAY * 200 };
            assert!(renewal(life, Some(late), chance) <= until);
            let past = Window { start: from, end: from };
            assert_eq!(renewal(life, Some(past), chance), from + REST, "no certificate is renewed at once");
        }
        let short = Life { from, until: from + Duration::from_secs(60) };
        let at = renewal(short, None, 0.0).duration_since(from).unwrap();
        assert!((30..=40).contains(&at.as_secs()), "{at:?}");
    }

    /// Goal: failures wait longer and longer, never less than five minutes, and as long as the authority says within a week; four
    /// attempts fit an hour. Method: a row of failures. Covers: C-751, A-742
    #[test]
    fn failures_wait() {
        let mut before = Duration::ZERO;
        for failures in 1..40 {
            let wait = retry(failures, None, 0.0);
            assert!(wait >= before && wait >= RETRY_MIN && wait <= RETRY_MAX, "{failures}: {wait:?}");
            assert!(retry(failures, None, 0.999) < wait + wait / 10 + Duration::from_secs(1));
            before = wait;
        }
        let hour: Duration = (1..4).map(|failures| retry(failures, None, 0.0)).sum();
        assert!(hour <= DAY / 24 && hour + retry(4, None, 0.0) > DAY / 24, "{hour:?}");
        assert_eq!(retry(1, Some(DAY), 0.0), DAY);
        assert_eq!(retry(1, Some(DAY * 900), 0.0), DAY * 7);
        assert_eq!(retry(1, Some(Duration::ZERO), 0.0), RETRY_MIN);
        let waits = [1, 2, 3, 6, 7, 40].map(|failures| unreached(failures, 0.0).as_secs());
        assert_eq!(
            waits,
            [10, 20, 40, 300, 300, 300],
            "an authority that was not reached is asked soon again"
        );
    }
    /// Goal: the process sleeps for a minute, or until something is due; not for a second each time while the authority is not asked for
    /// its window, as after a failure. Method: times before and after now.
    #[test]
    fn it_sleeps_while_nothing_is_due() {
        let now = UNIX_EPOCH + DAY * 20_000;
        let soon = now + Duration::from_secs(9);
        assert_eq!(look(now + DAY, UNIX_EPOCH, now), LOOK_INTERVAL);
        assert_eq!(look(now + DAY, now, now), Duration::ZERO);
        assert_eq!(look(now + DAY, soon, now), Duration::from_secs(9));
        assert_eq!(look(soon, now + DAY, now), Duration::from_secs(9));
    }
}
