//! A client's message, from when it is counted to when its fate is: also where a panic comes between.
//!
//! Before: a message was cut from a stream, or a datagram came. After: the ledger knows one fate of it.
//! Never: guesses: after a panic it counts what the worker's own books lack.

use std::thread::panicking;

use crate::ledger::{ControlCounters, Counter, Snapshot, WorkerCounters};

/// A message that is being looked at. Its fate is counted, in the same turn, by whoever decides about it.
pub(super) struct FateGuard<'a>(&'a WorkerCounters);

impl<'a> FateGuard<'a> {
    /// Counts it.
    pub(super) fn of(counters: &'a WorkerCounters) -> Self {
        counters.add(Counter::Received, 1);
        Self(counters)
    }
}

/// However its turn ends.
impl Drop for FateGuard<'_> {
    fn drop(&mut self) {
        if panicking() {
            let own = std::slice::from_ref(self.0);
            let books = Snapshot::collect(Vec::new(), own, ControlCounters::default());
            // Every other message of this worker has its fate: it has one thread.
            self.0.add(Counter::DroppedPanic, u64::try_from(books.difference().queries).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Goal: a message has one fate, whether a panic comes before that is counted, afterwards, or not at all.
    /// Method: one of each.
    #[test]
    fn a_panic_is_one_fate() {
        let counters = WorkerCounters::default();
        for (is_counted, panics) in [(true, false), (false, true), (true, true)] {
            let turn = || {
                let _fate = FateGuard::of(&counters);
                counters.add(Counter::Responded, u64::from(is_counted));
                assert!(!panics, "a panic that the test makes");
            };
            assert_eq!(catch_unwind(AssertUnwindSafe(turn)).is_err(), panics);
        }
        let fates = [Counter::Received, Counter::Responded, Counter::DroppedPanic];
        assert_eq!(fates.map(|counter| counters.get(counter)), [3, 2, 1]);
    }
}
