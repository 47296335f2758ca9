//! Queries that were unanswered when a connection closed: one of them may be why, and the others must not suffer from it.
//!
//! Before: a connection ended with queries unanswered, or a query is like others that closed connections. After: each was
//! asked again on a connection for suspects, beside ever fewer others, until it was answered, or closed two connections
//! alone: then it is refused, and while the backend answers others it is known by its question (`refusals`).
//! Holds: the queue of suspects and at most four connections for them, and how many more may be opened now.
//! Never: puts a suspect on a connection with queries that are none; counts a closed connection as the backend's failure.
//!
//! Source: RFC 7766 §6.2.4 (a client should retry what a closed connection left unanswered).

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use tokio::{task::spawn_local, time::Instant};

use super::{
    connection::{Connection, Lane},
    dialogue::live,
    flights::{Flight, Half},
    refusals::Refusals,
    sink::Failure,
    streams::Served,
    upstream::Upstream,
};
use crate::ledger::Counter;

/// Connections for suspects at a time, beside those for all.
const TRIALS_MAX: usize = 4;
/// Into how many groups the queries of a closed connection are divided: as many as are asked at once.
const GROUPS: usize = TRIALS_MAX;
/// Connections for suspects that may be opened at once.
const OPENINGS_MAX: u32 = 64;
/// How many of them come back with each look of the sweeper while the backend answers: 500 a second.
const OPENINGS_ANSWERING: u32 = 25;
/// And while it does not: it may be that it closes all connections.
const OPENINGS_SILENT: u32 = 1;
/// Of those that a backend which does not answer may have at once.
const OPENINGS_SILENT_MAX: u32 = 24;
/// Connections that a query may close alone.
const LONE_ENDS_MAX: u8 = 2;
/// Queries set apart for what others did that may wait. Beyond, they are refused: who was caught in an accident of others
/// comes first.
const APART_MAX: usize = 256;

/// The queue and the connections.
pub struct Suspects {
    queue: RefCell<VecDeque<u16>>,
    trials: RefCell<Vec<Served>>,
    openings: Cell<u32>,
    /// What is known of queries before they are asked.
    pub refusals: Refusals,
}

impl Default for Suspects {
    fn default() -> Self {
        Self {
            queue: RefCell::default(),
            trials: RefCell::default(),
            openings: Cell::new(OPENINGS_SILENT_MAX),
            refusals: Refusals::default(),
        }
    }
}

impl Suspects {
    /// Queues a suspect.
    pub fn enqueue(&self, slot: u16) {
        self.queue.borrow_mut().push_back(slot);
    }

    /// Takes all that wait.
    pub fn take(&self) -> VecDeque<u16> {
        self.queue.take()
    }

    /// Whether any waits.
    pub fn is_waiting(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    /// Whether there is no connection for them.
    pub fn has_none(&self) -> bool {
        self.trials.borrow().is_empty()
    }

    /// Forgets a connection that is over.
    pub fn forget(&self, connection: &Rc<Connection>) {
        self.trials.borrow_mut().retain(|(one, _)| !Rc::ptr_eq(one, connection));
    }

    /// Calls `each` with every connection.
    pub fn for_each(&self, each: &mut impl FnMut(&Rc<Connection>)) {
        self.trials.borrow().iter().for_each(|(connection, _)| each(connection));
    }

    /// Closes every connection.
    pub fn close(&self) {
        self.trials.take().iter().for_each(|(_, task)| task.abort());
    }

    /// Time went by, by one look of the sweeper.
    pub fn refill(&self, is_answering: bool) {
        let (more, max) = match is_answering {
            true => (OPENINGS_ANSWERING, OPENINGS_MAX),
            false => (OPENINGS_SILENT, OPENINGS_SILENT_MAX),
        };
        let left = self.openings.get();
        self.openings.set(left.max((left + more).min(max)));
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
        let trials = self.trials.borrow();
        let mut fitting = trials.iter().map(|(connection, _)| connection).filter(|one| needs.fit(one));
        fitting.next().map(Rc::clone)
    }

    /// Makes room for another connection, if need be by ending one that nobody uses. `false`: none can be opened now.
    fn may_open(&self) -> bool {
        let trials = self.trials.borrow();
        if trials.iter().any(|(connection, _)| !connection.is_established()) {
            return trials.len() < TRIALS_MAX;
        }
        if trials.len() >= TRIALS_MAX {
            let mut used = trials.iter().filter(|(connection, _)| connection.is_quiet());
            used.next().into_iter().for_each(|(connection, _)| connection.end());
            return false;
        }
        true
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

/// Gives the suspects that wait to connections for them; opens those that are missing.
pub fn hand_out(upstream: &Rc<Upstream>) {
    let (streams, suspects) = (&upstream.streams, &upstream.streams.suspects);
    if suspects.is_waiting() && upstream.config.health.is_down() && !streams.is_answering() {
        return give_back(upstream);
    }
    while let Some((slot, needs)) = suspects.front(upstream) {
        let Some(connection) = suspects.fitting(needs) else { break };
        suspects.queue.borrow_mut().pop_front();
        connection.give(upstream, slot);
        connection.wake();
    }
    let Some((_, needs)) = suspects.front(upstream) else { return };
    let groups = suspects.queue.borrow().len().div_ceil(usize::from(needs.company.max(1)));
    let opening = suspects.trials.borrow().iter().filter(|(one, _)| !one.is_established()).count();
    for _ in opening..groups.min(TRIALS_MAX) {
        let Some(left) = suspects.openings.get().checked_sub(1) else { return };
        if streams.backs_off_until().is_some() && !streams.is_answering() && !upstream.config.health.is_up() {
            return;
        }
        if !suspects.may_open() {
            return;
        }
        suspects.openings.set(left);
        let connection = Rc::new(Connection::of(Lane::Trial));
        let task = spawn_local(live(Rc::clone(upstream), Rc::clone(&connection)));
        suspects.trials.borrow_mut().push((connection, task.abort_handle()));
    }
}

/// The backend is down, and suspects wait with all others for the one attempt at a time that there is; or it closes every
/// connection after so many answers, and they are none.
fn give_back(upstream: &Upstream) {
    for slot in upstream.streams.suspects.take() {
        if let Some(flight) = upstream.fleet.flights.borrow_mut().get_mut(slot) {
            flight.record.company = u16::MAX;
        }
        upstream.streams.enqueue(slot);
    }
}

/// The query in `slot` is like others that closed connections: it shares none.
pub fn set_apart(upstream: &Upstream, slot: u16) {
    let suspects = &upstream.streams.suspects;
    if suspects.queue.borrow().len() >= APART_MAX {
        return upstream.fleet.try_elsewhere(slot, Failure::Full);
    }
    if let Some(flight) = upstream.fleet.flights.borrow_mut().get_mut(slot) {
        flight.record.company = 1;
    }
    suspects.enqueue(slot);
}

/// `connection`, which could be used from `established_at` on, is over, and left the queries in `lost` unanswered.
pub fn ask_again(
    upstream: &Upstream,
    connection: &Connection,
    established_at: Option<Instant>,
    mut lost: Vec<u16>,
) {
    if lost.is_empty() {
        return;
    }
    let (fleet, streams) = (&upstream.fleet, &upstream.streams);
    let now = Instant::now();
    if established_at.is_some() && !matches!(connection.lane, Lane::Personal(_)) {
        streams.habits.note_close(connection.answered(), now);
    }
    let is_rule = streams.habits.quota() == connection.answered();
    if is_rule {
        give_back(upstream);
    }
    {
        let flights = fleet.flights.borrow();
        lost.sort_unstable_by_key(|slot| flights.get(*slot).map(|flight| flight.record.order));
    }
    let accident = Accident {
        is_down: upstream.config.health.is_down() && !streams.is_answering(),
        was_opened: established_at.is_some(),
        is_rule,
        is_personal: matches!(connection.lane, Lane::Personal(_)),
        is_about_one: connection.lane == Lane::Trial && connection.answered() == 0 && lost.len() == 1,
        count: lost.len(),
    };
    for slot in lost {
        let fate = {
            let mut flights = fleet.flights.borrow_mut();
            let Some(flight) = flights.get_mut(slot) else { continue };
            flight.take_back();
            let fate = accident.decide(flight);
            if fate == Fate::GivenUp && accident.is_about_one && !flight.is_once {
                streams.suspects.refusals.suspect(flight, streams.answered_at.get(), now);
            }
            fate
        };
        match fate {
            Fate::GivenUp => fleet.try_elsewhere(slot, Failure::Unreachable),
            Fate::Suspect => {
                fleet.counters.add(Counter::BackendRetried, 1);
                streams.suspects.enqueue(slot);
            }
            Fate::Innocent => {
                fleet.counters.add(Counter::BackendRetried, 1);
                streams.enqueue(slot);
            }
        }
    }
}

/// How a connection ended, for the queries that it left.
struct Accident {
    /// The backend is known to be down.
    is_down: bool,
    /// It was closed on one query, before it had answered any.
    is_about_one: bool,
    /// It could be used.
    was_opened: bool,
    /// The backend closes every connection after as many answers.
    is_rule: bool,
    /// It was one client's alone.
    is_personal: bool,
    /// Queries that it left.
    count: usize,
}

/// What becomes of a query whose connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It closed two alone, or must not be asked twice.
    GivenUp,
    /// It is asked again beside fewer others.
    Suspect,
    /// It is asked again.
    Innocent,
}

impl Accident {
    fn decide(&self, flight: &mut Flight) -> Fate {
        let record = &mut flight.record;
        if flight.is_once {
            return Fate::GivenUp;
        }
        if self.is_rule {
            return Fate::Innocent;
        }
        let is_lone = self.count == 1 || self.is_down || !self.was_opened;
        record.lone_ends = record.lone_ends.saturating_add(u8::from(is_lone));
        if record.lone_ends >= LONE_ENDS_MAX {
            return Fate::GivenUp;
        }
        if self.is_down || !self.was_opened {
            return Fate::Innocent;
        }
        let company = u16::try_from(self.count.div_ceil(GROUPS)).unwrap_or(u16::MAX - 1);
        // A group of two or more must become smaller.
        let company = if self.count > 1 { company.min(record.company.saturating_sub(1).max(1)) } else { 1 };
        record.company = record.company.min(company);
        if self.is_personal { Fate::Innocent } else { Fate::Suspect }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: from 512 queries the one that closes connections is alone after five connections, and each of the others is
    /// asked on. Method: groups as small as they are made, each of which ends.
    #[test]
    fn groups_shrink_to_one() {
        let (mut count, mut steps) = (512_usize, 0);
        while count > 1 {
            count = usize::from(u16::try_from(count.div_ceil(GROUPS)).unwrap());
            steps += 1;
        }
        assert_eq!(steps, 5);
    }
}
