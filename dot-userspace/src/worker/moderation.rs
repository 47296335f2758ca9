//! Lets answers of backends gather before a worker looks at them, as a network card moderates its interrupts.
//!
//! Before: a worker has nothing left to do and is about to wait in epoll. After: it waits, up to 500 µs later.
//! Holds: when the worker last began to wait.
//! Never: pauses a worker that has something to do, or one that few answers are to come to.
//!
//! A backend sends each answer by itself, and a worker that is faster wakes for each: a wake-up, an epoll, a receive
//! and a send, which is most of what an answer costs. A pause bounds how often that happens, and what came meanwhile
//! shares the calls. It is short beside what its queries wait anyway, because it grows with their number, and a
//! worker at its limit never pauses: there is always something to do.

use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

use crate::ledger::{Counter, WorkerCounters};

/// From one wait to the next, for each query at a backend: half of what a fast authority takes for an answer.
const GAP_A_QUERY: Duration = Duration::from_nanos(500);
/// A shorter pause costs more than it saves.
const GAP_MIN: Duration = Duration::from_micros(10);
/// The longest that an answer waits for others.
const GAP_MAX: Duration = Duration::from_micros(500);

thread_local! {
    static WAITED_FROM: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// For a worker that is about to wait: pauses if it waited a moment ago and many answers are to come.
pub(super) fn pause(counters: &WorkerCounters) {
    let Some(gap) = gap(counters.get(Counter::BackendOutstanding)) else { return };
    let now = Instant::now();
    let left = left(gap, WAITED_FROM.get(), now);
    if left.is_zero() {
        WAITED_FROM.set(Some(now));
    } else {
        counters.add(Counter::BackendPauses, 1);
        thread::sleep(left);
        WAITED_FROM.set(Some(now + left));
    }
}

/// Least time between two waits with so many queries at backends; `None`: as often as it likes.
fn gap(outstanding: u64) -> Option<Duration> {
    let outstanding = u32::try_from(outstanding).unwrap_or(u32::MAX);
    let gap = GAP_A_QUERY.saturating_mul(outstanding).min(GAP_MAX);
    (gap >= GAP_MIN).then_some(gap)
}

/// What is left of `gap` since the last wait.
fn left(gap: Duration, waited_from: Option<Instant>, now: Instant) -> Duration {
    waited_from.map_or(Duration::ZERO, |last| gap.saturating_sub(now.saturating_duration_since(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a few queries are never held up, many by as much as they are, and nobody by more than the longest.
    #[test]
    fn the_gap_grows_with_what_is_at_backends_up_to_its_longest() {
        assert_eq!([0, 1, 19].map(gap), [None; 3]);
        assert_eq!(gap(20), Some(GAP_MIN));
        assert_eq!(gap(100), Some(Duration::from_micros(50)));
        assert_eq!([1000, 1001, 32_768, u64::MAX].map(gap), [Some(GAP_MAX); 4]);
    }

    /// Goal: who has not waited lately looks at once. Method: before, within, at and after the gap; a clock that stood.
    #[test]
    fn only_the_rest_of_the_gap_is_waited() {
        let (gap, last) = (Duration::from_micros(100), Instant::now());
        let after = |micros| left(gap, Some(last), last + Duration::from_micros(micros)).as_micros();
        assert_eq!([after(0), after(30), after(100), after(5000)], [100, 70, 0, 0]);
        assert_eq!(left(gap, None, last), Duration::ZERO);
    }
}
