//! Connections for queries that share none with all others, and those that wait for one.
//!
//! Before: `suspects` queued a query. After: it is on a connection of this lane, beside as many as it tolerates.
//! Holds: a queue, and the connections: a few that are used, and some more that are silent.
//! Never: has queries wait for a connection that is silent: whoever is not answered there must not hold the places of others.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use super::{
    connection::{Connection, Lane},
    flights::{Flight, Half},
    streams::Served,
    upstream::Upstream,
};

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
}

impl Trials {
    /// Nothing yet.
    pub fn new(lane: Lane, used_max: usize) -> Self {
        Self { lane, queue: RefCell::default(), connections: RefCell::default(), used_max }
    }

    /// Gives what waits to connections that are there; returns how many more are needed.
    pub fn hand_out(&self, upstream: &Upstream) -> usize {
        while let Some((slot, needs)) = self.front(upstream) {
            let Some(connection) = self.fitting(needs) else {
                let groups = self.queue.borrow().len().div_ceil(usize::from(needs.company.max(1)));
                let connections = self.connections.borrow();
                let opening = connections.iter().filter(|(one, _)| !one.is_established()).count();
                return groups.min(self.used_max).saturating_sub(opening);
            };
            self.queue.borrow_mut().pop_front();
            connection.give(upstream, slot);
            connection.wake();
        }
        0
    }

    /// The next that still waits. What ended, or moved to another backend, is dropped.
    fn front(&self, upstream: &Upstream) -> Option<(u16, Needs)> {
        let flights = upstream.fleet.flights.borrow();
        let mut queue = self.queue.borrow_mut();
        while let Some(slot) = queue.front() {
            let waiting = flights.get(*slot).filter(|flight| flight.waits_at(upstream.index, Half::Stream));
            if let Some(flight) = waiting {
                return Some((*slot, Needs::of(flight)));
            }
            queue.pop_front();
        }
        None
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
        Self { company: flight.record.company, is_new: flight.record.lone_ends > 0 }
    }

    fn fit(self, connection: &Connection) -> bool {
        let is_new = connection.answered() == 0 && connection.is_quiet();
        connection.is_established()
            && connection.takes_company(self.company)
            && !connection.is_silent()
            && (is_new || !self.is_new)
    }
}
