//! One backend as one worker sees it: queries wait here for the end of a turn, and leave together.
//!
//! Before: `pool` chose this backend. After: `udp` or `stream` sends the queue.
//! Holds: its queues, its number of queries, what was learned about it, and until when it rests.
//! Never: knows a socket, or holds a borrow over an await.

use std::{cell::Cell, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    BackendConfig, Live,
    flights::Half,
    hedge::{Hedging, Pace},
    outcomes::Outcomes,
    queue::Queue,
    refusals::Refusals,
    retry_budget::RetryBudget,
};
use crate::{
    config::{OnTlsFailure, Transport},
    ledger::{BackendLine, Counter, Traffic, WorkerCounters},
    proxy::header,
};

/// Longest query sent as a datagram; a longer one goes over a connection.
const DATAGRAM_QUERY_OCTETS_MAX: usize = 1400;

/// A query's deadline has this many shares; a backend that is silent for one share may lose the query.
const SHARES: u32 = 4;

/// A backend and its queues.
pub struct Backend {
    /// Its settings.
    pub config: BackendConfig,
    /// Its index among the backends.
    pub index: usize,
    /// Queries that wait to be sent by UDP.
    pub datagram_queue: Queue,
    /// Queries that wait for a connection.
    pub stream_queue: Queue,
    /// How long it usually takes.
    pub pace: Pace,
    /// The second tries that are left.
    pub retries: RetryBudget,
    /// Its weight and limits; a reload replaces those in `config`.
    pub live: Cell<Live>,
    /// The part of its queries that it answered lately.
    pub outcomes: Outcomes,
    /// Which queries are refused or kept apart, because connections closed on them.
    pub refusals: Refusals,
    /// The last attempt to open a connection failed in TLS.
    pub is_insecure: Cell<bool>,
    /// This worker's counters for it.
    pub line: Arc<BackendLine>,
    counters: WorkerCounters,
    /// It is set aside until then, because others answer what it does not.
    aside_until: Cell<Option<Instant>>,
    outstanding: Cell<usize>,
    rests_until: Cell<Option<Instant>>,
}

impl Backend {
    /// A backend without queries.
    pub fn new(config: &BackendConfig, index: usize, hedging: &Hedging, counters: &WorkerCounters) -> Self {
        Self {
            config: config.clone(),
            index,
            datagram_queue: Queue::default(),
            stream_queue: Queue::default(),
            pace: Pace::new(hedging),
            retries: RetryBudget::default(),
            live: Cell::new(config.live()),
            outcomes: Outcomes::default(),
            refusals: Refusals::default(),
            is_insecure: Cell::new(false),
            line: config.lines.open(),
            counters: counters.clone(),
            aside_until: Cell::new(None),
            outstanding: Cell::new(0),
            rests_until: Cell::new(None),
        }
    }

    /// The transport for a query of this length.
    pub fn half_for(&self, query_octets: usize) -> Half {
        match self.config.transport {
            Transport::Udp if self.datagram_octets(query_octets) <= DATAGRAM_QUERY_OCTETS_MAX => {
                Half::Datagram
            }
            Transport::Udp | Transport::Tcp | Transport::Tls => Half::Stream,
        }
    }

    /// Longest datagram that a query of this length becomes.
    pub fn datagram_octets(&self, query_octets: usize) -> usize {
        query_octets + if self.config.proxy_v2 { header::WRITTEN_OCTETS_MAX } else { 0 }
    }

    /// Queues `slot`; queries that are queued in one turn leave together.
    pub fn enqueue(&self, slot: u16, half: Half) {
        match half {
            Half::Datagram => self.datagram_queue.push(slot),
            Half::Stream => self.stream_queue.push(slot),
        }
    }

    /// How long a query may take.
    pub fn timeout(&self) -> Duration {
        self.live.get().timeout
    }

    /// How long it may be silent about a query before another backend is asked.
    pub fn patience(&self) -> Duration {
        self.timeout() / SHARES
    }

    /// New queries go elsewhere for a while, if there is another backend.
    pub fn rest(&self) {
        self.rest_until(Instant::now() + self.live.get().health_interval);
    }

    /// New queries go elsewhere until `until`, if there is another backend.
    pub fn rest_until(&self, until: Instant) {
        self.rests_until.set(Some(until));
    }

    /// New queries go elsewhere for one interval of checks, if there is another backend, even if this one answers
    /// meanwhile.
    pub fn set_aside(&self, now: Instant) {
        tracing::debug!(backend = %self.config.name, "answers few of its queries, and others do: set aside");
        self.aside_until.set(Some(now + self.live.get().health_interval));
        self.counters.add(Counter::BackendSetAside, 1);
    }

    /// It answers: ends its rest.
    pub fn wake(&self) {
        self.rests_until.set(None);
    }

    /// Whether it may get new queries: it is not known to be down, and it does not rest.
    ///
    /// A backend that must not be replaced when its TLS fails stays awake: its queries must fail, and not go
    /// elsewhere.
    pub fn is_awake(&self) -> bool {
        if self.is_insecure.get() && self.refuses_without_tls() {
            return true;
        }
        if self.config.stands_in.as_ref().is_some_and(|memory| !memory.may_speak_clear()) {
            return false;
        }
        let is_over = |until: &Cell<Option<Instant>>| until.get().is_none_or(|until| until <= Instant::now());
        // An operator drains it: it is asked only if no other can be.
        if self.live.get().weight == 0 {
            return false;
        }
        !self.config.health.is_down() && is_over(&self.rests_until) && is_over(&self.aside_until)
    }

    /// Whether it stands in, in clear, for a backend whose TLS fails.
    pub fn is_stand_in(&self) -> bool {
        self.config.stands_in.is_some()
    }

    /// `on_tls_failure = "refuse"`.
    pub fn refuses_without_tls(&self) -> bool {
        self.config.tls.as_ref().is_some_and(|tls| tls.on_failure == OnTlsFailure::Refuse)
    }

    /// Its bit among the tried backends. Of more than 64 backends some share a bit, and count as tried together.
    pub fn bit(&self) -> u64 {
        1 << (self.index % 64)
    }

    /// A query went elsewhere, or failed, because no answer came.
    pub fn note_loss(&self) {
        self.outcomes.note_loss();
        self.line.count(Traffic::Lost);
    }

    /// Counts one query or transfer more.
    pub fn begin(&self) {
        if self.is_stand_in() {
            self.counters.add(Counter::BackendInClear, 1);
        }
        self.line.count(Traffic::Asked);
        self.outstanding.set(self.outstanding.get() + 1);
    }

    /// Counts one query fewer.
    pub fn finish(&self) {
        self.outstanding.set(self.outstanding.get().saturating_sub(1));
    }

    /// Its queries, over UDP and connections.
    pub fn outstanding(&self) -> usize {
        self.outstanding.get()
    }

    /// Whether it may have another query.
    pub fn has_room(&self) -> bool {
        let max = self.live.get().outstanding_max;
        max == 0 || self.outstanding() < max
    }
}
