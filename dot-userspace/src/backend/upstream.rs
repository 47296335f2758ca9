//! One backend as one worker sees it: queries wait here for a turn, and leave together.
//!
//! Before: `Backends::submit` chose this backend. After: `udp` sends the queue as batches and matches what
//! comes back; `tcp` asks again where a datagram was too small.
//! Never: holds a borrow over an await, or tells a sink twice.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use tokio::{sync::Notify, task::AbortHandle, time::Instant};

use super::{
    flights::Flights,
    mmsg::Inbound,
    port::Port,
    random::Random,
    sink::{Failure, Sink},
};
use crate::{
    dns::{self, Asked, Query},
    ledger::{Counter, WorkerCounters},
};

/// Longest query sent as a datagram; a longer one goes over TCP at once.
const DATAGRAM_QUERY_OCTETS_MAX: usize = 1400;

/// Times a query is sent within its timeout: once, and again for each quarter of it without an answer.
const SENDS_MAX: u32 = 4;

/// A backend, its queries in flight and its ports.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    /// How long a query may take.
    pub timeout: Duration,
    /// Its share.
    pub weight: u16,
    /// How long it rests after nobody was there.
    pub rest: Duration,
    /// Queries in flight.
    pub flights: RefCell<Flights>,
    /// Slots that wait to be sent.
    pub queue: RefCell<Vec<u16>>,
    /// Wakes the sender; the sweeper has its own.
    pub work: Notify,
    /// Wakes the sweeper.
    pub flying: Notify,
    /// Ports in use, each with its receiving task.
    pub ports: RefCell<Vec<(Rc<Port>, AbortHandle)>>,
    /// Ports out of use that still wait for responses.
    pub retired: RefCell<Vec<(Rc<Port>, AbortHandle)>>,
    /// Room for datagrams, shared by all backends of the worker.
    pub inbound: Rc<RefCell<Inbound>>,
    /// IDs.
    pub random: Rc<Random>,
    /// The worker's counters.
    pub counters: WorkerCounters,
    /// Queries on their way over TCP.
    pub over_tcp: Cell<usize>,
    /// The config has changed: when nothing flies any more, the tasks end.
    pub is_ending: Cell<bool>,
    down_until: Cell<Option<Instant>>,
}

impl Upstream {
    /// A backend that nobody has asked yet.
    pub fn new(
        config: &super::UpstreamConfig,
        inbound: Rc<RefCell<Inbound>>,
        random: Rc<Random>,
        counters: WorkerCounters,
    ) -> Self {
        Self {
            address: config.address,
            timeout: config.timeout,
            weight: config.weight.max(1),
            rest: config.rest,
            flights: RefCell::default(),
            queue: RefCell::default(),
            work: Notify::new(),
            flying: Notify::new(),
            ports: RefCell::default(),
            retired: RefCell::default(),
            inbound,
            random,
            counters,
            over_tcp: Cell::new(0),
            is_ending: Cell::new(false),
            down_until: Cell::new(None),
        }
    }

    /// Takes a query; its outcome goes to `sink`.
    ///
    /// # Errors
    /// [`Failure::Full`]: the sink will hear nothing.
    pub fn submit(self: &Rc<Self>, message: &[u8], query: &Query, sink: Rc<dyn Sink>) -> Result<(), Failure> {
        let asked = Asked::by(query);
        let now = Instant::now();
        let deadline = now + self.timeout;
        let mut flights = self.flights.borrow_mut();
        let fill = |octets: &mut Vec<u8>| dns::forward(message, query, 0, octets);
        let slot =
            flights.insert(asked, sink, (deadline, now + self.patience()), fill).ok_or(Failure::Full)?;
        if flights.outstanding() == 1 {
            self.flying.notify_one();
        }
        self.counters.add(Counter::BackendOutstanding, 1);
        // What counts is the length without the client's padding.
        if flights.get(slot).is_some_and(|flight| flight.query.len() > DATAGRAM_QUERY_OCTETS_MAX) {
            drop(flights);
            super::tcp::take_over(self, slot);
        } else {
            self.enqueue(&mut flights, &[slot]);
        }
        Ok(())
    }

    /// Ends `slot` without a response.
    pub fn fail(&self, slot: u16, failure: Failure) {
        let mut flights = self.flights.borrow_mut();
        let Some(sink) = flights.end(slot) else { return };
        self.counters.subtract(Counter::BackendOutstanding, 1);
        self.count_failure(failure);
        // `end` keeps the slot's octets until it is used again.
        if let Some((asked, query)) = flights.ended(slot) {
            sink.failure(asked, query, failure);
        }
    }

    /// How long a datagram may be on its way before it is taken for lost.
    fn patience(&self) -> Duration {
        self.timeout / SENDS_MAX
    }

    /// Sends the query in `slot` again, as it was: same port, same ID, so that the answer to either is believed,
    /// and nobody gets several guesses at one question (RFC 5452 §5).
    pub fn retransmit(&self, slot: u16) {
        let mut flights = self.flights.borrow_mut();
        let Some(flight) = flights.get_mut(slot) else { return };
        let Some((port, _)) = flight.sent.as_ref() else { return };
        // A full buffer is one more lost datagram; the next quarter sends again.
        let _ = port.socket.try_send(&flight.query);
        flight.retransmit = Instant::now() + self.patience();
        self.counters.add(Counter::BackendRetransmitted, 1);
    }

    /// Puts `slots` behind the queue, each once, and wakes the sender.
    pub fn enqueue(&self, flights: &mut Flights, slots: &[u16]) {
        let mut queue = self.queue.borrow_mut();
        queue.extend(slots.iter().filter(|slot| flights.set_queued(**slot, true)));
        self.work.notify_one();
    }

    /// Counts a failure; the one place that does.
    pub fn count_failure(&self, failure: Failure) {
        let counter = match failure {
            Failure::Silent => Counter::BackendTimeout,
            Failure::Unreachable => Counter::BackendUnreachable,
            Failure::Full => Counter::BackendFull,
        };
        self.counters.add(counter, 1);
    }

    /// New queries go elsewhere for a while.
    pub fn rest(&self) {
        self.down_until.set(Some(Instant::now() + self.rest));
    }

    /// Nobody is there: what flies over `port` has failed, and new queries go elsewhere for a while.
    pub fn unreachable(&self, port: &Rc<Port>) {
        self.rest();
        let lost = self
            .flights
            .borrow()
            .find(|flight| flight.sent.as_ref().is_some_and(|(over, _)| Rc::ptr_eq(over, port)));
        for slot in lost {
            self.fail(slot, Failure::Unreachable);
        }
    }

    /// Lets the tasks end once every outcome is with its sink.
    pub fn end(&self) {
        self.is_ending.set(true);
        self.work.notify_one();
        self.flying.notify_one();
    }

    /// Nothing is owed any more, and nothing new will come.
    pub fn is_over(&self) -> bool {
        self.is_ending.get() && self.outstanding() == 0
    }

    /// Whether new queries should go elsewhere.
    pub fn is_resting(&self) -> bool {
        self.down_until.get().is_some_and(|until| Instant::now() < until)
    }

    /// When its rest ends or ended; `None`: it never rested.
    pub fn rests_until(&self) -> Option<Instant> {
        self.down_until.get()
    }

    /// Queries in flight, over UDP and TCP.
    pub fn outstanding(&self) -> usize {
        self.flights.borrow().outstanding() + self.over_tcp.get()
    }
}
