//! Queries that were unanswered when a connection closed: one of them may be the cause, and must not harm the
//! others.
//!
//! Before: a connection ended with queries unanswered, or a query resembles others that closed connections.
//! After: each was asked again on a connection for suspects, together with fewer and fewer others, until it was
//! answered, or closed two connections alone. In that case it fails, and if the backend answers others, its
//! question is refused for a while (`refusals`).
//! Holds: two queues with connections of their own (`trials`), one for queries whose connection closed and one
//! for queries that are kept apart because of others, and how many connections may be opened now.
//! Never: puts a suspect on a connection with other queries; counts a closed connection as the backend's failure.
//!
//! Source: RFC 7766 §6.2.4 (a client should retry what a closed connection left unanswered).

use std::{cell::Cell, rc::Rc};

use tokio::{task::spawn_local, time::Instant};

use super::{
    Streams,
    connection::{Connection, Lane},
    connection_io::live,
    outage,
    trials::Trials,
};
use crate::{
    backend::{flights::Flight, history::History, sink::Failure},
    ledger::Counter,
};

/// Connections for suspects at the same time, not counting silent ones.
const TRIALS_MAX: usize = 4;
/// The same for queries that are kept apart because of others.
const APART_TRIALS_MAX: usize = 2;
/// The queries of a closed connection are divided into this many groups, which are all asked at the same time.
const GROUPS: usize = TRIALS_MAX;
/// Connections for suspects that may be opened at once.
const OPENINGS_MAX: u32 = 64;
/// This many openings come back with each run of the sweeper while the backend answers: 500 a second.
const OPENINGS_ANSWERING: u32 = 25;
/// The same while it does not answer: it may close all connections.
const OPENINGS_SILENT: u32 = 1;
/// Openings at once towards a backend that does not answer.
const OPENINGS_SILENT_MAX: u32 = 24;
/// Openings that queries kept apart leave to queries whose connection closed.
const OPENINGS_LEFT: u32 = 16;
/// A query may close this many new connections alone before it fails. There is a separate limit for other
/// connections.
const NEW_ENDS_MAX: u8 = 2;
const LONE_ENDS_MAX: u8 = 4;
/// Queries kept apart because of others that may wait. More are refused: queries whose connection closed come
/// first.
const APART_MAX: usize = 256;
/// The same for queries below a name. More of them share connections again, and none is refused.
const APART_BY_NAME_MAX: usize = 16;

/// The queues and the connections.
pub struct Suspects {
    /// Queries whose connection closed.
    caught: Trials,
    /// Queries kept apart because of others: they may hang, and must not take the places of the former.
    apart: Trials,
    openings: Cell<u32>,
}

impl Default for Suspects {
    fn default() -> Self {
        Self {
            caught: Trials::new(Lane::Trial, TRIALS_MAX),
            apart: Trials::new(Lane::Apart, APART_TRIALS_MAX),
            openings: Cell::new(OPENINGS_SILENT_MAX),
        }
    }
}

impl Suspects {
    /// Queues a suspect.
    pub fn enqueue(&self, slot: u16, history: &History) {
        let trials = if history.is_apart { &self.apart } else { &self.caught };
        trials.queue.borrow_mut().push_back(slot);
    }

    /// Takes all queries that wait.
    pub fn take(&self) -> impl Iterator<Item = u16> + use<> {
        self.caught.queue.take().into_iter().chain(self.apart.queue.take())
    }

    /// Whether a query waits.
    pub fn is_waiting(&self) -> bool {
        self.both().iter().any(|trials| !trials.queue.borrow().is_empty())
    }

    /// Whether there is no connection for suspects.
    pub fn has_none(&self) -> bool {
        self.both().iter().all(|trials| trials.connections.borrow().is_empty())
    }

    /// Forgets a connection that is over.
    pub fn forget(&self, connection: &Rc<Connection>) {
        for trials in self.both() {
            trials.connections.borrow_mut().retain(|(one, _)| !Rc::ptr_eq(one, connection));
        }
    }

    /// Calls `each` with every connection.
    pub fn for_each(&self, each: &mut impl FnMut(&Rc<Connection>)) {
        for trials in self.both() {
            trials.connections.borrow().iter().for_each(|(connection, _)| each(connection));
        }
    }

    /// Closes every connection.
    pub fn close(&self) {
        for trials in self.both() {
            trials.connections.take().iter().for_each(|(_, task)| task.abort());
        }
    }

    fn both(&self) -> [&Trials; 2] {
        [&self.caught, &self.apart]
    }

    /// Adds openings, once for each run of the sweeper.
    pub fn refill(&self, is_answering: bool) {
        let (more, max) = match is_answering {
            true => (OPENINGS_ANSWERING, OPENINGS_MAX),
            false => (OPENINGS_SILENT, OPENINGS_SILENT_MAX),
        };
        let left = self.openings.get();
        self.openings.set(left.max((left + more).min(max)));
    }
}

/// Gives waiting suspects to connections for them, and opens missing ones.
pub fn hand_out(streams: &Rc<Streams>) {
    let suspects = &streams.suspects;
    if suspects.is_waiting() && streams.backend.config.health.is_down() && !streams.is_answering() {
        return give_back(streams);
    }
    for (trials, leaves) in [(&suspects.caught, 0), (&suspects.apart, OPENINGS_LEFT)] {
        let missing = trials.hand_out(streams);
        open(streams, trials, missing, leaves);
    }
}

/// Opens up to `missing` connections, as far as openings are left.
fn open(streams: &Rc<Streams>, trials: &Trials, missing: usize, leaves: u32) {
    let openings = &streams.suspects.openings;
    for _ in 0..missing {
        let Some(left) = openings.get().checked_sub(1).filter(|left| *left >= leaves) else { return };
        if streams.must_back_off(streams.backend.config.health.is_up()) {
            return;
        }
        if !trials.may_open() {
            return;
        }
        openings.set(left);
        let connection = Rc::new(Connection::of(trials.lane.clone()));
        let task = spawn_local(live(Rc::clone(streams), Rc::clone(&connection)));
        trials.connections.borrow_mut().push((connection, task.abort_handle()));
    }
}

/// The backend is down, and suspects wait with all others for the one attempt at a time; or it closes every
/// connection after the same number of answers, so they are no suspects.
fn give_back(streams: &Streams) {
    for slot in streams.suspects.take() {
        if let Some(flight) = streams.pool.flights.borrow_mut().get_mut(slot) {
            flight.history.company = u16::MAX;
        }
        streams.backend.stream_queue.push(slot);
    }
}

/// The query in `slot` resembles others that closed connections: it shares no connection. `false`: it may share
/// one, because many queries below its name wait.
pub fn set_apart(streams: &Streams, slot: u16, is_by_name: bool) -> bool {
    let (pool, suspects) = (&streams.pool, &streams.suspects);
    let waiting = suspects.apart.queue.borrow().len();
    if is_by_name && waiting >= APART_BY_NAME_MAX {
        return false;
    }
    if waiting >= APART_MAX {
        pool.try_elsewhere(slot, Failure::Full);
        return true;
    }
    if let Some(flight) = pool.flights.borrow_mut().get_mut(slot) {
        (flight.history.company, flight.history.is_apart) = (1, true);
        suspects.enqueue(slot, &flight.history);
    }
    true
}

/// `connection`, established at `established_at`, is over, and left the queries in `lost` unanswered.
pub fn ask_again(
    streams: &Streams,
    connection: &Connection,
    established_at: Option<Instant>,
    mut lost: Vec<u16>,
) {
    if lost.is_empty() {
        return;
    }
    let (pool, backend) = (&streams.pool, &streams.backend);
    let now = Instant::now();
    if established_at.is_some() && !matches!(connection.lane, Lane::PerClient(_)) {
        streams.limits.note_close(connection.answered(), now);
    }
    let is_rule = streams.limits.quota() == connection.answered();
    if is_rule {
        give_back(streams);
    }
    {
        let flights = pool.flights.borrow();
        lost.sort_unstable_by_key(|slot| flights.get(*slot).map(|flight| flight.history.order));
    }
    let accident = Accident {
        is_down: backend.config.health.is_down() && !streams.is_answering(),
        was_opened: established_at.is_some(),
        is_answering: streams.is_answering(),
        is_patient: outage::is_patient(streams),
        is_rule,
        is_personal: matches!(connection.lane, Lane::PerClient(_)),
        is_about_one: matches!(connection.lane, Lane::Trial | Lane::Apart)
            && connection.answered() == 0
            && lost.len() == 1,
        count: lost.len(),
    };
    for slot in lost {
        let fate = {
            let mut flights = pool.flights.borrow_mut();
            let Some(flight) = flights.get_mut(slot) else { continue };
            flight.take_back();
            let fate = accident.decide(flight);
            if fate == Fate::GivenUp && flight.history.new_ends >= NEW_ENDS_MAX && !flight.is_once {
                backend.refusals.suspect(flight, streams.answered_at.get(), now);
            }
            if fate == Fate::Suspect {
                streams.suspects.enqueue(slot, &flight.history);
            }
            fate
        };
        match fate {
            Fate::GivenUp => pool.try_elsewhere(slot, Failure::Unreachable),
            Fate::Suspect => pool.counters.add(Counter::BackendRetried, 1),
            Fate::Innocent => {
                pool.counters.add(Counter::BackendRetried, 1);
                backend.stream_queue.push(slot);
            }
        }
    }
}

/// How a connection ended, for the queries that it left unanswered.
struct Accident {
    /// The backend is known to be down.
    is_down: bool,
    /// It closed with one query, before it had answered any.
    is_about_one: bool,
    /// It was established.
    was_opened: bool,
    /// The backend answers other queries.
    is_answering: bool,
    /// Queries wait while no connection can be opened.
    is_patient: bool,
    /// The backend closes every connection after the same number of answers.
    is_rule: bool,
    /// It belonged to one client.
    is_personal: bool,
    /// Queries that it left unanswered.
    count: usize,
}

/// The decision about a query whose connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It fails: it closed two connections alone, or must not be asked twice.
    GivenUp,
    /// It is asked again together with fewer others.
    Suspect,
    /// It is asked again.
    Innocent,
}

impl Accident {
    fn decide(&self, flight: &mut Flight) -> Fate {
        let history = &mut flight.history;
        if flight.is_once {
            return Fate::GivenUp;
        }
        if self.is_rule {
            return Fate::Innocent;
        }
        // A connection that could not be opened says nothing about the query: the backend never had it.
        let is_lone = if self.was_opened { self.count == 1 || self.is_down } else { !self.is_patient };
        history.lone_ends = history.lone_ends.saturating_add(u8::from(is_lone));
        history.new_ends = history.new_ends.saturating_add(u8::from(self.is_about_one && !self.is_down));
        let may_be_chance = self.was_opened && self.is_answering && !self.is_personal;
        let lone_ends_max = if may_be_chance { LONE_ENDS_MAX } else { NEW_ENDS_MAX };
        if history.new_ends >= NEW_ENDS_MAX || history.lone_ends >= lone_ends_max {
            return Fate::GivenUp;
        }
        if self.is_down || !self.was_opened {
            return Fate::Innocent;
        }
        let company = u16::try_from(self.count.div_ceil(GROUPS)).unwrap_or(u16::MAX - 1);
        // The next group of a query must be smaller than its last.
        let company = if self.count > 1 { company.min(history.company.saturating_sub(1).max(1)) } else { 1 };
        history.company = history.company.min(company);
        if self.is_personal { Fate::Innocent } else { Fate::Suspect }
    }
}

#[cfg(test)]
mod tests;
