//! Connections for queries that share none with all others, and those that wait for one.
//!
//! Before: `suspects` queued a query. After: it is on a connection of this lane, beside as many as it tolerates.
//! Holds: a queue, and the connections: a few that are used, and some more that are silent.
//! Never: has queries wait for a connection that is silent, or behind one that no connection fits: whoever is not answered, or
//! not asked, must not hold the places of others.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use super::{
    connection::{Connection, Lane},
    flights::{Flight, Half},
    streams::Served,
    worker_backend::Backend,
};

/// Parts of a connection.
const WHOLE: usize = 1 << 16;
/// Queries without a fitting connection that are looked at in a turn.
const LOOKED_MAX: usize = 512;
/// Queries that may pass the first of the queue: connections that they keep busy are not ended for it.
const PASSED_MAX: usize = 256;
/// Silent connections of a lane, beside those that are used. Of more the longest silent one is left (`silence`).
pub const SILENT_MAX: usize = 12;

/// A queue and its connections.
pub struct Trials {
    /// What its connections carry.
    pub lane: Lane,
    /// Queries that wait.
    pub queue: RefCell<VecDeque<u16>>,
    /// The connections.
    pub connections: RefCell<Vec<Served>>,
    /// How many of them may be used at a time.
    used_max: usize,
    /// Queries that were given a connection while one that came before them waited for another, since the first of the queue
    /// got one.
    passed: Cell<usize>,
}

impl Trials {
    /// Nothing yet.
    pub fn new(lane: Lane, used_max: usize) -> Self {
        Self {
            lane,
            queue: RefCell::default(),
            connections: RefCell::default(),
            used_max,
            passed: Cell::new(0),
        }
    }

    /// Gives what waits to connections that are there; returns how many more are needed. A query for which no connection fits
    /// does not hold those behind it that fit somewhere.
    pub fn hand_out(&self, backend: &Backend) -> usize {
        let mut waiting = self.queue.take();
        let mut unfit = Unfit::default();
        let mut looked = 0;
        waiting.retain(|slot| {
            if looked == LOOKED_MAX || (looked > 0 && self.passed.get() >= PASSED_MAX) {
                return true;
            }
            // What ended, or moved to another backend, is dropped.
            let Some(needs) = Needs::of_waiting(backend, *slot) else { return false };
            let connection = if unfit.covers(needs) { None } else { self.fitting(needs) };
            let Some(connection) = connection else {
                looked += 1;
                unfit.note(needs);
                return true;
            };
            self.passed.set(if looked == 0 { 0 } else { self.passed.get() + 1 });
            connection.give(backend, *slot);
            connection.wake();
            false
        });
        // What was queued meanwhile comes last.
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

    /// Makes room for another connection, if need be by ending one that nobody uses. `false`: none can be opened now.
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

/// The needs that no connection could meet in this turn. A query with the same needs, or larger ones, is not tried again: a
/// connection that was given a query since then has less room than before.
#[derive(Default)]
struct Unfit {
    /// The largest company among those that need a new connection, and among the others.
    company: [u16; 2],
    /// The part of a connection that all of them need together, in parts of [`WHOLE`].
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

    /// How many connections would have room for them.
    fn groups(&self) -> usize {
        self.parts.div_ceil(WHOLE)
    }
}

/// What a suspect asks of its connection.
#[derive(Clone, Copy)]
struct Needs {
    /// Most queries on it.
    company: u16,
    /// Nobody was asked over it: if it is closed that is for this query alone.
    is_new: bool,
}

impl Needs {
    fn of(flight: &Flight) -> Self {
        Self { company: flight.history.company, is_new: flight.history.lone_ends > 0 }
    }

    /// What the query in `slot` needs, if it still waits at `backend`.
    fn of_waiting(backend: &Backend, slot: u16) -> Option<Self> {
        let flights = backend.pool.flights.borrow();
        flights.get(slot).filter(|flight| flight.waits_at(backend.index, Half::Stream)).map(Self::of)
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

    use super::*;
    use crate::{
        backend::{Broken, Failure, Sink, pool::Pool, tests::backend_at},
        config::{ClientSubnet, Policy, Transport},
        dns::{Asked, Query},
        ledger::WorkerCounters,
    };

    struct Nobody;

    impl Sink for Nobody {
        fn response(&self, _: Asked, _: &[u8]) -> Result<(), Broken> {
            Ok(())
        }

        fn failure(&self, _: Asked, _: &[u8], _: Failure) {}
    }

    const QUERY: [u8; 17] = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

    /// A lane with two connections that can be used, and so many queries that wait, with what they need.
    fn scene(needs: &[Needs], test: impl FnOnce(&Trials, &Rc<Backend>, &[Rc<Connection>])) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let config = backend_at("127.0.0.1:9".parse().unwrap(), Transport::Tcp);
            let pool =
                Pool::start(&[config], Policy::First, 0, ClientSubnet::Pass, &WorkerCounters::default());
            let backend = pool.backend(0).unwrap();
            let query = Query::parse(&QUERY).unwrap();
            let trials = Trials::new(Lane::Trial, 4);
            for needs in needs {
                pool.submit(&QUERY, &query, Rc::new(Nobody)).unwrap();
                let slot = backend.streams.next().unwrap();
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
            test(&trials, &backend, &connections);
        });
    }

    const ALONE: Needs = Needs { company: 1, is_new: true };
    const BESIDE_THREE: Needs = Needs { company: 4, is_new: false };

    /// Goal: a query that needs a new connection, which is not there yet, does not hold up the queries behind it that fit on an
    /// open one. Method: connections that have answered before; one query that must be alone on a new one, six that may be
    /// four on any, and one that has ended meanwhile.
    #[test]
    fn one_that_fits_nowhere_holds_nobody() {
        let needs = [&[ALONE][..], &[BESIDE_THREE; 7]].concat();
        scene(&needs, |trials, backend, connections| {
            connections.iter().for_each(|connection| assert!(connection.count_answer()));
            let ended = trials.queue.borrow()[3];
            backend.pool.give_up(ended, Failure::Silent);
            assert_eq!(trials.hand_out(backend), 1, "the first needs one");
            let outstanding = [0, 1].map(|one: usize| connections[one].ids.outstanding());
            assert_eq!((outstanding, trials.queue.borrow().len()), ([4, 2], 1));
            connections[1].established_at.set(None);
            assert_eq!(trials.hand_out(backend), 0, "it is being opened");
        });
    }

    /// Goal: however many come behind it, the first of the queue is passed by so many and no more. Method: queries for which there is always room again.
    #[test]
    fn the_first_is_passed_by_so_many() {
        let needs = [&[ALONE][..], &[BESIDE_THREE; PASSED_MAX + 16]].concat();
        scene(&needs, |trials, backend, connections| {
            connections.iter().for_each(|connection| assert!(connection.count_answer()));
            let mut before = usize::MAX;
            while trials.queue.borrow().len() < before {
                before = trials.queue.borrow().len();
                assert!(trials.hand_out(backend) > 0);
                let over = |flight: &Flight| connections.iter().any(|one| flight.is_over(&one.ids));
                let given = backend.pool.flights.borrow().find(over);
                given.into_iter().for_each(|slot| backend.pool.give_up(slot, Failure::Silent));
                connections.iter().for_each(|connection| connection.out.borrow_mut().clear());
            }
            assert_eq!(before, 17);
        });
    }

    /// Goal: as many connections are missing as would hold what waits. Method: companies of one, two and four, with no
    /// connection that fits; more than may be looked at.
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
            scene(&needs, |trials, backend, connections| {
                connections.iter().for_each(|connection| connection.end());
                assert_eq!(trials.hand_out(backend), missing);
                assert_eq!(trials.queue.borrow().len(), needs.len(), "and all wait");
            });
        }
    }
}
