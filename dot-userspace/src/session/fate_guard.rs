//! Sees to it that each client message has one fate in the ledger, also when a panic interrupts it.
//!
//! Before: a message was cut from a stream, or a datagram came. After: the ledger has exactly one fate for it, and its span, if it
//! is traced, is no other message's.
//! Never: guesses: after a panic it counts what the worker's own counters lack.

use std::thread::panicking;

use crate::{
    events::traceparent::query_is_over,
    ledger::{ControlCounters, Counter, Snapshot, WorkerCounters},
};

/// A message that is being judged. The code that decides about it counts its fate, in the same turn.
pub(super) struct FateGuard<'a>(&'a WorkerCounters);

impl<'a> FateGuard<'a> {
    /// Counts the message as received.
    pub(super) fn of(counters: &'a WorkerCounters) -> Self {
        counters.add(Counter::Received, 1);
        Self(counters)
    }
}

/// Runs also after a panic.
impl Drop for FateGuard<'_> {
    fn drop(&mut self) {
        query_is_over();
        if panicking() {
            let own = std::slice::from_ref(self.0);
            let books = Snapshot::collect(Vec::new(), own, ControlCounters::default());
            // Every other message of this worker has its fate already, because the worker has one thread.
            self.0.add(Counter::DroppedPanic, u64::try_from(books.difference().queries).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use tokio::sync::mpsc;

    use super::*;
    use crate::events::{Subject, Trace, Tracing, What, traceparent::option};

    /// Goal: a message has one fate, whether a panic comes before its fate is counted, after that, or not at all.
    /// Method: one message of each kind.
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

    /// Goal: the span of a traced query is not told with the next query, in whatever way the turn ends. Method: a traced query whose
    /// turn returns early, and one whose turn panics. Covers: C-703
    #[test]
    fn a_span_ends_with_its_message() {
        let (counters, tracing) = (WorkerCounters::default(), Tracing::default());
        let (events, _receiver) = mpsc::channel(8);
        let subject = Subject::Clients("192.0.2.0/24".parse().unwrap());
        let (sample, option_code, lost) = (1, Some(65_500), std::sync::Arc::default());
        let trace =
            Trace { number: 1, subject, sample, with_names: false, option: option_code, events, lost };
        tracing.begin(0, trace);
        for panics in [false, true] {
            let turn = || {
                let _fate = FateGuard::of(&counters);
                let query = |_| What::Query { id: 7, octets: 12, qtype: None, name: None, ids: None };
                tracing.tell("192.0.2.7:9".parse().unwrap(), None, query);
                assert!(option().is_some());
                counters.add(Counter::Responded, 1);
                assert!(!panics, "a panic that the test makes");
            };
            assert_eq!(catch_unwind(AssertUnwindSafe(turn)).is_err(), panics);
            assert_eq!(option(), None);
        }
        tracing.end(1);
    }
}
