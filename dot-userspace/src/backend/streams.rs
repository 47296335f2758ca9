//! The connections of one worker to one backend: few, shared by all queries, opened when needed.
//!
//! Before: `Upstream::enqueue` queued queries. After: a connection with room has them, or they went elsewhere.
//! Holds: the queue, the connections, how often opening one has failed in a row.
//! Never: opens a second connection while a first is being opened, or one sooner than the back-off permits:
//! a backend that comes back meets one attempt a worker, not all of its queries.
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
    connection::{Connection, End, live},
    dial::NotOpened,
    flights::Half,
    personal::{self, Personal},
    random::Random,
    sink::Failure,
    upstream::Upstream,
};
use crate::{config::Transport, ledger::Counter, vital::vital};

/// Connections that are opened as soon as those before are busy.
const CONNECTIONS: usize = 2;
/// Unanswered queries at which a connection is busy: below, one connection batches better than two.
const BUSY: usize = 32;
/// Connections at most, when all are full.
pub const CONNECTIONS_MAX: usize = 8;
/// Failures in a row for which queries wait through the back-off, when no other backend is there: a server
/// that restarts is back within them. After that they fail at once.
const PATIENT_FAILURES: u32 = 3;
/// Back-off after the first failure; it doubles with each…
const BACK_OFF_MIN: Duration = Duration::from_millis(25);
/// …up to this: a backend that is back is found within a second.
const BACK_OFF_MAX: Duration = Duration::from_millis(800);

/// The queue and the connections of one backend.
#[derive(Default)]
pub struct Streams {
    queue: RefCell<VecDeque<u16>>,
    /// Wakes the distributor.
    pub work: Notify,
    connections: RefCell<Vec<(Rc<Connection>, AbortHandle)>>,
    /// Connections of one client each; with `proxy_v2` all are.
    pub personal: Personal,
    failures: Cell<u32>,
    /// The last attempt failed for want of TLS.
    is_insecure: Cell<bool>,
    not_before: Cell<Option<Instant>>,
}

impl Streams {
    /// Queues `slot` for this turn's write.
    pub fn enqueue(&self, slot: u16) {
        self.queue.borrow_mut().push_back(slot);
        self.work.notify_one();
    }

    /// Has the distributor look again, should anything wait.
    pub fn look(&self) {
        if !self.queue.borrow().is_empty() {
            self.work.notify_one();
        }
    }

    /// Closes every connection.
    pub fn close(&self) {
        self.connections.take().iter().for_each(|(_, task)| task.abort());
        self.personal.close();
    }

    /// Takes the query that has waited longest.
    pub fn next(&self) -> Option<u16> {
        self.queue.borrow_mut().pop_front()
    }

    /// What could not go yet waits on, in its order.
    pub fn put_back(&self, slots: Vec<u16>) {
        self.queue.borrow_mut().extend(slots);
    }

    /// A connection can be used from now on.
    pub fn opened(&self) {
        self.is_insecure.set(false);
        self.look();
    }

    /// Whether it was there when last asked, and was not who it must be.
    pub fn is_insecure(&self) -> bool {
        self.is_insecure.get()
    }

    /// The connection with the fewest unanswered queries that has room for another.
    fn idlest(&self) -> Option<Rc<Connection>> {
        let connections = self.connections.borrow();
        let able = connections.iter().map(|(connection, _)| connection).filter(|one| one.has_room());
        able.min_by_key(|connection| connection.ids.outstanding()).map(Rc::clone)
    }

    /// When the next connection may be opened, if not now.
    pub fn backs_off_until(&self) -> Option<Instant> {
        self.not_before.get().filter(|until| Instant::now() < *until)
    }

    fn is_waiting(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    fn has_none(&self) -> bool {
        self.connections.borrow().is_empty() && self.personal.is_empty()
    }

    /// One more failure in a row; returns until when no connection is opened.
    fn count_failure(&self, random: &Random) -> Instant {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        let until = Instant::now() + back_off(failures, random.u16().unwrap_or_default());
        self.not_before.set(Some(until));
        until
    }

    /// A connection has given its first answer: the backend is there.
    pub fn forget_failures(&self) {
        self.failures.set(0);
        self.not_before.set(None);
    }
}

/// How long no connection is opened after so many failures in a row. Up to a quarter of it is left to
/// chance, so that workers do not come back all at once.
fn back_off(failures: u32, chance: u16) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = BACK_OFF_MIN.saturating_mul(1 << doublings).min(BACK_OFF_MAX);
    whole - whole.mul_f64(f64::from(chance) / f64::from(u16::MAX) / 4.0)
}

/// Starts the distributor of `upstream`.
pub fn start(upstream: &Rc<Upstream>) -> AbortHandle {
    let upstream = Rc::clone(upstream);
    spawn_local(vital("distributor", move || distribute(Rc::clone(&upstream)))).abort_handle()
}

/// Runs after all that queued queries in this turn.
async fn distribute(upstream: Rc<Upstream>) {
    let streams = &upstream.streams;
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
        hand_out(&upstream);
    }
}

/// Gives what waits to connections with room, the whole turn to one of them if it fits.
fn hand_out(upstream: &Rc<Upstream>) {
    let streams = &upstream.streams;
    if upstream.config.proxy_v2 {
        personal::hand_out(upstream);
        if streams.backs_off_until().is_some() && streams.is_waiting() && streams.has_none() {
            refuse_waiting(upstream);
        }
        return;
    }
    while streams.is_waiting() {
        let Some(connection) = streams.idlest() else { break };
        fill(upstream, &connection);
        connection.wake();
    }
    if streams.backs_off_until().is_none() {
        open_another(upstream);
    } else if streams.is_waiting() && streams.connections.borrow().is_empty() {
        refuse_waiting(upstream);
    }
}

/// Moves queries from the queue to `connection` while both last.
fn fill(upstream: &Upstream, connection: &Connection) {
    let fleet = &upstream.fleet;
    while connection.has_room() {
        let Some(slot) = upstream.streams.next() else { return };
        let mut flights = fleet.flights.borrow_mut();
        let waiting = flights.get_mut(slot).filter(|flight| flight.waits_at(upstream.index, Half::Stream));
        // Otherwise it ended, or moved to another backend, while it waited.
        let Some(flight) = waiting else { continue };
        if flight.send_over(slot, &connection.ids, &fleet.random)
            && connection.push(flight, upstream.config.pads)
        {
            fleet.counters.add(Counter::BackendStreamSent, 1);
        } else {
            drop(flights);
            fleet.try_elsewhere(slot, Failure::Full);
        }
    }
}

/// Opens a connection where one is missing: none is there, too few for what is to do, or all are full.
fn open_another(upstream: &Rc<Upstream>) {
    let streams = &upstream.streams;
    let mut connections = streams.connections.borrow_mut();
    if connections.iter().any(|(connection, _)| !connection.is_established()) {
        return;
    }
    let are_busy = connections.iter().all(|(connection, _)| connection.ids.outstanding() >= BUSY);
    let wanted = match connections.len() {
        0 => streams.is_waiting(),
        count if count < CONNECTIONS => are_busy,
        count => count < CONNECTIONS_MAX && streams.is_waiting(),
    };
    if wanted {
        let connection = Rc::new(Connection::default());
        let task = spawn_local(live(Rc::clone(upstream), Rc::clone(&connection)));
        connections.push((connection, task.abort_handle()));
    }
}

/// `connection` is over: what it left unanswered is tried once more over another one, or goes elsewhere.
pub fn ended(upstream: &Rc<Upstream>, connection: &Rc<Connection>, end: &End) {
    let (streams, fleet) = (&upstream.streams, &upstream.fleet);
    tracing::debug!(%end, backend = %upstream.config.address, "a connection to a backend has ended");
    streams.connections.borrow_mut().retain(|(one, _)| !Rc::ptr_eq(one, connection));
    streams.personal.forget(connection);
    let is_not_opened = matches!(end, End::NotOpened(_));
    if let End::NotOpened(error) = end {
        streams.is_insecure.set(matches!(error, NotOpened::NotSecure(_)));
    }
    let lost = fleet.flights.borrow().find(|flight| flight.is_over(&connection.ids));
    let counter = match end {
        End::NotOpened(NotOpened::Unconnected(_)) => Some(Counter::BackendConnectFailed),
        End::NotOpened(NotOpened::NotSecure(_)) => Some(Counter::BackendTlsFailed),
        End::Broken(_) => Some(Counter::BackendStreamBroken),
        End::Closed | End::Failed(_) | End::Idle => None,
    };
    counter.into_iter().for_each(|counter| fleet.counters.add(counter, 1));
    let is_needed = !lost.is_empty() || streams.is_waiting();
    lost.into_iter().for_each(|slot| retry(upstream, slot));
    // One client's connection that was closed says nothing about others': a backend may refuse that client.
    let is_failure = if upstream.config.proxy_v2 { is_not_opened } else { is_needed || is_not_opened };
    if !connection.has_answered() && is_failure {
        let until = streams.count_failure(&fleet.random);
        if streams.has_none() {
            // A backend that answers over UDP may be asked on.
            if upstream.config.transport != Transport::Udp {
                upstream.rest_until(until);
            }
            refuse_waiting(upstream);
        }
    }
    streams.look();
}

/// Queues again, once, what was in flight over a connection that is gone.
fn retry(upstream: &Upstream, slot: u16) {
    let mut flights = upstream.fleet.flights.borrow_mut();
    let Some(flight) = flights.get_mut(slot) else { return };
    flight.take_back();
    if flight.is_retried {
        drop(flights);
        return upstream.fleet.try_elsewhere(slot, Failure::Unreachable);
    }
    flight.is_retried = true;
    drop(flights);
    upstream.fleet.counters.add(Counter::BackendRetried, 1);
    upstream.streams.enqueue(slot);
}

/// There is no connection, and none can be opened now: what waits goes to other backends. Where there is
/// none it waits on through the first failures, and fails after them.
fn refuse_waiting(upstream: &Upstream) {
    let streams = &upstream.streams;
    let is_refused = streams.is_insecure() && upstream.refuses_without_tls();
    // Who is somebody else now, will be so in a moment.
    let is_patient = streams.failures.get() <= PATIENT_FAILURES && !streams.is_insecure();
    let failure = if streams.is_insecure() { Failure::NotSecure } else { Failure::Unreachable };
    let waiting = streams.queue.take();
    for slot in waiting {
        let waits = upstream
            .fleet
            .flights
            .borrow()
            .get(slot)
            .is_some_and(|flight| flight.waits_at(upstream.index, Half::Stream));
        if !waits || (!is_refused && upstream.fleet.moved(slot)) {
            continue;
        }
        if is_patient {
            streams.queue.borrow_mut().push_back(slot);
        } else {
            upstream.fleet.give_up(slot, failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: attempts thin out, never beyond a second, and spread. Method: every failure count, both ends of
    /// chance.
    #[test]
    fn back_off_doubles_is_bounded_and_spreads() {
        for failures in 1..100 {
            let (longest, shortest) = (back_off(failures, 0), back_off(failures, u16::MAX));
            let expected = BACK_OFF_MIN.saturating_mul(1 << (failures - 1).min(16)).min(BACK_OFF_MAX);
            assert_eq!(longest, expected);
            assert_eq!(shortest, expected * 3 / 4);
            assert!(longest < Duration::from_secs(1));
        }
    }
}
