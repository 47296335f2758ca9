//! How many answers of backends have come to this worker lately, and how long their queries had waited.
//!
//! Before: a batch of datagrams, or a read from a connection, holds answers. After: a worker that is about to wait takes the
//! sums, and knows what is about to come.
//! Holds: two sums and the time of the batch, for the thread that asks.
//! Never: allocates, or looks at a clock more often than once a batch. A query that has no answer is in no sum.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

use crate::ledger::turn_time;

/// The last part of a query's wait, in which its answer is imminent. 10 ms: twenty of a worker's longest pauses.
const IMMINENT: Duration = Duration::from_millis(10);

/// Answers since the sums were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// How many came.
    pub answers: u64,
    /// How long all of them together were imminent. Divided by the time in which they came, it is how many were imminent at
    /// any moment (Little's law).
    pub imminent: Duration,
}

thread_local! {
    static BATCH: Cell<Option<Instant>> = const { Cell::new(None) };
    static ARRIVALS: Cell<Arrivals> = const { Cell::new(Arrivals { answers: 0, imminent: Duration::ZERO }) };
}

/// A batch has come now.
pub fn begin_batch(now: Instant) {
    BATCH.set(Some(now));
    turn_time::begin(now);
}

/// The batch holds the answer to a query that its backend has had since `given_at`; returns how long that is.
pub fn note(given_at: Instant) -> Duration {
    let Some(now) = BATCH.get() else { return Duration::ZERO };
    let took = now.saturating_duration_since(given_at);
    let Arrivals { answers, imminent } = ARRIVALS.get();
    let imminent = imminent.saturating_add(took.min(IMMINENT));
    ARRIVALS.set(Arrivals { answers: answers + 1, imminent });
    took
}

/// The sums, which begin anew.
pub fn take() -> Arrivals {
    ARRIVALS.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each answer counts once, a slow one by the last part of its wait, and a batch without a time not at all.
    /// Method: answers after no time, 1 ms and a second.
    #[test]
    fn sums_are_taken_once() {
        let start = Instant::now();
        note(start);
        assert_eq!(take(), Arrivals::default());
        begin_batch(start + Duration::from_secs(1));
        for took in [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(1)] {
            note(start + Duration::from_secs(1) - took);
        }
        assert_eq!(take(), Arrivals { answers: 3, imminent: Duration::from_millis(11) });
        assert_eq!(take(), Arrivals::default());
    }
}
