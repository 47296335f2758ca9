//! How many answers of backends have come to this worker lately, and how long their queries had waited.
//!
//! Before: a batch of datagrams, or a read from a connection, holds answers. After: a worker that is about to wait takes the
//! sums, and knows what is about to come.
//! Holds: two sums and the time of the batch, for the calling thread.
//! Never: allocates, or reads a clock more often than once a batch. A query without an answer is in neither sum.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

use crate::ledger::turn_time;

/// The last part of a query's wait: its answer is imminent then. 10 ms, twenty times a worker's longest pause.
const IMMINENT: Duration = Duration::from_millis(10);

/// Answers since the sums were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// The number of answers.
    pub answers: u64,
    /// The time for which all of them were imminent, added up. Divided by the time in which they came, it is the
    /// mean number of imminent answers (Little's law).
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

/// The batch holds the answer to a query that its backend got at `given_at`. Returns how long the backend took.
pub fn note(given_at: Instant) -> Duration {
    let Some(now) = BATCH.get() else { return Duration::ZERO };
    let took = now.saturating_duration_since(given_at);
    let Arrivals { answers, imminent } = ARRIVALS.get();
    let imminent = imminent.saturating_add(took.min(IMMINENT));
    ARRIVALS.set(Arrivals { answers: answers + 1, imminent });
    took
}

/// Returns the sums and sets them to zero.
pub fn take() -> Arrivals {
    ARRIVALS.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each answer counts once, a slow answer only with the last part of its wait, and a batch without a
    /// time counts nothing. Method: answers after no time, after 1 ms and after a second.
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
