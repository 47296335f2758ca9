//! Module `backend`: queries leave in batches, each outcome comes back to the session that asked.
//!
//! Before: `dns::triage` said forward. After: a [`Sink`] has a response or a [`Failure`]. Step 8 of 9.
//! The path: [`Backends::submit`] → `pool` chooses by `balance` → `worker_backend` queues → `udp` sends and
//! receives datagrams, or `stream` fills a connection → `matching` finds the query of a response, and `ending` gives it to
//! its sink; without a response `pool` asks another backend, and `second_tries` may do so earlier.
//! Layers: `flights`, `ids`, `queue` ← `worker_backend` ← `roster` ← `pool` with `ending`, `matching`, `second_tries` ← `udp`,
//! `stream` ← `sweep`, which starts and ends their tasks. Each calls only those before it.
//! Besides, `health` checks from the control thread which backends answer, by one question each (`probe`).
//! Never: knows what a session is, changes what a response says, or waits longer than its deadline.

pub mod arrivals;
mod balance;
mod connector;
mod dial;
mod embedded;
mod ending;
mod flights;
pub mod health;
mod hedge;
mod history;
mod ids;
mod latency;
mod lookup;
mod matching;
mod outcomes;
mod pool;
mod probe;
mod queue;
mod random;
mod refusals;
mod retry_budget;
mod roster;
mod second_tries;
mod shares;
mod sink;
mod stream;
mod subnet;
mod sweep;
mod tapped;
#[cfg(test)]
mod tests;
mod tls_memory;
mod transfer;
mod udp;
mod worker_backend;

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

pub use connector::{Connecting, Connector, Tls, Wire};
pub use dial::NotOpened;
pub use embedded::Embedded;
use health::Health;
pub use lookup::lookup;
pub use matching::Unmatched;
use pool::Pool;
pub use probe::{Missed, ask, probe};
pub use shares::Shares;
pub use sink::{Broken, Failure, Sink};
use sweep::Tasks;
pub use tls_memory::{Remembered, TlsMemory};
pub use transfer::Receiver;

use crate::{
    config::{ClientSubnet, Policy, Transport, limit},
    dns::{Query, Told},
    ledger::{BackendLines, Counter, WorkerCounters},
    proxy::Client,
};

/// One backend, as the workers need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// Its name in status, metrics and log lines.
    pub name: Arc<str>,
    /// Its address.
    pub address: SocketAddr,
    /// The transport of queries to it.
    pub transport: Transport,
    /// Its TLS settings, with [`Transport::Tls`].
    pub tls: Option<Tls>,
    /// It stands in for a backend whose TLS fails, in clear, and is asked while this memory permits it and no other backend
    /// can be asked.
    pub stands_in: Option<TlsMemory>,
    /// It learns the client of a query from a PROXY header.
    pub proxy_v2: bool,
    /// Queries to it over TLS are padded (RFC 8467).
    pub pads: bool,
    /// Most unanswered queries of one worker; 0: no cap.
    pub outstanding_max: usize,
    /// Timeout of a query.
    pub timeout: Duration,
    /// Its weight.
    pub weight: u16,
    /// Interval of its health checks, and how long it rests after it could not be reached.
    pub health_interval: Duration,
    /// Its state, as [`health::watch`] finds it.
    pub health: Health,
    /// The workers' counters for it.
    pub lines: BackendLines,
}

impl BackendConfig {
    /// A backend that is asked by UDP, with a weight of one and no cap.
    #[must_use]
    pub fn over_udp(name: String, address: SocketAddr, timeout: Duration) -> Self {
        Self {
            name: name.into(),
            address,
            transport: Transport::Udp,
            tls: None,
            stands_in: None,
            proxy_v2: false,
            pads: false,
            outstanding_max: 0,
            timeout,
            weight: 1,
            health_interval: limit::HEALTH_INTERVAL.default,
            health: Health::default(),
            lines: BackendLines::default(),
        }
    }

    /// Whether it is the same backend, asked in the same way; only the values in [`Live`] may differ.
    #[must_use]
    pub fn is_same_but_for_limits(&self, other: &Self) -> bool {
        let Live { weight, timeout, outstanding_max, health_interval } = other.live();
        Self { weight, timeout, outstanding_max, health_interval, ..self.clone() } == *other
    }

    /// Whether its answers may stand for those of `other`: the same address, authenticated in the same way.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        let said_by = |one: &Self| (one.address, one.transport, one.tls.clone(), one.proxy_v2);
        said_by(self) == said_by(other)
    }

    /// The values that a reload changes while queries are in flight.
    fn live(&self) -> Live {
        Live {
            weight: self.weight,
            timeout: self.timeout,
            outstanding_max: self.outstanding_max,
            health_interval: self.health_interval,
        }
    }

    /// Queries that one worker can have in flight at it; over connections, as many as these carry.
    fn capacity(&self) -> usize {
        match self.transport {
            Transport::Udp => flights::FLIGHTS_MAX,
            _ => stream::CAPACITY,
        }
    }
}

/// The values of a backend that a reload changes while queries are in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Live {
    weight: u16,
    timeout: Duration,
    outstanding_max: usize,
    health_interval: Duration,
}

/// All backends of one worker.
pub struct Backends {
    pool: Rc<Pool>,
    tasks: Rc<Tasks>,
}

impl Backends {
    /// Starts the tasks of each backend; opens no socket yet. Must run on the worker's runtime.
    #[must_use]
    pub fn start(
        configs: &[BackendConfig],
        policy: Policy,
        hedge_percent: u8,
        client_subnet: ClientSubnet,
        counters: &WorkerCounters,
    ) -> Self {
        let pool = Pool::new(configs, policy, hedge_percent, client_subnet, counters);
        let tasks = sweep::start(&pool);
        Self { pool, tasks }
    }

    /// Sends `message`, which `query` describes, with this turn's batch. The outcome goes to `sink`.
    ///
    /// # Errors
    /// The sink gets no outcome: [`Failure::Full`], or [`Failure::Unreachable`] without a backend.
    pub fn submit(&self, message: &[u8], query: &Query, sink: Rc<dyn Sink>) -> Result<(), Failure> {
        let outcome = self.pool.submit(message, query, sink);
        if outcome.is_ok() {
            self.pool.counters.add(Counter::Forwarded, 1);
        }
        outcome
    }

    /// What a backend learns of the subnet of `client` with `query`. `client` is called only if that may be
    /// anything.
    #[must_use]
    pub fn told(&self, query: &Query, client: impl FnOnce() -> Option<Client>) -> Told {
        subnet::of(self.pool.client_subnet, query, client)
    }

    /// Whether a backend learns who its clients are.
    #[must_use]
    pub fn learn_clients(&self) -> bool {
        self.pool.roster.borrow().asked().iter().any(|backend| backend.config.proxy_v2)
    }

    /// How many queries a session and its client may have in flight now, so that no client takes them all.
    #[must_use]
    pub fn shares(&self) -> Shares {
        self.pool.shares()
    }

    /// How many queries a client may have in flight by UDP, while all clients together have `datagrams`.
    #[must_use]
    pub fn datagram_share(&self, datagrams: usize) -> usize {
        self.pool.datagram_share(datagrams)
    }
}

impl Backends {
    /// Chooses by `policy` from now on, and gives each backend its weight and limits from `configs`, which name
    /// the same backends.
    pub fn reload(&self, policy: Policy, configs: &[BackendConfig]) {
        self.pool.reload(policy, configs);
    }

    /// Asks the backends of `configs` from now on. One that is the same but for its limits keeps its connections and what is known of
    /// it; queries in flight at those that leave end there. `false`, and nothing changes: all have to be started anew.
    #[must_use]
    pub fn replace(&self, configs: &[BackendConfig]) -> bool {
        let made = self.pool.replace(configs);
        made.iter().flatten().for_each(|backend| self.tasks.begin(backend));
        made.is_some()
    }

    /// Relays the zone transfer that `message` asks for to `sink`, over a connection of its own.
    ///
    /// # Errors
    /// As [`Backends::submit`].
    pub fn transfer(&self, message: &[u8], query: &Query, sink: Rc<dyn Receiver>) -> Result<(), Failure> {
        let outcome = transfer::begin(&self.pool, message, query, sink);
        if outcome.is_ok() {
            self.pool.counters.add(Counter::Forwarded, 1);
        }
        outcome
    }
}

/// Queries in flight still end; then every task and socket of these backends ends.
impl Drop for Backends {
    fn drop(&mut self) {
        self.pool.retire();
    }
}
