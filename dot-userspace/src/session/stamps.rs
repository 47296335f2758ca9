//! When the queries were read whose responses wait to be written: each is measured as its response goes to the kernel.
//!
//! Before: [`super::Inbox`] has a response. After: the worker's histograms have the whole query, and the write.
//! Holds: a time for each response that waits, [`STAMPS_MAX`] of them at most; nothing while idle.
//! Never: reads the clock more often than once a write.

use std::{
    cell::{Cell, RefCell},
    time::Instant,
};

use crate::ledger::{Disposal, Stage, Stages, turn_time};

/// Responses of one write that are measured; what is beyond, in the inbox of a client that does not read, is not.
const STAMPS_MAX: usize = 512;
/// Lists kept for the next session that writes.
const POOL_MAX: usize = 64;

/// When a query was read, and how it had its response.
type Stamp = (Instant, Disposal);

/// The times of one session.
#[derive(Default)]
pub(super) struct Stamps {
    waiting: RefCell<Vec<Stamp>>,
    /// When the first response of the next write was there.
    ready_at: Cell<Option<Instant>>,
    /// The same of the write that the client has not taken.
    unwritten_since: Cell<Option<Instant>>,
}

/// Lists that no session needs at the moment.
#[derive(Default)]
pub(super) struct StampPool(RefCell<Vec<Vec<Stamp>>>);

impl Stamps {
    /// A response waits, to a query that was read at `since`; `None`: nobody measures it.
    pub(super) fn note(&self, since: Option<Instant>, disposal: Disposal, pool: &StampPool) {
        if self.ready_at.get().is_none() {
            self.ready_at.set(Some(turn_time::now().into_std()));
        }
        let Some(since) = since else { return };
        let mut waiting = self.waiting.borrow_mut();
        if waiting.capacity() == 0 {
            *waiting = pool.0.borrow_mut().pop().unwrap_or_default();
        }
        if waiting.len() < STAMPS_MAX {
            waiting.push((since, disposal));
        }
    }

    /// All that waited was sealed, and given to the kernel, which took all of it or not.
    pub(super) fn sent(&self, is_whole: bool, is_encrypted: bool, stages: &Stages, pool: &StampPool) {
        let now = Instant::now();
        let mut waiting = self.waiting.take();
        for (since, disposal) in waiting.drain(..) {
            let stage = if is_encrypted { disposal.of_dot() } else { disposal.of_tcp() };
            stages.record(stage, now.saturating_duration_since(since));
        }
        pool.give(waiting);
        let ready_at = self.ready_at.take();
        match ready_at.filter(|_| is_whole) {
            Some(since) => stages.record(Stage::Write, now.saturating_duration_since(since)),
            None => self.unwritten_since.set(self.unwritten_since.get().or(ready_at)),
        }
    }

    /// The kernel has everything.
    pub(super) fn flushed(&self, stages: &Stages) {
        if let Some(since) = self.unwritten_since.take() {
            stages.record(Stage::Write, since.elapsed());
        }
    }

    /// The session is over: what waited is not measured.
    pub(super) fn forget(&self, pool: &StampPool) {
        pool.give(self.waiting.take());
    }
}

impl StampPool {
    fn give(&self, mut list: Vec<Stamp>) {
        let mut pool = self.0.borrow_mut();
        if list.capacity() > 0 && pool.len() < POOL_MAX {
            list.clear();
            pool.push(list);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ledger::WorkerCounters;

    /// Goal: each response is measured once, a client that does not read has its write measured to its end, and what waits for
    /// such a client is bounded. Method: more responses than are kept; a write that is not whole, then its end; an idle
    /// session.
    #[test]
    fn each_response_is_measured_once() {
        let (counters, pool, stamps) = (WorkerCounters::default(), StampPool::default(), Stamps::default());
        let stages = counters.stages();
        let count = |stage| {
            let mut sum = crate::ledger::Durations::default();
            stages.of(stage).unwrap().add_to(&mut sum);
            sum.count()
        };
        let since = Instant::now().checked_sub(Duration::from_millis(5));
        (0..2 * STAMPS_MAX).for_each(|_| stamps.note(since, Disposal::Forwarded, &pool));
        stamps.sent(false, true, stages, &pool);
        assert_eq!((count(Stage::DotForwarded), count(Stage::Write)), (STAMPS_MAX as u64, 0));
        stamps.flushed(stages);
        stamps.flushed(stages);
        assert_eq!(count(Stage::Write), 1);
        assert_eq!(
            (stamps.waiting.borrow().capacity(), pool.0.borrow().len()),
            (0, 1),
            "an idle session holds nothing"
        );
        stamps.note(since, Disposal::Cached, &pool);
        stamps.note(None, Disposal::Forwarded, &pool);
        stamps.sent(true, false, stages, &pool);
        assert_eq!((count(Stage::TcpCached), count(Stage::TcpForwarded), count(Stage::Write)), (1, 0, 2));
        stamps.note(since, Disposal::Cached, &pool);
        stamps.forget(&pool);
        assert_eq!((count(Stage::TcpCached), pool.0.borrow().len()), (1, 1));
    }
}
