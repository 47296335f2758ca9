//! Queries that were unanswered when a connection closed: one of them may be why, and the others must not suffer from it.
//!
//! Before: a connection ended with queries unanswered, or a query is like others that closed connections. After: each was
//! asked again on a connection for suspects, beside ever fewer others, until it was answered, or closed two connections
//! alone: then it is refused, and while the backend answers others it is known by its question (`refusals`).
//! Holds: two queues with connections of their own (`trials`), one for those that an accident left and one for those that are
//! set apart for what others did, and how many connections may be opened now.
//! Never: puts a suspect on a connection with queries that are none; counts a closed connection as the backend's failure.
//!
//! Source: RFC 7766 §6.2.4 (a client should retry what a closed connection left unanswered).

use std::{cell::Cell, rc::Rc};

use tokio::{task::spawn_local, time::Instant};

use super::{
    connection::{Connection, Lane},
    connection_io::live,
    flights::Flight,
    history::History,
    outage,
    refusals::Refusals,
    sink::Failure,
    trials::Trials,
    worker_backend::Backend,
};
use crate::ledger::Counter;

/// Connections for suspects at a time that are not silent, beside those for all.
const TRIALS_MAX: usize = 4;
/// The same for queries that are set apart for what others did.
const APART_TRIALS_MAX: usize = 2;
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
/// Openings that queries set apart leave to those that an accident left.
const OPENINGS_LEFT: u32 = 16;
/// New connections that a query may close alone, and any others.
const NEW_ENDS_MAX: u8 = 2;
const LONE_ENDS_MAX: u8 = 4;
/// Queries set apart for what others did that may wait. Beyond, they are refused: who was caught in an accident of others
/// comes first.
const APART_MAX: usize = 256;
/// The same for queries below a name: beyond, they share connections as others do, and none is refused.
const APART_BY_NAME_MAX: usize = 16;

/// The queue and the connections.
pub struct Suspects {
    /// Those that an accident left.
    caught: Trials,
    /// Those that are set apart for what others did: they may hang, and must not take the places of the former.
    apart: Trials,
    openings: Cell<u32>,
    /// What is known of queries before they are asked.
    pub refusals: Refusals,
}

impl Default for Suspects {
    fn default() -> Self {
        Self {
            caught: Trials::new(Lane::Trial, TRIALS_MAX),
            apart: Trials::new(Lane::Apart, APART_TRIALS_MAX),
            openings: Cell::new(OPENINGS_SILENT_MAX),
            refusals: Refusals::default(),
        }
    }
}

impl Suspects {
    /// Queues a suspect.
    pub fn enqueue(&self, slot: u16, history: &History) {
        let trials = if history.is_apart { &self.apart } else { &self.caught };
        trials.queue.borrow_mut().push_back(slot);
    }

    /// Takes all that wait.
    pub fn take(&self) -> impl Iterator<Item = u16> + use<> {
        self.caught.queue.take().into_iter().chain(self.apart.queue.take())
    }

    /// Whether any waits.
    pub fn is_waiting(&self) -> bool {
        self.both().iter().any(|trials| !trials.queue.borrow().is_empty())
    }

    /// Whether there is no connection for them.
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

    /// Time went by, by one look of the sweeper.
    pub fn refill(&self, is_answering: bool) {
        let (more, max) = match is_answering {
            true => (OPENINGS_ANSWERING, OPENINGS_MAX),
            false => (OPENINGS_SILENT, OPENINGS_SILENT_MAX),
        };
        let left = self.openings.get();
        self.openings.set(left.max((left + more).min(max)));
    }
}

/// Gives the suspects that wait to connections for them; opens those that are missing.
pub fn hand_out(backend: &Rc<Backend>) {
    let (streams, suspects) = (&backend.streams, &backend.streams.suspects);
    if suspects.is_waiting() && backend.config.health.is_down() && !streams.is_answering() {
        return give_back(backend);
    }
    for (trials, leaves) in [(&suspects.caught, 0), (&suspects.apart, OPENINGS_LEFT)] {
        let missing = trials.hand_out(backend);
        open(backend, trials, missing, leaves);
    }
}

/// Opens as many connections as are `missing`, and may be opened.
fn open(backend: &Rc<Backend>, trials: &Trials, missing: usize, leaves: u32) {
    let (streams, openings) = (&backend.streams, &backend.streams.suspects.openings);
    for _ in 0..missing {
        let Some(left) = openings.get().checked_sub(1).filter(|left| *left >= leaves) else { return };
        if streams.must_back_off(backend.config.health.is_up()) {
            return;
        }
        if !trials.may_open() {
            return;
        }
        openings.set(left);
        let connection = Rc::new(Connection::of(trials.lane.clone()));
        let task = spawn_local(live(Rc::clone(backend), Rc::clone(&connection)));
        trials.connections.borrow_mut().push((connection, task.abort_handle()));
    }
}

/// The backend is down, and suspects wait with all others for the one attempt at a time that there is; or it closes every
/// connection after so many answers, and they are none.
fn give_back(backend: &Backend) {
    for slot in backend.streams.suspects.take() {
        if let Some(flight) = backend.pool.flights.borrow_mut().get_mut(slot) {
            flight.history.company = u16::MAX;
        }
        backend.streams.enqueue(slot);
    }
}

/// The query in `slot` is like others that closed connections: it shares none. `false`: it may, because many below its name
/// wait.
pub fn set_apart(backend: &Backend, slot: u16, is_by_name: bool) -> bool {
    let suspects = &backend.streams.suspects;
    let waiting = suspects.apart.queue.borrow().len();
    if is_by_name && waiting >= APART_BY_NAME_MAX {
        return false;
    }
    if waiting >= APART_MAX {
        backend.pool.try_elsewhere(slot, Failure::Full);
        return true;
    }
    if let Some(flight) = backend.pool.flights.borrow_mut().get_mut(slot) {
        (flight.history.company, flight.history.is_apart) = (1, true);
        suspects.enqueue(slot, &flight.history);
    }
    true
}

/// `connection`, which could be used from `established_at` on, is over, and left the queries in `lost` unanswered.
pub fn ask_again(
    backend: &Backend,
    connection: &Connection,
    established_at: Option<Instant>,
    mut lost: Vec<u16>,
) {
    if lost.is_empty() {
        return;
    }
    let (pool, streams) = (&backend.pool, &backend.streams);
    let now = Instant::now();
    if established_at.is_some() && !matches!(connection.lane, Lane::PerClient(_)) {
        streams.limits.note_close(connection.answered(), now);
    }
    let is_rule = streams.limits.quota() == connection.answered();
    if is_rule {
        give_back(backend);
    }
    {
        let flights = pool.flights.borrow();
        lost.sort_unstable_by_key(|slot| flights.get(*slot).map(|flight| flight.history.order));
    }
    let accident = Accident {
        is_down: backend.config.health.is_down() && !streams.is_answering(),
        was_opened: established_at.is_some(),
        is_answering: streams.is_answering(),
        is_patient: outage::is_patient(backend),
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
                streams.suspects.refusals.suspect(flight, streams.answered_at.get(), now);
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
    /// The backend answers others.
    is_answering: bool,
    /// Queries wait while none can be opened.
    is_patient: bool,
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
        let history = &mut flight.history;
        if flight.is_once {
            return Fate::GivenUp;
        }
        if self.is_rule {
            return Fate::Innocent;
        }
        // What could not be opened says nothing of the query: nobody had it.
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
        // A group of two or more must become smaller.
        let company = if self.count > 1 { company.min(history.company.saturating_sub(1).max(1)) } else { 1 };
        history.company = history.company.min(company);
        if self.is_personal { Fate::Innocent } else { Fate::Suspect }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Duration;

    use super::*;
    use crate::{
        backend::{Broken, Sink, flights::Flights},
        dns::{Asked, Query},
    };

    struct Nobody;

    impl Sink for Nobody {
        fn response(&self, _: Asked, _: &[u8]) -> Result<(), Broken> {
            Ok(())
        }

        fn failure(&self, _: Asked, _: &[u8], _: Failure) {}
    }

    const QUERY: [u8; 17] = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

    fn flights(count: usize) -> (Flights, Vec<u16>) {
        let mut flights = Flights::default();
        let query = Query::parse(&QUERY).unwrap();
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut ask =
            || flights.insert(Asked::by(&query), Rc::new(Nobody), deadline, |_| None).expect("there is room");
        let slots = (0..count).map(|_| ask()).collect();
        (flights, slots)
    }

    /// A connection that served for a while and left so many.
    fn left(count: usize) -> Accident {
        Accident {
            is_down: false,
            is_about_one: false,
            was_opened: true,
            is_answering: true,
            is_patient: true,
            is_rule: false,
            is_personal: false,
            count,
        }
    }

    /// Goal: from 512 queries the one that closes connections is alone after five of them and fails after two more, and each of
    /// the others is asked on. Method: the groups that `Accident::decide` says, of which the one with it ends.
    #[test]
    fn groups_shrink_to_one() {
        let (mut flights, mut group) = flights(512);
        let killer = group[100];
        let mut steps = 0;
        while group.len() > 1 {
            let accident = left(group.len());
            let fates = group.iter().map(|slot| accident.decide(flights.get_mut(*slot).unwrap()));
            assert!(fates.into_iter().all(|fate| fate == Fate::Suspect));
            let company = usize::from(flights.get(killer).unwrap().history.company);
            assert!(company < group.len(), "{company}");
            let place = group.iter().position(|slot| *slot == killer).unwrap();
            group = group.chunks(company).nth(place / company).unwrap().to_vec();
            steps += 1;
        }
        assert_eq!((steps, group), (5, vec![killer]));
        let alone = Accident { is_about_one: true, ..left(1) };
        let flight = flights.get_mut(killer).unwrap();
        assert_eq!([alone.decide(flight), alone.decide(flight)], [Fate::Suspect, Fate::GivenUp]);
    }

    /// Goal: a query is to blame for connections that it closed while they were new, and for no others; those that were not
    /// opened count when nobody waits any more. Method: one query after each kind of end.
    #[test]
    fn only_new_connections_say_that_it_is_the_query() {
        let (mut flights, slots) = flights(3);
        let [used, unopened, refused] = slots[..] else { panic!("three") };
        let flight = flights.get_mut(used).unwrap();
        let fates = [(); 4].map(|()| left(1).decide(flight));
        assert_eq!(fates, [Fate::Suspect, Fate::Suspect, Fate::Suspect, Fate::GivenUp]);
        assert_eq!(flight.history.new_ends, 0, "it is refused to nobody");
        let unopened = flights.get_mut(unopened).unwrap();
        let patient = Accident { was_opened: false, is_personal: true, ..left(1) };
        assert!((0..9).all(|_| patient.decide(unopened) == Fate::Innocent));
        let refused = flights.get_mut(refused).unwrap();
        let hasty = Accident { is_patient: false, ..patient };
        assert_eq!([hasty.decide(refused), hasty.decide(refused)], [Fate::Innocent, Fate::GivenUp]);
    }
}
