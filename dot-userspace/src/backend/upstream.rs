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
        if message.len() > DATAGRAM_QUERY_OCTETS_MAX {
            let mut octets = Vec::new();
            dns::forward(message, query, self.random.u16().ok_or(Failure::Full)?, &mut octets);
            return super::tcp::ask(self, super::tcp::Stray { query: octets, asked, sink, deadline });
        }
        let mut flights = self.flights.borrow_mut();
        let fill = |octets: &mut Vec<u8>| dns::forward(message, query, 0, octets);
        let slot =
            flights.insert(asked, sink, (deadline, now + self.patience()), fill).ok_or(Failure::Full)?;
        if flights.outstanding() == 1 {
            self.flying.notify_one();
        }
        self.counters.add(Counter::BackendOutstanding, 1);
        self.enqueue(slot);
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

    /// Sends the query in `slot` again, under a new ID; a late answer to the old one is no longer believed.
    pub fn retransmit(&self, slot: u16) {
        let mut flights = self.flights.borrow_mut();
        let Some(flight) = flights.get_mut(slot) else { return };
        let Some((port, id)) = flight.sent.take() else { return };
        port.release(id);
        flight.retransmit = Instant::now() + self.patience();
        self.counters.add(Counter::BackendRetransmitted, 1);
        self.enqueue(slot);
    }

    fn enqueue(&self, slot: u16) {
        let mut queue = self.queue.borrow_mut();
        if queue.is_empty() {
            self.work.notify_one();
        }
        queue.push(slot);
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

    /// Nobody is there: what flies over `port` has failed, and new queries go elsewhere for a while.
    pub fn unreachable(&self, port: &Rc<Port>) {
        self.down_until.set(Some(Instant::now() + self.rest));
        let lost = self
            .flights
            .borrow()
            .find(|flight| flight.sent.as_ref().is_some_and(|(over, _)| Rc::ptr_eq(over, port)));
        for slot in lost {
            self.fail(slot, Failure::Unreachable);
        }
    }

    /// Whether new queries should go elsewhere.
    pub fn is_resting(&self) -> bool {
        self.down_until.get().is_some_and(|until| Instant::now() < until)
    }

    /// Queries in flight, over UDP and TCP.
    pub fn outstanding(&self) -> usize {
        self.flights.borrow().outstanding() + self.over_tcp.get()
    }
}
