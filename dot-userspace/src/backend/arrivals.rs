//! How many answers of backends have come to this worker lately, and how long their queries had waited.
//!
//! Before: a batch of datagrams, or a read from a connection, holds answers. After: a worker that is about to wait takes the
//! sums, and knows what is about to come.
//! Holds: two sums for the calling thread.
//! Never: allocates, or reads a clock. A query without an answer is in neither sum.

use std::cell::Cell;

/// The last part of a query's wait: its answer is imminent then. 10 ms, twenty times a worker's longest pause.
const IMMINENT_NANOSECONDS: u64 = 10_000_000;

/// Answers since the sums were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// The number of answers.
    pub answers: u64,
    /// Nanoseconds for which all of them were imminent, added up. Divided by the time in which they came, it is the mean
    /// number of imminent answers (Little's law).
    pub imminent: u64,
}

thread_local! {
    static ARRIVALS: Cell<Arrivals> = const { Cell::new(Arrivals { answers: 0, imminent: 0 }) };
}

/// An answer has come for a query that its backend has had for `took` nanoseconds.
pub fn note(took: u64) {
    let Arrivals { answers, imminent } = ARRIVALS.get();
    let imminent = imminent.saturating_add(took.min(IMMINENT_NANOSECONDS));
    ARRIVALS.set(Arrivals { answers: answers + 1, imminent });
}

/// Returns the sums and sets them to zero.
pub fn take() -> Arrivals {
    ARRIVALS.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each answer counts once, and a slow answer only with the last part of its wait. Method: answers after no
    /// time, after 1 ms and after a second.
    #[test]
    fn sums_are_taken_once() {
        assert_eq!(take(), Arrivals::default());
        [0, 1_000_000, 1_000_000_000].into_iter().for_each(note);
        assert_eq!(take(), Arrivals { answers: 3, imminent: 11_000_000 });
        assert_eq!(take(), Arrivals::default());
    }
}
