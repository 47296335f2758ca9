//! All backends of one worker, and their queries: which backend gets a query, and which one is next.
//!
//! Before: `Backends::submit` hands a query over. After: `ending` gave its sink exactly one outcome.
//! The path: submit → a backend's queue → `udp` or `streams` sends → `matching` finds the response; or there is no answer:
//! [`Pool::try_elsewhere`] → another backend → [`Pool::give_up`] at its deadline. With `hedge` two backends may
//! have it at once.
//! Never: holds a borrow over an await, calls a sink, or asks a backend again before every other one has had the query.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::{AbortHandle, spawn_local},
    time::{Instant, sleep},
};

use super::{
    BackendConfig,
    balance::{self, Affinity, Candidate},
    flights::{FLIGHTS_MAX, Flight, Flights, Half, qname},
    hedge::{self, Hedging},
    history::History,
    outcomes,
    random::Random,
    silence,
    sink::{Failure, Sink},
    subnet,
    udp::{self, Inbound, path_mtu, resend},
    worker_backend::Backend,
};
use crate::{
    config::{ClientSubnet, Policy},
    dns::{Asked, Query, Told},
    ledger::{Counter, WorkerCounters, turn_time},
    supervise::supervise,
};

/// UPDATE (RFC 2136 §1.3).
const OPCODE_UPDATE: u8 = 5;
/// Interval of the sweeper; a timeout is late by at most this.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(50);
/// Octets of one read from a connection: many responses for one system call.
const READ_OCTETS: usize = 64 * 1024;

/// Backends, queries in flight, and what senders and receivers share.
pub struct Pool {
    /// Queries in flight.
    pub flights: RefCell<Flights>,
    /// Buffers for datagrams.
    pub inbound: RefCell<Inbound>,
    /// Buffer of a read from a connection.
    pub scratch: RefCell<Box<[u8]>>,
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
    /// The backends.
    pub backends: RefCell<Vec<Rc<Backend>>>,
    policy: Cell<Policy>,
    /// What backends learn of a client's subnet.
    pub client_subnet: ClientSubnet,
    /// Queries that the backends can have in flight together.
    pub capacity: usize,
    turn: Cell<usize>,
    /// Wakes the sweeper.
    flying: Notify,
    is_retired: Cell<bool>,
    tasks: RefCell<Vec<AbortHandle>>,
}

impl Pool {
    /// Starts the tasks; opens no socket yet.
    pub fn start(
        configs: &[BackendConfig],
        policy: Policy,
        hedge_percent: u8,
        client_subnet: ClientSubnet,
        counters: &WorkerCounters,
    ) -> Rc<Self> {
        let pool = Rc::new(Self {
            flights: RefCell::default(),
            inbound: RefCell::default(),
            scratch: RefCell::new(vec![0; READ_OCTETS].into_boxed_slice()),
            whole: RefCell::default(),
            random: Random::default(),
            counters: counters.clone(),
            transfers: Cell::new(0),
            hedging: Hedging::new(if configs.len() > 1 { hedge_percent } else { 0 }),
            backends: RefCell::default(),
            policy: Cell::new(policy),
            client_subnet,
            capacity: configs.iter().map(BackendConfig::capacity).sum::<usize>().min(FLIGHTS_MAX),
            turn: Cell::new(0),
            flying: Notify::new(),
            is_retired: Cell::new(false),
            tasks: RefCell::default(),
        });
        for (index, config) in configs.iter().enumerate() {
            let backend = Rc::new(Backend::new(config, index, Rc::clone(&pool)));
            pool.tasks.borrow_mut().extend(backend.start());
            pool.backends.borrow_mut().push(backend);
        }
        if pool.hedging.is_on() {
            let watched = Rc::clone(&pool);
            let task = spawn_local(supervise("hedging", move || hedge::watch(Rc::clone(&watched))));
            pool.tasks.borrow_mut().push(task.abort_handle());
        }
        let swept = Rc::clone(&pool);
        spawn_local(supervise("sweeper", move || sweep(Rc::clone(&swept))));
        pool
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
        let is_any_awake = || self.backends.borrow().iter().any(|backend| backend.is_awake());
        let chosen = self.choose(affinity, 0);
        if let Some(backend) = chosen.or_else(|| self.choose_asleep(affinity).filter(|_| !is_any_awake())) {
            return Ok(backend);
        }
        if self.backends.borrow().is_empty() {
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
        let backends = self.backends.borrow();
        if let [only] = backends.as_slice() {
            return may(only).then(|| Rc::clone(only));
        }
        let candidates = backends.iter().filter(|backend| may(backend)).map(|backend| Candidate {
            index: backend.index,
            key: backend.config.address,
            weight: backend.live.get().weight,
            outstanding: backend.outstanding(),
        });
        let turn = self.turn.get().wrapping_add(1);
        self.turn.set(turn);
        let chosen = balance::choose(self.policy.get(), turn, affinity, candidates)?;
        backends.get(chosen).map(Rc::clone)
    }

    /// Chooses by `policy` from now on, and gives each backend its limits from `configs`, which name the same
    /// backends.
    pub fn reload(&self, policy: Policy, configs: &[BackendConfig]) {
        self.policy.set(policy);
        for (backend, config) in self.backends.borrow().iter().zip(configs) {
            backend.live.set(config.live());
        }
    }

    /// The backend with this index.
    pub fn backend(&self, index: usize) -> Option<Rc<Backend>> {
        self.backends.borrow().get(index).map(Rc::clone)
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
        flight.late_at = if flight.may_hedge { self.hedging.watch(slot, backend, now) } else { None };
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

    /// Its backend has been silent for its share of the deadline. Another backend gets the query. If there is
    /// none, a datagram is sent again, or the query goes over a connection if it may be too long for the path; a
    /// query on a connection waits on.
    fn lose_patience(&self, slot: u16) {
        let last = self.backend_of(slot);
        if self.moved(slot) {
            return last.into_iter().for_each(|last| last.note_loss());
        }
        let mut flights = self.flights.borrow_mut();
        let Some(flight) = flights.get_mut(slot) else { return };
        let Some(backend) = self.backend(flight.backend) else { return };
        flight.patience_until = Instant::now() + backend.patience();
        match flight.half {
            Half::Datagram if flight.is_spare() => {}
            Half::Datagram if backend.datagram_octets(flight.query.len()) <= path_mtu::CARRIED_OCTETS => {
                resend::enqueue(&backend, slot, flight);
            }
            half => {
                drop(flights);
                match half {
                    Half::Stream => silence::ask_apart(&backend, slot),
                    Half::Datagram => path_mtu::leave_to_stream(&backend, slot),
                }
            }
        }
    }

    /// No more queries will come: its tasks end when no query waits.
    pub fn retire(&self) {
        self.is_retired.set(true);
        self.flying.notify_one();
    }

    /// Ends every task but the caller's, and closes every socket.
    fn dissolve(&self) {
        self.tasks.take().iter().for_each(AbortHandle::abort);
        self.backends.take().iter().for_each(|backend| backend.close());
    }
}

/// Ends queries past their deadline, moves those whose backend is silent, closes unused ports.
async fn sweep(pool: Rc<Pool>) {
    loop {
        let is_quiet = pool.flights.borrow().outstanding() == 0;
        if is_quiet && pool.is_retired.get() {
            return pool.dissolve();
        }
        if is_quiet && !pool.backends.borrow().iter().any(|backend| backend.datagrams.has_retired()) {
            pool.flying.notified().await;
        }
        sleep(SWEEP_INTERVAL).await;
        let now = Instant::now();
        turn_time::begin(now);
        let late = pool.flights.borrow().find(|flight| flight.deadline <= now);
        late.into_iter().for_each(|slot| pool.give_up(slot, Failure::Silent));
        let silent = pool.flights.borrow().find(|flight| flight.patience_until <= now);
        silent.into_iter().for_each(|slot| pool.lose_patience(slot));
        outcomes::look(&pool, now);
        for backend in pool.backends.borrow().iter() {
            resend::send(backend);
            udp::close_quiet(backend);
            backend.look(now);
        }
    }
}
