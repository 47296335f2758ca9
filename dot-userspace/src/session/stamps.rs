//! When queries were read whose responses wait to be written: each is measured when its response goes to the kernel.
//!
//! Before: [`super::Inbox`] has a response. After: the worker's histograms have the time of the query, and of the
//! write.
//! Holds: one time for all waiting responses whose queries were read in one turn, at most [`STAMPS_MAX`]; nothing while
//! idle.
//! Never: reads the clock more often than once a write.

use std::{
    cell::{Cell, RefCell},
    time::Instant,
};

use crate::{
    ledger::{Disposal, QueryTransport, Stage, Stages, turn_time},
    moment::Moment,
};

/// Turns whose responses one write measures. Further ones, for a client that does not read, are not measured.
const STAMPS_MAX: usize = 512;
/// Lists kept for the next sessions that write.
const POOL_MAX: usize = 64;

/// When queries were read, how they were answered, and their number.
type Stamp = (Moment, Disposal, u64);

/// The times of one session.
#[derive(Default)]
pub(super) struct Stamps {
    /// The first one: most writes need no other.
    first: Cell<Option<Stamp>>,
    /// The others, in a list of the pool.
    waiting: RefCell<Vec<Stamp>>,
    /// When the first response of the next write was ready.
    ready_at: Cell<Option<Moment>>,
    /// The same for a write that the client has not taken.
    unwritten_since: Cell<Option<Moment>>,
}

/// Lists that no session uses now.
#[derive(Default)]
pub(super) struct StampPool(RefCell<Vec<Vec<Stamp>>>);

impl Stamps {
    /// A response waits, for a query that was read at `since`. `None`: it is not measured.
    pub(super) fn note(&self, since: Option<Moment>, disposal: Disposal, pool: &StampPool) {
        if self.ready_at.get().is_none() {
            self.ready_at.set(Some(turn_time::moment()));
        }
        let Some(since) = since else { return };
        match self.first.get() {
            None => return self.first.set(Some((since, disposal, 1))),
            Some((first, as_well, times)) if (first, as_well) == (since, disposal) => {
                return self.first.set(Some((first, as_well, times + 1)));
            }
            Some(_) => {}
        }
        let mut waiting = self.waiting.borrow_mut();
        if let Some((last, as_well, times)) = waiting.last_mut()
            && (*last, *as_well) == (since, disposal)
        {
            *times += 1;
            return;
        }
        if waiting.capacity() == 0 {
            *waiting = pool.0.borrow_mut().pop().unwrap_or_default();
        }
        if waiting.len() + 1 < STAMPS_MAX {
            waiting.push((since, disposal, 1));
        }
    }

    /// All waiting responses were sealed and given to the kernel; `is_whole`: it took all octets.
    pub(super) fn sent(&self, is_whole: bool, is_encrypted: bool, stages: &Stages, pool: &StampPool) {
        let now = Moment::of(Instant::now());
        let record = |(since, disposal, times): Stamp| {
            let stage = disposal.of(if is_encrypted { QueryTransport::Dot } else { QueryTransport::Tcp });
            stages.record_times(stage, now.nanoseconds_since(since), times);
        };
        if let Some(first) = self.first.take() {
            record(first);
            let mut waiting = self.waiting.take();
            waiting.drain(..).for_each(record);
            pool.give(waiting);
        }
        let ready_at = self.ready_at.take();
        match ready_at.filter(|_| is_whole) {
            Some(since) => stages.record_times(Stage::Write, now.nanoseconds_since(since), 1),
            None => self.unwritten_since.set(self.unwritten_since.get().or(ready_at)),
        }
    }

    /// The kernel has all octets.
    pub(super) fn flushed(&self, stages: &Stages) {
        if let Some(since) = self.unwritten_since.take() {
            stages.record(Stage::Write, Moment::of(Instant::now()).since(since));
        }
    }

    /// The session is over: waiting responses are not measured.
    pub(super) fn forget(&self, pool: &StampPool) {
        self.first.set(None);
        pool.give(self.waiting.take());
    }
}

impl StampPool {
    fn give(&self, mut list: Vec<Stamp>) {
        if list.capacity() == 0 {
            return;
        }
        let mut pool = self.0.borrow_mut();
        if pool.len() < POOL_MAX {
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

    /// Goal: each response is measured once; for a client that does not read, the write is measured to its end, and the
    /// stored times are bounded. Method: more turns than are kept, two responses each; a write that is not whole, then
    /// its end; an idle session.
    #[test]
    fn each_response_is_measured_once() {
        let (counters, pool, stamps) = (WorkerCounters::default(), StampPool::default(), Stamps::default());
        let stages = counters.stages();
        let count = |stage| {
            let mut sum = crate::ledger::Durations::default();
            stages.of(stage).unwrap().add_to(&mut sum);
            sum.count()
        };
        let start = Instant::now();
        let at = |number: usize| Some(Moment::of(start + Duration::from_nanos(number as u64)));
        let since = at(0);
        (0..2 * STAMPS_MAX).for_each(|number| stamps.note(at(number / 2 * 2), Disposal::Forwarded, &pool));
        (2 * STAMPS_MAX..4 * STAMPS_MAX)
            .for_each(|number| stamps.note(at(number), Disposal::Forwarded, &pool));
        stamps.sent(false, true, stages, &pool);
        let those_of_one_turn = 2 * STAMPS_MAX as u64;
        assert_eq!((count(Stage::DotForwarded), count(Stage::Write)), (those_of_one_turn, 0));
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
