//! All backends of one worker, and their queries: which backend gets a query, and which one is next.
//!
//! Before: `Backends::submit` hands a query over. After: `ending` gave its sink exactly one outcome.
//! The path: submit → a backend's queue → `udp` or `stream` sends → `matching` finds the response; or there is no answer:
//! [`Pool::try_elsewhere`] → another backend → [`Pool::give_up`] at its deadline. With `second_tries` two backends may
//! have it at once.
//! Never: knows a socket (`udp` and `stream` call it, and it calls none of them), calls a sink, or asks a backend again
//! before every other one has had the query.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    BackendConfig,
    balance::{self, Affinity, Candidate},
    flights::{FLIGHTS_MAX, Flight, Flights, Half, qname},
    hedge::{self, Hedging},
    history::History,
    ids::Ids,
    random::Random,
    roster::Roster,
    sink::{Failure, Sink},
    subnet,
    worker_backend::Backend,
};
use crate::{
    config::{ClientSubnet, Policy},
    dns::{Asked, Query, Told},
    ledger::{Counter, WorkerCounters, turn_time},
};

/// UPDATE (RFC 2136 §1.3).
const OPCODE_UPDATE: u8 = 5;
/// Interval of the sweeper; a timeout is late by at most this.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(50);

/// Backends, queries in flight, and what they share.
pub struct Pool {
    /// Queries in flight.
    pub flights: RefCell<Flights>,
    /// Buffer in which an error without a question gets its question back.
    pub whole: RefCell<Vec<u8>>,
    /// Source of IDs.
    pub random: Random,
    /// The worker's counters.
    pub counters: WorkerCounters,
    /// Zone transfers under way.
    pub transfers: Cell<usize>,
    /// Second tries (hedging).
    pub hedging: Hedging,
    /// Whether there are second tries where there is more than one backend.
    hedges: bool,
    /// The backends.
    pub roster: RefCell<Roster>,
    policy: Cell<Policy>,
    /// The part of a client's subnet that backends learn.
    pub client_subnet: ClientSubnet,
    /// Queries that the backends can have in flight together.
    pub capacity: Cell<usize>,
    turn: Cell<usize>,
    /// Wakes the sweeper.
    pub flying: Notify,
    is_retired: Cell<bool>,
}

/// The queries that backends can have in flight together.
fn capacity(configs: &[BackendConfig]) -> usize {
    configs.iter().map(BackendConfig::capacity).sum::<usize>().min(FLIGHTS_MAX)
}

impl Pool {
    /// A pool without queries; its tasks are those of `sweep`.
    pub fn new(
        configs: &[BackendConfig],
        policy: Policy,
        hedge_percent: u8,
        client_subnet: ClientSubnet,
        counters: &WorkerCounters,
    ) -> Rc<Self> {
        let hedging = Hedging::new(if configs.len() > 1 { hedge_percent } else { 0 });
        let mut roster = Roster::default();
        roster.replace(configs, |config, index| Backend::new(config, index, &hedging, counters));
        Rc::new(Self {
            roster: RefCell::new(roster),
            flights: RefCell::default(),
            whole: RefCell::default(),
            random: Random::default(),
            counters: counters.clone(),
            transfers: Cell::new(0),
            hedging,
            hedges: hedge_percent > 0,
            policy: Cell::new(policy),
            client_subnet,
            capacity: Cell::new(capacity(configs)),
            turn: Cell::new(0),
            flying: Notify::new(),
            is_retired: Cell::new(false),
        })
    }

    /// Takes a query; its outcome goes to `sink`.
    ///
    /// # Errors
    /// The sink gets no outcome: [`Failure::Full`], or [`Failure::Unreachable`] without a backend.
    pub fn submit(&self, message: &[u8], query: &Query, sink: Rc<dyn Sink>) -> Result<(), Failure> {
        let backend = self.choose_for(message, query)?;
        let now = turn_time::now();
        let deadline = now + backend.timeout();
        let told = subnet::of(self.client_subnet, query, || sink.client());
        let since = Some(turn_time::moment());
        let asked = Asked { subnet_is_ours: matches!(told, Told::Added(_)), since, ..Asked::by(query) };
        let fill = |octets: &mut Vec<u8>| subnet::forward(told, message, query, octets);
        let slot = self.flights.borrow_mut().insert(asked, sink, deadline, fill);
        let is_once = query.opcode == OPCODE_UPDATE;
        let Some(slot) = slot else {
            self.count_failure(Failure::Full);
            return Err(Failure::Full);
        };
        if is_once && let Some(flight) = self.flights.borrow_mut().get_mut(slot) {
            // Its effect may differ if it is done twice, so one backend gets it, once.
            (flight.is_once, flight.tried) = (true, u64::MAX);
        }
        if self.hedging.is_on() {
            self.hedging.earn();
            if let Some(flight) = self.flights.borrow_mut().get_mut(slot) {
                flight.may_hedge = hedge::is_for(query);
            }
        }
        if self.flights.borrow().outstanding() == 1 {
            self.flying.notify_one();
        }
        self.counters.add(Counter::BackendOutstanding, 1);
        self.give_to(slot, &backend, now);
        Ok(())
    }

    /// The backend that gets a new query.
    ///
    /// # Errors
    /// [`Failure::Full`]: each backend has as many queries as it may; [`Failure::Unreachable`]: there is no
    /// backend.
    pub fn choose_for(&self, message: &[u8], query: &Query) -> Result<Rc<Backend>, Failure> {
        let affinity = match query.client_cookie(message) {
            Some(cookie) => Affinity::Cookie(cookie),
            None => Affinity::Name(qname(message, query.question_end)),
        };
        // A backend that rests is asked if none is awake, but not if the awake ones are only full.
        let is_any_awake = || self.roster.borrow().asked().iter().any(|backend| backend.is_awake());
        let chosen = self.choose(affinity, 0);
        if let Some(backend) = chosen.or_else(|| self.choose_asleep(affinity).filter(|_| !is_any_awake())) {
            return Ok(backend);
        }
        if self.roster.borrow().asked().is_empty() {
            return Err(Failure::Unreachable);
        }
        self.count_failure(Failure::Full);
        Err(Failure::Full)
    }

    /// The next backend by policy, among those that are awake and whose bit is not in `tried`. One that stands in for
    /// another in clear comes last.
    pub fn choose(&self, affinity: Affinity<'_>, tried: u64) -> Option<Rc<Backend>> {
        let may = |backend: &Backend| tried & backend.bit() == 0 && backend.is_awake();
        let chosen = self.choose_of(affinity, |backend| !backend.is_stand_in() && may(backend));
        chosen.or_else(|| self.choose_of(affinity, |backend| backend.is_stand_in() && may(backend)))
    }

    /// For the case that no backend is awake: one of them may answer by now.
    fn choose_asleep(&self, affinity: Affinity<'_>) -> Option<Rc<Backend>> {
        self.choose_of(affinity, |backend| !backend.is_stand_in())
    }

    fn choose_of(&self, affinity: Affinity<'_>, may: impl Fn(&Backend) -> bool) -> Option<Rc<Backend>> {
        let may = |backend: &Backend| backend.has_room() && may(backend);
        let roster = self.roster.borrow();
        if let [only] = roster.asked() {
            return may(only).then(|| Rc::clone(only));
        }
        let candidates = roster.asked().iter().filter(|backend| may(backend)).map(|backend| Candidate {
            index: backend.index,
            key: backend.config.address,
            weight: backend.live.get().weight,
            outstanding: backend.outstanding(),
        });
        let turn = self.turn.get().wrapping_add(1);
        self.turn.set(turn);
        let chosen = balance::choose(self.policy.get(), turn, affinity, candidates)?;
        roster.get(chosen).map(Rc::clone)
    }

    /// Chooses by `policy` from now on, and gives each backend its limits from `configs`, which name the same
    /// backends.
    pub fn reload(&self, policy: Policy, configs: &[BackendConfig]) {
        self.policy.set(policy);
        for (backend, config) in self.roster.borrow().asked().iter().zip(configs) {
            backend.live.set(config.live());
        }
    }

    /// Asks the backends of `configs` from now on; one that stays keeps its connections, its queries, and what is known of it.
    /// Returns the others, whose tasks have to be started. `None`, and nothing changes: second tries would begin or end with it.
    pub fn replace(&self, configs: &[BackendConfig]) -> Option<Vec<Rc<Backend>>> {
        if self.hedges && (configs.len() > 1) != self.hedging.is_on() {
            return None;
        }
        let make = |config: &BackendConfig, index| Backend::new(config, index, &self.hedging, &self.counters);
        let made = self.roster.borrow_mut().replace(configs, make);
        self.capacity.set(capacity(configs));
        // Those that left end in the sweeper, once their last query has.
        self.flying.notify_one();
        Some(made)
    }

    /// The backend with this index.
    pub fn backend(&self, index: usize) -> Option<Rc<Backend>> {
        self.roster.borrow().get(index).map(Rc::clone)
    }

    /// The backend that has the query in `slot`.
    pub fn backend_of(&self, slot: u16) -> Option<Rc<Backend>> {
        let backend = self.flights.borrow().get(slot)?.backend;
        self.backend(backend)
    }

    /// Queues the query in `slot` at `backend`, for that backend's share of the deadline.
    pub fn give_to(&self, slot: u16, backend: &Backend, now: Instant) {
        let mut flights = self.flights.borrow_mut();
        flights.note_tried(slot, backend.bit());
        let Some(flight) = flights.get_mut(slot) else { return };
        flight.backend = backend.index;
        flight.half = if flight.is_once { Half::Stream } else { backend.half_for(flight.query.len()) };
        flight.history = History::default();
        flight.patience_until = now + backend.patience();
        flight.given_at = now;
        // With `on_tls_failure = "refuse"`, queries of a backend must not go elsewhere when TLS fails.
        flight.late_at = if flight.may_hedge && !backend.refuses_without_tls() {
            self.hedging.watch(slot, &backend.pace, now, backend.patience())
        } else {
            None
        };
        let half = flight.half;
        drop(flights);
        backend.begin();
        backend.enqueue(slot, half);
    }

    /// Its backend failed the query in `slot`: another backend gets it, or it ends as `failure`.
    pub fn try_elsewhere(&self, slot: u16, failure: Failure) {
        let last = self.backend_of(slot);
        if self.moved(slot) {
            last.filter(|_| failure.is_a_loss()).into_iter().for_each(|last| last.note_loss());
        } else {
            self.give_up(slot, failure);
        }
    }

    /// Moves the query in `slot` to a backend that is awake and has not had it. `false`: there is no such
    /// backend.
    pub fn moved(&self, slot: u16) -> bool {
        let now = Instant::now();
        let (next, last) = {
            let flights = self.flights.borrow();
            let may_move = |flight: &&Flight| now < flight.deadline && !flight.is_spare();
            let Some(flight) = flights.get(slot).filter(may_move) else { return false };
            (self.choose(flight.affinity(), flight.tried), flight.backend)
        };
        let Some(next) = next else { return false };
        if let Some(flight) = self.flights.borrow_mut().get_mut(slot) {
            flight.take_back();
        }
        if let Some(last) = self.backend(last) {
            last.finish();
        }
        self.counters.add(Counter::BackendFailedOver, 1);
        self.give_to(slot, &next, now);
        true
    }

    /// `backend` cannot be reached: queries sent over `ids` go elsewhere, and new queries do so for a while.
    pub fn unreachable(&self, backend: &Backend, ids: &Rc<Ids>) {
        backend.rest();
        let lost = self.flights.borrow().find(|flight| flight.is_over(ids));
        lost.into_iter().for_each(|slot| self.try_elsewhere(slot, Failure::Unreachable));
    }

    /// Asks the query in `slot` over a connection to `backend`, and not as a datagram any more.
    pub fn ask_by_stream(&self, backend: &Backend, slot: u16) {
        if let Some(flight) = self.flights.borrow_mut().get_mut(slot) {
            flight.take_back();
            flight.half = Half::Stream;
        }
        backend.enqueue(slot, Half::Stream);
    }

    /// No more queries will come: its tasks end when no query waits.
    pub fn retire(&self) {
        self.is_retired.set(true);
        self.flying.notify_one();
    }

    /// Whether no more queries will come.
    pub fn is_retired(&self) -> bool {
        self.is_retired.get()
    }
}
