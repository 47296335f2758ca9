//! Lets backends' answers accumulate before a worker looks at them, as a network card moderates its interrupts.
//!
//! Before: a worker has nothing left to do and is about to wait in epoll. After: it waits, up to 500 µs later.
//! Holds: when the worker last began to wait, and how many answers came recently, after how long.
//! Never: pauses for queries whose answers are not imminent, for less than one answer, or while a worker has other
//! work than answers of backends.
//!
//! A backend sends each answer by itself, and a faster worker wakes for each: a wake-up, an epoll, a receive and a
//! send, which are most of the cost of an answer. A pause bounds how often that happens, and all answers that come
//! meanwhile share the calls. A pause is short compared with the wait of its queries, because it grows with the number
//! of imminent answers, measured by how long answers took lately; a query that hangs counts for nothing. A worker at
//! its limit never pauses, because it always has work.

use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

use crate::{
    backend::arrivals::{self, Arrivals},
    ledger::{Counter, WorkerCounters},
};

/// Time between two waits, for each imminent answer: half of the time that a fast authoritative server takes for an
/// answer.
const GAP_AN_ANSWER: Duration = Duration::from_nanos(500);
/// A shorter pause costs more than it saves.
const GAP_MIN: Duration = Duration::from_micros(10);
/// The longest time that an answer waits for others.
const GAP_MAX: Duration = Duration::from_micros(500);
/// With fewer queries at backends there is no pause: it would be shorter than [`GAP_MIN`].
const OUTSTANDING_MIN: u64 = 20;
/// Window in which answers are counted: four times the longest pause.
const WINDOW: Duration = Duration::from_millis(2);
/// Fewest answers for each piece of other work.
const ANSWERS_FOR_OTHER_WORK: u64 = 16;
/// Other work of a worker: a pause would delay it.
const OTHER_WORK: [Counter; 4] =
    [Counter::Responded, Counter::Cached, Counter::CacheStale, Counter::Accepted];

thread_local! {
    static WAITED_FROM: Cell<Option<Instant>> = const { Cell::new(None) };
    static LATELY: Cell<Option<Lately>> = const { Cell::new(None) };
}

/// The current window, and the result of the last one.
#[derive(Clone, Copy)]
struct Lately {
    since: Instant,
    /// Other work when the window began.
    other_work: u64,
    seen: Seen,
}

/// The result of one window.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    elapsed: Duration,
    arrivals: Arrivals,
    other_work: u64,
}

/// Called by a worker that is about to wait: pauses if it waited a moment ago and many answers are imminent.
pub(super) fn pause(counters: &WorkerCounters) {
    let outstanding = counters.get(Counter::BackendOutstanding);
    if outstanding < OUTSTANDING_MIN {
        return;
    }
    let now = Instant::now();
    let Some(gap) = gap(outstanding, look(counters, now)) else { return };
    let left = left(gap, WAITED_FROM.get(), now);
    if left.is_zero() {
        WAITED_FROM.set(Some(now));
    } else {
        counters.add(Counter::BackendPauses, 1);
        thread::sleep(left);
        WAITED_FROM.set(Some(now + left));
    }
}

/// The result of the last whole window.
fn look(counters: &WorkerCounters, now: Instant) -> Seen {
    let lately = LATELY.get();
    let elapsed = lately.map_or(WINDOW, |lately| now.saturating_duration_since(lately.since));
    if let Some(lately) = lately.filter(|_| elapsed < WINDOW) {
        return lately.seen;
    }
    let other_work = OTHER_WORK.iter().map(|counter| counters.get(*counter)).fold(0, u64::wrapping_add);
    let arrivals = arrivals::take();
    // For answers before the first window the duration is unknown.
    let seen = lately.map_or_else(Seen::default, |lately| Seen {
        elapsed,
        arrivals,
        other_work: other_work.wrapping_sub(lately.other_work),
    });
    LATELY.set(Some(Lately { since: now, other_work, seen }));
    seen
}

/// The least time between two waits with `outstanding` queries at backends and the given answers. `None`: there is no
/// limit.
fn gap(outstanding: u64, seen: Seen) -> Option<Duration> {
    let elapsed = seen.elapsed.as_nanos().max(1);
    let imminent = (u128::from(seen.arrivals.imminent) / elapsed).min(outstanding.into());
    let imminent = u32::try_from(imminent).unwrap_or(u32::MAX);
    let gap = GAP_AN_ANSWER.saturating_mul(imminent).min(GAP_MAX);
    let will_come = u128::from(seen.arrivals.answers) * gap.as_nanos() >= elapsed;
    let is_busy_otherwise = seen.other_work.saturating_mul(ANSWERS_FOR_OTHER_WORK) > seen.arrivals.answers;
    (gap >= GAP_MIN && will_come && !is_busy_otherwise).then_some(gap)
}

/// The rest of `gap` since the last wait.
fn left(gap: Duration, waited_from: Option<Instant>, now: Instant) -> Duration {
    waited_from.map_or(Duration::ZERO, |last| gap.saturating_sub(now.saturating_duration_since(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One second with this many answers, each imminent for this long.
    fn seen(answers: u64, imminent_us: u64) -> Seen {
        let imminent = answers * imminent_us * 1000;
        Seen { elapsed: Duration::from_secs(1), arrivals: Arrivals { answers, imminent }, other_work: 0 }
    }

    /// Goal: few queries are never delayed, many in proportion to their number, and none by more than the longest
    /// pause. Method: backends with a given number of queries, whose answers come within a few milliseconds.
    #[test]
    fn the_gap_grows_with_what_is_about_to_come_up_to_its_longest() {
        let of = |outstanding| gap(outstanding, seen(200_000, outstanding.min(1000) * 5));
        assert_eq!([0, 1, 19].map(of), [None; 3]);
        assert_eq!(of(20), Some(GAP_MIN));
        assert_eq!(of(100), Some(Duration::from_micros(50)));
        assert_eq!([1000, 1001, 32_768, u64::MAX].map(of), [Some(GAP_MAX); 4]);
    }

    /// Goal: queries that hang delay no other, whatever their number, and answers beside them are delayed only for
    /// their own number. Method: no answer; one client's 6,000 a second; 100,000 a second that took 0.1 ms; 400,000 of
    /// 0.1 ms, which are forty at a time.
    #[test]
    fn queries_that_hang_count_for_nothing() {
        for hanging in [1000, 32_768] {
            assert_eq!(gap(hanging, Seen::default()), None);
            assert_eq!(gap(hanging, seen(6_000, 160)), None);
            assert_eq!(gap(hanging, seen(100_000, 100)), None);
            assert_eq!(gap(hanging, seen(400_000, 100)), Some(Duration::from_micros(20)));
        }
    }

    /// Goal: a worker pauses for a slow backend only if at least one answer is expected within the pause. Method:
    /// answers of 100 ms, imminent for the last ten: 10,000 a second with a thousand outstanding; 100,000 a second.
    ///
    #[test]
    fn slow_answers_are_no_reason_for_a_pause_in_which_none_comes() {
        assert_eq!(gap(1000, seen(10_000, 10_000)), None);
        assert_eq!(gap(10_000, seen(100_000, 10_000)), Some(GAP_MAX));
    }

    /// Goal: with other work there is no pause. Method: dotd's own answers, one in sixteen and one in fifteen.
    ///
    #[test]
    fn other_work_ends_pauses() {
        let with = |other_work| gap(1000, Seen { other_work, ..seen(160_000, 5_000) });
        assert!(with(10_000).is_some());
        assert_eq!((with(10_001), with(160_000)), (None, None));
    }

    /// Goal: a window is evaluated when it is whole, and the time before the first window does not count. Method: times
    /// within and after a window.
    #[test]
    fn a_window_counts_when_it_is_whole() {
        let (counters, start) = (WorkerCounters::default(), Instant::now());
        let come = || (0..100).for_each(|_| arrivals::note(1_000_000));
        come();
        counters.add(Counter::Cached, 5);
        assert_eq!(look(&counters, start).arrivals, Arrivals::default());
        come();
        counters.add(Counter::Cached, 7);
        assert_eq!(look(&counters, start + WINDOW / 2).arrivals, Arrivals::default());
        for moment in [start + WINDOW, start + WINDOW * 3 / 2] {
            let seen = look(&counters, moment);
            assert_eq!((seen.elapsed, seen.arrivals.answers, seen.other_work), (WINDOW, 100, 7));
            assert_eq!(seen.arrivals.imminent, 100_000_000);
        }
    }

    /// Goal: a worker that has not waited lately does not pause. Method: before, within, at and after the gap; a clock
    /// that stood still.
    #[test]
    fn only_the_rest_of_the_gap_is_waited() {
        let (gap, last) = (Duration::from_micros(100), Instant::now());
        let after = |micros| left(gap, Some(last), last + Duration::from_micros(micros)).as_micros();
        assert_eq!([after(0), after(30), after(100), after(5000)], [100, 70, 0, 0]);
        assert_eq!(left(gap, None, last), Duration::ZERO);
    }
}
