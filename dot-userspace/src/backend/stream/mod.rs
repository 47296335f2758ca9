//! The connections of one worker to one backend: few, shared by all queries, opened when needed.
//!
//! Before: `pool` queued queries. After: a connection with room has them, or they went elsewhere.
//! Holds: the connections; it calls `pool`, which knows none of this. `back_off` knows how often in a row no connection
//! could be opened,
//! `suspects` has queries that may have closed a connection, `silence` watches connections that do not answer,
//! `per_client` has connections of one client each; `connection_io` reads and writes.
//! Never: opens a second connection while a first is being opened (except to a backend that closes each after a
//! few answers), or opens one sooner than the back-off permits: a backend that comes back gets one attempt from
//! each worker, not all of its queries.
//!
//! Source: RFC 7766 §6.2.2 (few connections), §6.2.4 (retry what a closed connection left unanswered).

mod acknowledgement;
mod back_off;
mod connection;
mod connection_io;
mod connection_limits;
mod outage;
mod per_client;
pub mod silence;
mod suspects;
mod trials;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tokio::{
    task::{AbortHandle, spawn_local},
    time::{Instant, sleep_until},
};

use self::{
    back_off::BackOff,
    connection::{Connection, Lane},
    connection_io::{End, live},
    connection_limits::ConnectionLimits,
    per_client::PerClient,
    suspects::Suspects,
};
use super::{
    dial::NotOpened, flights::Half, history::History, pool::Pool, refusals::Verdict, sink::Failure,
    worker_backend::Backend,
};
use crate::{
    config::Transport,
    ledger::{Counter, turn_time},
};

/// Up to this many connections are opened when all others are busy.
const CONNECTIONS: usize = 2;
/// A connection with this many unanswered queries is busy; below that, one connection batches better than two.
const BUSY: usize = 32;
/// Up to this many connections are opened when all others are full.
const CONNECTIONS_MAX: usize = 8;
/// Queries that all of these carry.
pub const CAPACITY: usize = CONNECTIONS_MAX * connection::IN_FLIGHT_MAX;
/// Octets of one read from a connection: many responses for one system call.
const READ_OCTETS: usize = 64 * 1024;
/// A backend that answered over any connection within this time is up: a connection that it closes is no failure
/// of the backend.
const ANSWERING_FOR: Duration = Duration::from_secs(1);

/// A connection and the task that serves it.
type Served = (Rc<Connection>, AbortHandle);

/// The buffer of a read from a connection. All connections of a worker share one.
#[derive(Clone)]
pub struct Scratch(Rc<RefCell<Box<[u8]>>>);

impl Default for Scratch {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(vec![0; READ_OCTETS].into_boxed_slice())))
    }
}

/// The connections of one backend.
pub struct Streams {
    /// All queries.
    pub pool: Rc<Pool>,
    /// The backend.
    pub backend: Rc<Backend>,
    scratch: Scratch,
    connections: RefCell<Vec<Served>>,
    /// Queries that may have closed a connection, and the connections for them.
    suspects: Suspects,
    /// Connections of one client each; with `proxy_v2` there are no others.
    per_client: PerClient,
    /// Limits that follow from what the backend did with connections.
    limits: ConnectionLimits,
    /// How long the backend is usually silent before it answers, in eighths of the sweeper's interval.
    usual_silence: Cell<u32>,
    /// Time of the last answer over any of them.
    answered_at: Cell<Option<Instant>>,
    /// Failures in a row, and what follows from them.
    back_off: BackOff,
    /// The last failure was that no connection could be opened.
    is_unconnected: Cell<bool>,
}

impl Streams {
    /// No connection yet.
    pub fn new(pool: &Rc<Pool>, backend: &Rc<Backend>, scratch: &Scratch) -> Self {
        Self {
            pool: Rc::clone(pool),
            backend: Rc::clone(backend),
            scratch: scratch.clone(),
            connections: RefCell::default(),
            suspects: Suspects::default(),
            per_client: PerClient::default(),
            limits: ConnectionLimits::default(),
            usual_silence: Cell::default(),
            answered_at: Cell::default(),
            back_off: BackOff::default(),
            is_unconnected: Cell::default(),
        }
    }

    /// Does the work of one run of the sweeper.
    pub fn sweep(&self, now: Instant) {
        self.suspects.refill(self.is_answering());
        self.backend.refusals.look(self.answered_at.get(), now);
        self.limits.look(now);
        // Queries that were given up left room on connections.
        silence::look(self, now);
    }

    /// Queues `slot` where a query with this history waits. If each client has its own connections, there are
    /// none for suspects.
    fn put_in_line(&self, slot: u16, history: &History) {
        match history.is_suspect() && !self.backend.config.proxy_v2 {
            true => self.suspects.enqueue(slot, history),
            false => self.backend.stream_queue.add(slot),
        }
    }

    /// Wakes the distributor if a query waits.
    fn look(&self) {
        if self.is_waiting() {
            self.backend.stream_queue.work.notify_one();
        }
    }

    /// Closes every connection.
    pub fn close(&self) {
        self.connections.take().iter().for_each(|(_, task)| task.abort());
        self.suspects.close();
        self.per_client.close();
    }

    /// Takes all queries that wait, in every queue.
    fn take(&self) -> impl Iterator<Item = u16> + use<> {
        self.backend.stream_queue.take().into_iter().chain(self.suspects.take()).chain(self.per_client.take())
    }

    /// Calls `each` with every connection, of every lane.
    fn for_each(&self, mut each: impl FnMut(&Rc<Connection>)) {
        self.connections.borrow().iter().for_each(|(connection, _)| each(connection));
        self.suspects.for_each(&mut each);
        self.per_client.for_each(each);
    }

    /// Queries waited long on a connection behind an unanswered one: if the backend answers in order, all
    /// connections carry fewer queries.
    fn note_stall(&self, now: Instant) {
        self.limits.note_stall(now);
        self.limit_all();
    }

    /// A connection was not closed after its full number of answers: forgets the rule.
    fn forget_quota(&self) {
        self.limits.forget_quota();
        self.limit_all();
    }

    fn limit_all(&self) {
        let (depth, quota) = (self.limits.depth(), self.limits.quota());
        self.connections.borrow().iter().for_each(|(connection, _)| connection.limit(depth, quota));
    }

    /// A connection was established.
    fn opened(&self) {
        self.backend.is_insecure.set(false);
        self.look();
    }

    /// Whether the backend has answered over some connection a moment ago.
    fn is_answering(&self) -> bool {
        self.answered_at.get().is_some_and(|at| at.elapsed() < ANSWERING_FOR)
    }

    /// The connection with the fewest unanswered queries among those with room. Silent connections count only if
    /// no other can be opened.
    fn idlest(&self) -> Option<Rc<Connection>> {
        let connections = self.connections.borrow();
        let able = connections.iter().map(|(connection, _)| connection).filter(|one| one.has_room());
        let idlest = able.min_by_key(|one| (one.is_silent(), one.ids.outstanding()))?;
        let may_wait = connections.len() < CONNECTIONS_MAX
            && self.backs_off_until().is_none()
            && !self.back_off.is_any();
        (!idlest.is_silent() || !may_wait).then(|| Rc::clone(idlest))
    }

    /// Whether connections for suspects have to wait like those for all: the backend is not known to be up.
    fn must_back_off(&self, is_up: bool) -> bool {
        let is_there = self.is_answering() || (is_up && !self.is_unconnected.get());
        !is_there && self.backs_off_until().is_some()
    }

    /// When the next connection may be opened, if not now.
    fn backs_off_until(&self) -> Option<Instant> {
        self.back_off.until(Instant::now())
    }

    fn is_waiting(&self) -> bool {
        !self.backend.stream_queue.is_empty() || self.suspects.is_waiting() || self.per_client.is_waiting()
    }

    /// Whether there is no connection at all.
    fn has_none(&self) -> bool {
        self.connections.borrow().is_empty() && self.suspects.has_none() && self.per_client.is_empty()
    }
}

/// Gives queries to connections. Runs after all that queued queries in this turn.
pub async fn distribute(streams: Rc<Streams>) {
    let work = &streams.backend.stream_queue.work;
    loop {
        match streams.backs_off_until().filter(|_| streams.is_waiting()) {
            Some(until) => {
                tokio::select! {
                    () = work.notified() => {}
                    () = sleep_until(until) => {}
                }
            }
            None => work.notified().await,
        }
        hand_out(&streams);
    }
}

/// Gives waiting queries to connections with room, a whole turn to one connection if it fits.
fn hand_out(streams: &Rc<Streams>) {
    turn_time::begin(Instant::now());
    if streams.backend.config.proxy_v2 {
        per_client::hand_out(streams);
    } else {
        share_out(streams);
        suspects::hand_out(streams);
    }
    if streams.is_waiting() && streams.has_none() && streams.backs_off_until().is_some() {
        outage::refuse_waiting(streams);
    }
}

fn share_out(streams: &Rc<Streams>) {
    while !streams.backend.stream_queue.is_empty() {
        let Some(connection) = streams.idlest() else { break };
        fill(streams, &connection);
        connection.wake();
    }
    if streams.backs_off_until().is_none() {
        open_others(streams);
    }
}

/// Moves queries from the queue to `connection` until the queue is empty or the connection full.
fn fill(streams: &Streams, connection: &Connection) {
    let (pool, backend) = (&streams.pool, &streams.backend);
    while connection.has_room() {
        let Some(slot) = backend.stream_queue.pop() else { return };
        let verdict = {
            let flights = pool.flights.borrow();
            let waiting = flights.get(slot).filter(|flight| flight.waits_at(backend.index, Half::Stream));
            // Otherwise it ended, or moved to another backend, while it waited.
            let Some(flight) = waiting else { continue };
            backend.refusals.judge(flight)
        };
        match verdict {
            Verdict::Unknown => connection.give(streams, slot),
            Verdict::Apart | Verdict::ApartByName => {
                if !suspects::set_apart(streams, slot, verdict == Verdict::ApartByName) {
                    connection.give(streams, slot);
                }
            }
            Verdict::Refused => pool.try_elsewhere(slot, Failure::Harmful),
        }
    }
}

/// Opens connections if they are needed: there is none, there are too few for the waiting queries, or all are
/// full.
fn open_others(streams: &Rc<Streams>) {
    let limits = &streams.limits;
    let mut connections = streams.connections.borrow_mut();
    let is_new = |(connection, _): &&Served| !connection.is_established();
    let mut opening = connections.iter().filter(is_new).count();
    let able = connections.iter().filter(|(connection, _)| !connection.is_silent() && !connection.is_worn());
    let (mut count, mut are_busy) = (0, true);
    let (busy, early) = if limits.is_in_order() { (1, CONNECTIONS_MAX) } else { (BUSY, CONNECTIONS) };
    able.for_each(|(connection, _)| {
        count += 1;
        are_busy &= connection.ids.outstanding() >= busy;
    });
    let waiting = streams.backend.stream_queue.len();
    while connections.len() < CONNECTIONS_MAX && opening < limits.opening_max(waiting) {
        let is_wanted = if count > 0 && count < early { are_busy } else { waiting > 0 };
        if !is_wanted {
            return;
        }
        let connection = Rc::new(Connection::of(Lane::Shared));
        connection.limit(limits.depth(), limits.quota());
        let task = spawn_local(live(Rc::clone(streams), Rc::clone(&connection)));
        connections.push((connection, task.abort_handle()));
        (opening, count) = (opening + 1, count + 1);
    }
}

/// `connection`, established at `established_at`, is over. Its unanswered queries are asked again, or go to
/// another backend.
fn ended(streams: &Streams, connection: &Rc<Connection>, established_at: Option<Instant>, end: &End) {
    let (pool, backend) = (&streams.pool, &streams.backend);
    tracing::debug!(%end, backend = %backend.config.name, "a connection to a backend has ended");
    streams.connections.borrow_mut().retain(|(one, _)| !Rc::ptr_eq(one, connection));
    streams.suspects.forget(connection);
    streams.per_client.forget(connection);
    let counter = match end {
        End::NotOpened(NotOpened::Unconnected(_)) => Some(Counter::BackendConnectFailed),
        End::NotOpened(NotOpened::NotSecure(_)) => Some(Counter::BackendTlsFailed),
        End::Broken(_) => Some(Counter::BackendStreamBroken),
        End::Closed | End::Failed(_) | End::Idle => None,
    };
    counter.into_iter().for_each(|counter| pool.counters.add(counter, 1));
    let lost = pool.flights.borrow().find(|flight| flight.is_over(&connection.ids));
    let is_failure = match end {
        End::NotOpened(error) => {
            backend.is_insecure.set(matches!(error, NotOpened::NotSecure(_)));
            true
        }
        End::Idle => false,
        // Connections are closed for many reasons. While other queries are answered, a close is no failure of the
        // backend. A connection for suspects, or for one client, says nothing about other queries.
        _ => {
            let is_needed = !lost.is_empty() || streams.is_waiting();
            let is_shared = connection.lane == Lane::Shared && connection.answered() == 0;
            is_shared && is_needed && !streams.is_answering()
        }
    };
    suspects::ask_again(streams, connection, established_at, lost);
    if is_failure {
        streams.is_unconnected.set(matches!(end, End::NotOpened(_)));
        let (now, chance) = (Instant::now(), pool.random.u16().unwrap_or_default());
        let health = &backend.config.health;
        let was_there = health.is_up() || (streams.answered_at.get().is_some() && !health.is_down());
        let until = match end {
            End::NotOpened(_) => streams.back_off.count_unopened(was_there, chance, now),
            _ => streams.back_off.count(was_there, chance, now),
        };
        if streams.has_none() {
            // A backend that answers over UDP gets queries as before.
            if backend.config.transport != Transport::Udp {
                backend.rest_until(until);
            }
            outage::refuse_waiting(streams);
        }
    }
    streams.look();
}
