//! The connections of one worker to one backend: few, shared by all queries, opened when needed.
//!
//! Before: `Backend::enqueue` queued queries. After: a connection with room has them, or they went elsewhere.
//! Holds: the queue and the connections. `back_off` knows how often in a row no connection could be opened,
//! `suspects` has queries that may have closed a connection, `silence` watches connections that do not answer,
//! `per_client` has connections of one client each.
//! Never: opens a second connection while a first is being opened (except to a backend that closes each after a
//! few answers), or opens one sooner than the back-off permits: a backend that comes back gets one attempt from
//! each worker, not all of its queries.
//!
//! Source: RFC 7766 §6.2.2 (few connections), §6.2.4 (retry what a closed connection left unanswered).

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::{AbortHandle, spawn_local},
    time::{Instant, sleep_until},
};

use super::{
    back_off::BackOff,
    connection::{Connection, Lane},
    connection_io::{End, live},
    connection_limits::ConnectionLimits,
    dial::NotOpened,
    flights::Half,
    history::History,
    outage,
    per_client::{self, PerClient},
    refusals::Verdict,
    sink::Failure,
    suspects::{self, Suspects},
    worker_backend::Backend,
};
use crate::{
    config::Transport,
    ledger::{Counter, turn_time},
    supervise::supervise,
};

/// Up to this many connections are opened when all others are busy.
const CONNECTIONS: usize = 2;
/// A connection with this many unanswered queries is busy; below that, one connection batches better than two.
const BUSY: usize = 32;
/// Up to this many connections are opened when all others are full.
pub const CONNECTIONS_MAX: usize = 8;
/// A backend that answered over any connection within this time is up: a connection that it closes is no failure
/// of the backend.
const ANSWERING_FOR: Duration = Duration::from_secs(1);

/// A connection and the task that serves it.
pub type Served = (Rc<Connection>, AbortHandle);

/// The queue and the connections of one backend.
#[derive(Default)]
pub struct Streams {
    queue: RefCell<VecDeque<u16>>,
    /// Wakes the distributor.
    pub work: Notify,
    connections: RefCell<Vec<Served>>,
    /// Queries that may have closed a connection, and the connections for them.
    pub suspects: Suspects,
    /// Connections of one client each; with `proxy_v2` there are no others.
    pub per_client: PerClient,
    /// Limits that follow from what the backend did with connections.
    pub limits: ConnectionLimits,
    /// How long the backend is usually silent before it answers, in eighths of the sweeper's interval.
    pub usual_silence: Cell<u32>,
    /// Time of the last answer over any of them.
    pub answered_at: Cell<Option<Instant>>,
    /// Failures in a row, and what follows from them.
    pub back_off: BackOff,
    /// The last failure was that no connection could be opened.
    pub is_unconnected: Cell<bool>,
    /// The last attempt failed in TLS.
    is_insecure: Cell<bool>,
}

impl Streams {
    /// Queues `slot` for this turn's write.
    pub fn enqueue(&self, slot: u16) {
        self.queue.borrow_mut().push_back(slot);
        self.work.notify_one();
    }

    /// Queues `slot` where a query with this history waits. If each client has its own connections, there are
    /// none for suspects.
    pub fn put_in_line(&self, backend: &Backend, slot: u16, history: &History) {
        match history.is_suspect() && !backend.config.proxy_v2 {
            true => self.suspects.enqueue(slot, history),
            false => self.queue.borrow_mut().push_back(slot),
        }
    }

    /// Wakes the distributor if a query waits.
    pub fn look(&self) {
        if self.is_waiting() {
            self.work.notify_one();
        }
    }

    /// Closes every connection.
    pub fn close(&self) {
        self.connections.take().iter().for_each(|(_, task)| task.abort());
        self.suspects.close();
        self.per_client.close();
    }

    /// Takes the query that has waited longest.
    pub fn next(&self) -> Option<u16> {
        self.queue.borrow_mut().pop_front()
    }

    /// Takes all queries that wait, in every queue.
    pub fn take(&self) -> impl Iterator<Item = u16> + use<> {
        self.queue.take().into_iter().chain(self.suspects.take()).chain(self.per_client.take())
    }

    /// Puts queries that could not be sent yet back, in their order.
    pub fn put_back(&self, slots: Vec<u16>) {
        self.queue.borrow_mut().extend(slots);
    }

    /// Calls `each` with every connection, of every lane.
    pub fn for_each(&self, mut each: impl FnMut(&Rc<Connection>)) {
        self.connections.borrow().iter().for_each(|(connection, _)| each(connection));
        self.suspects.for_each(&mut each);
        self.per_client.for_each(each);
    }

    /// Queries waited long on a connection behind an unanswered one: if the backend answers in order, all
    /// connections carry fewer queries.
    pub fn note_stall(&self, now: Instant) {
        self.limits.note_stall(now);
        self.limit_all();
    }

    /// A connection was not closed after its full number of answers: forgets the rule.
    pub fn forget_quota(&self) {
        self.limits.forget_quota();
        self.limit_all();
    }

    fn limit_all(&self) {
        let (depth, quota) = (self.limits.depth(), self.limits.quota());
        self.connections.borrow().iter().for_each(|(connection, _)| connection.limit(depth, quota));
    }

    /// A connection was established.
    pub fn opened(&self) {
        self.is_insecure.set(false);
        self.look();
    }

    /// Whether the last attempt failed in TLS.
    pub fn is_insecure(&self) -> bool {
        self.is_insecure.get()
    }

    /// Whether the backend has answered over some connection a moment ago.
    pub fn is_answering(&self) -> bool {
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
    pub fn must_back_off(&self, is_up: bool) -> bool {
        let is_there = self.is_answering() || (is_up && !self.is_unconnected.get());
        !is_there && self.backs_off_until().is_some()
    }

    /// When the next connection may be opened, if not now.
    pub fn backs_off_until(&self) -> Option<Instant> {
        self.back_off.until(Instant::now())
    }

    fn is_waiting(&self) -> bool {
        !self.queue.borrow().is_empty() || self.suspects.is_waiting() || self.per_client.is_waiting()
    }

    /// Whether there is no connection at all.
    pub fn has_none(&self) -> bool {
        self.connections.borrow().is_empty() && self.suspects.has_none() && self.per_client.is_empty()
    }
}

/// Starts the distributor of `backend`.
pub fn start(backend: &Rc<Backend>) -> AbortHandle {
    let backend = Rc::clone(backend);
    spawn_local(supervise("distributor", move || distribute(Rc::clone(&backend)))).abort_handle()
}

/// Runs after all that queued queries in this turn.
async fn distribute(backend: Rc<Backend>) {
    let streams = &backend.streams;
    loop {
        match streams.backs_off_until().filter(|_| streams.is_waiting()) {
            Some(until) => {
                tokio::select! {
                    () = streams.work.notified() => {}
                    () = sleep_until(until) => {}
                }
            }
            None => streams.work.notified().await,
        }
        hand_out(&backend);
    }
}

/// Gives waiting queries to connections with room, a whole turn to one connection if it fits.
fn hand_out(backend: &Rc<Backend>) {
    turn_time::begin(Instant::now());
    let streams = &backend.streams;
    if backend.config.proxy_v2 {
        per_client::hand_out(backend);
    } else {
        share_out(backend);
        suspects::hand_out(backend);
    }
    if streams.is_waiting() && streams.has_none() && streams.backs_off_until().is_some() {
        outage::refuse_waiting(backend);
    }
}

fn share_out(backend: &Rc<Backend>) {
    let streams = &backend.streams;
    while !streams.queue.borrow().is_empty() {
        let Some(connection) = streams.idlest() else { break };
        fill(backend, &connection);
        connection.wake();
    }
    if streams.backs_off_until().is_none() {
        open_others(backend);
    }
}

/// Moves queries from the queue to `connection` until the queue is empty or the connection full.
fn fill(backend: &Backend, connection: &Connection) {
    let (pool, streams) = (&backend.pool, &backend.streams);
    while connection.has_room() {
        let Some(slot) = streams.next() else { return };
        let verdict = {
            let flights = pool.flights.borrow();
            let waiting = flights.get(slot).filter(|flight| flight.waits_at(backend.index, Half::Stream));
            // Otherwise it ended, or moved to another backend, while it waited.
            let Some(flight) = waiting else { continue };
            streams.suspects.refusals.judge(flight)
        };
        match verdict {
            Verdict::Unknown => connection.give(backend, slot),
            Verdict::Apart | Verdict::ApartByName => {
                if !suspects::set_apart(backend, slot, verdict == Verdict::ApartByName) {
                    connection.give(backend, slot);
                }
            }
            Verdict::Refused => pool.try_elsewhere(slot, Failure::Harmful),
        }
    }
}

/// Opens connections if they are needed: there is none, there are too few for the waiting queries, or all are
/// full.
fn open_others(backend: &Rc<Backend>) {
    let streams = &backend.streams;
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
    let waiting = streams.queue.borrow().len();
    while connections.len() < CONNECTIONS_MAX && opening < limits.opening_max(waiting) {
        let is_wanted = if count > 0 && count < early { are_busy } else { waiting > 0 };
        if !is_wanted {
            return;
        }
        let connection = Rc::new(Connection::of(Lane::Shared));
        connection.limit(limits.depth(), limits.quota());
        let task = spawn_local(live(Rc::clone(backend), Rc::clone(&connection)));
        connections.push((connection, task.abort_handle()));
        (opening, count) = (opening + 1, count + 1);
    }
}

/// `connection`, established at `established_at`, is over. Its unanswered queries are asked again, or go to
/// another backend.
pub fn ended(backend: &Rc<Backend>, connection: &Rc<Connection>, established_at: Option<Instant>, end: &End) {
    let (streams, pool) = (&backend.streams, &backend.pool);
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
            streams.is_insecure.set(matches!(error, NotOpened::NotSecure(_)));
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
    suspects::ask_again(backend, connection, established_at, lost);
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
            outage::refuse_waiting(backend);
        }
    }
    streams.look();
}
