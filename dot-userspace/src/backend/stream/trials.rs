//! Connections for queries that must not share a connection with all others, and the queries that wait for one.
//!
//! Before: `suspects` queued a query. After: it is on a connection of this lane, with no more others than its
//! limit allows.
//! Holds: a queue, and the connections: a few that are used, and more that are silent.
//! Never: has queries wait for a silent connection, or behind a query that fits on no connection: an unanswered
//! or unsent query must not hold the places of others.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use super::{
    Served, Streams,
    connection::{Connection, Lane},
};
use crate::backend::flights::{Flight, Half};

/// A connection, in the unit of [`Unfit::parts`].
const WHOLE: usize = 1 << 16;
/// Queries without a fitting connection that are examined in a turn.
const LOOKED_MAX: usize = 512;
/// Queries that may overtake the first of the queue. After that, no busy connection is kept in its place.
const PASSED_MAX: usize = 256;
/// Silent connections of a lane, besides the used ones. If there are more, the one that has been silent longest
/// is abandoned (`silence`).
pub const SILENT_MAX: usize = 12;

/// A queue and its connections.
pub struct Trials {
    /// The kind of queries that its connections carry.
    pub lane: Lane,
    /// Queries that wait.
    pub queue: RefCell<VecDeque<u16>>,
    /// The connections.
    pub connections: RefCell<Vec<Served>>,
    /// How many of them may be used at a time.
    used_max: usize,
    /// Queries that got a connection while an earlier one still waited, since the first of the queue last got
    /// one.
    passed: Cell<usize>,
}

impl Trials {
    /// A lane without queries and connections.
    pub fn new(lane: Lane, used_max: usize) -> Self {
        Self {
            lane,
            queue: RefCell::default(),
            connections: RefCell::default(),
            used_max,
            passed: Cell::new(0),
        }
    }

    /// Gives waiting queries to existing connections. Returns how many more connections are needed. A query that
    /// fits on no connection does not delay those behind it that fit on one.
    pub fn hand_out(&self, streams: &Streams) -> usize {
        let mut waiting = self.queue.take();
        let mut unfit = Unfit::default();
        let mut looked = 0;
        waiting.retain(|slot| {
            if looked == LOOKED_MAX || (looked > 0 && self.passed.get() >= PASSED_MAX) {
                return true;
            }
            // A query that ended, or moved to another backend, is dropped.
            let Some(needs) = Needs::of_waiting(streams, *slot) else { return false };
            let connection = if unfit.covers(needs) { None } else { self.fitting(needs) };
            let Some(connection) = connection else {
                looked += 1;
                unfit.note(needs);
                return true;
            };
            self.passed.set(if looked == 0 { 0 } else { self.passed.get() + 1 });
            connection.give(streams, *slot);
            connection.wake();
            false
        });
        // Queries that were queued meanwhile come last.
        waiting.extend(self.queue.take());
        self.queue.replace(waiting);
        let connections = self.connections.borrow();
        let opening = connections.iter().filter(|(one, _)| !one.is_established()).count();
        unfit.groups().min(self.used_max).saturating_sub(opening)
    }

    fn fitting(&self, needs: Needs) -> Option<Rc<Connection>> {
        let connections = self.connections.borrow();
        let mut fitting = connections.iter().map(|(connection, _)| connection).filter(|one| needs.fit(one));
        fitting.next().map(Rc::clone)
    }

    /// Makes room for another connection, if necessary by ending an unused one. `false`: none can be opened now.
    pub fn may_open(&self) -> bool {
        let connections = self.connections.borrow();
        let used = connections.iter().filter(|(connection, _)| !connection.is_silent()).count();
        if connections.len() >= self.used_max + SILENT_MAX {
            return false;
        }
        let is_opening = connections.iter().any(|(connection, _)| !connection.is_established());
        if used >= self.used_max && !is_opening {
            let mut quiet = connections.iter().filter(|(connection, _)| connection.is_quiet());
            quiet.next().into_iter().for_each(|(connection, _)| connection.end());
        }
        used < self.used_max
    }
}

/// The needs that no connection could meet in this turn. A query with the same or larger needs is not tried
/// again: connections have only lost room since.
#[derive(Default)]
struct Unfit {
    /// The largest company among queries that need a new connection, and among the others.
    company: [u16; 2],
    /// The space that all of them need together, in units of 1/[`WHOLE`] of a connection.
    parts: usize,
}

impl Unfit {
    fn note(&mut self, needs: Needs) {
        let [new, any] = &mut self.company;
        let company = if needs.is_new { new } else { any };
        *company = needs.company.max(*company);
        self.parts = self.parts.saturating_add(WHOLE / usize::from(needs.company.max(1)));
    }

    fn covers(&self, needs: Needs) -> bool {
        let [new, any] = self.company;
        needs.company <= any || (needs.is_new && needs.company <= new)
    }

    /// How many connections would have room for all of them.
    fn groups(&self) -> usize {
        self.parts.div_ceil(WHOLE)
    }
}

/// What a suspect needs of its connection.
#[derive(Clone, Copy)]
struct Needs {
    /// Most queries on it, this one included.
    company: u16,
    /// The connection must be new: if it closes, only this query can be the cause.
    is_new: bool,
}

impl Needs {
    fn of(flight: &Flight) -> Self {
        Self { company: flight.history.company, is_new: flight.history.lone_ends > 0 }
    }

    /// The needs of the query in `slot`, if it still waits at its backend.
    fn of_waiting(streams: &Streams, slot: u16) -> Option<Self> {
        let flights = streams.pool.flights.borrow();
        flights.get(slot).filter(|flight| flight.waits_at(streams.backend.index, Half::Stream)).map(Self::of)
    }

    fn fit(self, connection: &Connection) -> bool {
        let is_new = connection.answered() == 0 && connection.is_quiet();
        connection.is_established()
            && connection.takes_company(self.company)
            && !connection.is_silent()
            && (is_new || !self.is_new)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{task::LocalSet, time::Instant};

    use super::{super::Scratch, *};
    use crate::{
        backend::{
            Failure,
            pool::Pool,
            tests::{Ignores, QUERY, backend_at},
        },
        config::{ClientSubnet, Policy, Transport},
        dns::Query,
        ledger::WorkerCounters,
    };

    /// A lane with two established connections and one waiting query for each of `needs`.
    fn scene(needs: &[Needs], test: impl FnOnce(&Trials, &Streams, &[Rc<Connection>])) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let config = backend_at("127.0.0.1:9".parse().unwrap(), Transport::Tcp);
            let pool = Pool::new(&[config], Policy::First, 0, ClientSubnet::Pass, &WorkerCounters::default());
            let streams = Streams::new(&pool, &pool.backend(0).unwrap(), &Scratch::default());
            let query = Query::parse(&QUERY).unwrap();
            let trials = Trials::new(Lane::Trial, 4);
            for needs in needs {
                pool.submit(&QUERY, &query, Rc::new(Ignores)).unwrap();
                let slot = streams.backend.stream_queue.pop().unwrap();
                let mut flights = pool.flights.borrow_mut();
                let history = &mut flights.get_mut(slot).unwrap().history;
                (history.company, history.lone_ends) = (needs.company, u8::from(needs.is_new));
                trials.queue.borrow_mut().push_back(slot);
            }
            let connections = [0; 2].map(|_| {
                let connection = Rc::new(Connection::of(Lane::Trial));
                connection.established_at.set(Some(Instant::now()));
                let task = tokio::task::spawn_local(tokio::time::sleep(Duration::from_secs(1)));
                trials.connections.borrow_mut().push((Rc::clone(&connection), task.abort_handle()));
                connection
            });
            test(&trials, &streams, &connections);
        });
    }

    const ALONE: Needs = Needs { company: 1, is_new: true };
    const BESIDE_THREE: Needs = Needs { company: 4, is_new: false };

    /// Goal: a query that needs a new connection, which is not open yet, does not delay queries behind it that
    /// fit on an open one. Method: connections that have answered before; one query that must be alone on a new
    /// one, six that may share any with three others, and one that has ended meanwhile.
    #[test]
    fn one_that_fits_nowhere_holds_nobody() {
        let needs = [&[ALONE][..], &[BESIDE_THREE; 7]].concat();
        scene(&needs, |trials, streams, connections| {
            connections.iter().for_each(|connection| assert!(connection.count_answer()));
            let ended = trials.queue.borrow()[3];
            streams.pool.give_up(ended, Failure::Silent);
            assert_eq!(trials.hand_out(streams), 1, "the first needs one");
            let outstanding = [0, 1].map(|one: usize| connections[one].ids.outstanding());
            assert_eq!((outstanding, trials.queue.borrow().len()), ([4, 2], 1));
            connections[1].established_at.set(None);
            assert_eq!(trials.hand_out(streams), 0, "it is being opened");
        });
    }

    /// Goal: the first query of the queue is overtaken by a bounded number of others. Method: queries for which
    /// there is always room again.
    #[test]
    fn the_first_is_passed_by_so_many() {
        let needs = [&[ALONE][..], &[BESIDE_THREE; PASSED_MAX + 16]].concat();
        scene(&needs, |trials, streams, connections| {
            connections.iter().for_each(|connection| assert!(connection.count_answer()));
            let mut before = usize::MAX;
            while trials.queue.borrow().len() < before {
                before = trials.queue.borrow().len();
                assert!(trials.hand_out(streams) > 0);
                let over = |flight: &Flight| connections.iter().any(|one| flight.is_over(&one.ids));
                let given = streams.pool.flights.borrow().find(over);
                given.into_iter().for_each(|slot| streams.pool.give_up(slot, Failure::Silent));
                connections.iter().for_each(|connection| connection.out.borrow_mut().clear());
            }
            assert_eq!(before, 17);
        });
    }

    /// Goal: the number of missing connections is what the waiting queries need. Method: companies of one, two
    /// and four, with no connection that fits; more queries than are examined.
    #[test]
    fn what_waits_needs_so_many_connections() {
        let pair = Needs { company: 2, is_new: false };
        for (needs, missing) in [
            (vec![ALONE; 3], 3),
            (vec![pair; 3], 2),
            (vec![BESIDE_THREE; 4], 1),
            ([vec![ALONE], vec![pair], vec![BESIDE_THREE; 2]].concat(), 2),
            (vec![ALONE; LOOKED_MAX + 9], 4),
        ] {
            scene(&needs, |trials, streams, connections| {
                connections.iter().for_each(|connection| connection.end());
                assert_eq!(trials.hand_out(streams), missing);
                assert_eq!(trials.queue.borrow().len(), needs.len(), "and all wait");
            });
        }
    }
}
