//! Module `backend`: queries leave in batches, each outcome comes back to the session that asked.
//!
//! Before: `dns::triage` said forward. After: a [`Sink`] has a response or a [`Failure`]. Step 8 of 9.
//! The line: [`Backends::submit`] → `pool` chooses by `balance` → `backend` queues → `udp` sends and receives datagrams,
//! or `streams` fills a `connection` → `matching` knows what comes back, or `pool` asks another backend; `hedge` may
//! do so before.
//! Beside it `health` asks, from the control thread, who is there.
//! Never: knows what a session is, changes what a response says, or waits longer than its deadline.

pub mod arrivals;
mod back_off;
mod balance;
mod connection;
mod connection_io;
mod connection_limits;
mod connector;
mod dial;
mod embedded;
mod flights;
pub mod health;
mod hedge;
mod history;
mod ids;
mod latency;
mod matching;
mod outage;
mod outcomes;
mod per_client;
mod pool;
mod random;
mod refusals;
mod retry_budget;
mod shares;
mod silence;
mod sink;
mod streams;
mod subnet;
mod suspects;
#[cfg(test)]
mod tests;
mod transfer;
mod trials;
mod udp;
mod worker_backend;

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

pub use connector::{Connecting, Connector, Tls, Wire};
pub use embedded::Embedded;
use health::Health;
pub use matching::Unmatched;
use pool::Pool;
pub use shares::Shares;
pub use sink::{Broken, Failure, Sink};
pub use transfer::Receiver;

use crate::{
    config::{ClientSubnet, Policy, Transport},
    dns::{Query, Told},
    ledger::{BackendLines, Counter, WorkerCounters},
    proxy::Client,
};

/// One backend, as the workers need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// What status, metrics and log lines call it.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// How it is asked.
    pub transport: Transport,
    /// Its TLS, with [`Transport::Tls`].
    pub tls: Option<Tls>,
    /// It hears for whom a query is.
    pub proxy_v2: bool,
    /// Queries to it over TLS are padded (RFC 8467).
    pub pads: bool,
    /// Most unanswered queries of one worker; 0: no cap.
    pub outstanding_max: usize,
    /// How long a query may take.
    pub timeout: Duration,
    /// Its share.
    pub weight: u16,
    /// How often it is checked, and how long it rests after nobody was there.
    pub health_interval: Duration,
    /// Whether it is there, as [`health::watch`] found.
    pub health: Health,
    /// What workers count of it.
    pub lines: BackendLines,
}

impl BackendConfig {
    /// Whether it is the same backend, asked in the same way: what [`Live`] holds may be another.
    #[must_use]
    pub fn is_same_but_for_limits(&self, other: &Self) -> bool {
        let Live { weight, timeout, outstanding_max, health_interval } = other.live();
        Self { weight, timeout, outstanding_max, health_interval, ..self.clone() } == *other
    }

    /// Whether its answers are those of `other`: the same address, believed for the same reasons.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        let said_by = |one: &Self| (one.address, one.transport, one.tls.clone(), one.proxy_v2);
        said_by(self) == said_by(other)
    }

    /// What of it a reload changes while queries are in flight.
    fn live(&self) -> Live {
        Live {
            weight: self.weight,
            timeout: self.timeout,
            outstanding_max: self.outstanding_max,
            health_interval: self.health_interval,
        }
    }

    /// Queries that it can have in flight from one worker: over connections, as many as those carry.
    fn capacity(&self) -> usize {
        match self.transport {
            Transport::Udp => flights::FLIGHTS_MAX,
            _ => streams::CONNECTIONS_MAX * connection::IN_FLIGHT_MAX,
        }
    }
}

/// What of a backend a reload changes while queries are in flight.
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
}

impl Backends {
    /// Opens nothing yet; starts the tasks that will. Must run on the worker's runtime.
    #[must_use]
    pub fn start(
        configs: &[BackendConfig],
        policy: Policy,
        hedge_percent: u8,
        client_subnet: ClientSubnet,
        counters: &WorkerCounters,
    ) -> Self {
        Self { pool: Pool::start(configs, policy, hedge_percent, client_subnet, counters) }
    }

    /// Sends `message`, which `query` describes, with this turn's batch. The outcome goes to `sink`.
    ///
    /// # Errors
    /// The sink will hear nothing: [`Failure::Full`], or [`Failure::Unreachable`] without a backend.
    pub fn submit(&self, message: &[u8], query: &Query, sink: Rc<dyn Sink>) -> Result<(), Failure> {
        let outcome = self.pool.submit(message, query, sink);
        if outcome.is_ok() {
            self.pool.counters.add(Counter::Forwarded, 1);
        }
        outcome
    }

    /// What a backend is told of the subnet of `client`, who is asked for only where that may be something, with `query`.
    #[must_use]
    pub fn told(&self, query: &Query, client: impl FnOnce() -> Option<Client>) -> Told {
        subnet::of(self.pool.client_subnet, query, client)
    }

    /// What a session and its client may have in flight at the moment, so that no client takes all there is.
    #[must_use]
    pub fn shares(&self) -> Shares {
        self.pool.shares()
    }

    /// What a client may have in flight by UDP, while all have so many there.
    #[must_use]
    pub fn datagram_share(&self, datagrams: usize) -> usize {
        self.pool.datagram_share(datagrams)
    }
}

impl Backends {
    /// Chooses by `policy` from now on, and gives each backend its share and its limits by `configs`, which are the same
    /// backends but for those.
    pub fn reload(&self, policy: Policy, configs: &[BackendConfig]) {
        self.pool.reload(policy, configs);
    }

    /// Has the zone transfer that `message` asks for relayed to `sink`, over a connection of its own.
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

/// Queries in flight still end; then every task and socket of these backends does.
impl Drop for Backends {
    fn drop(&mut self) {
        self.pool.retire();
    }
}
