//! One backend as one worker sees it: queries wait here for the end of a turn, and leave together.
//!
//! Before: `pool` chose this backend. After: `udp` or `streams` sends the queue and matches what comes back.
//! Holds: its queues and sockets, its number of queries, and until when it rests.
//! Never: holds a borrow over an await.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use tokio::{task::AbortHandle, time::Instant};

use super::{
    BackendConfig, Live,
    flights::Half,
    hedge::Pace,
    ids::Ids,
    outcomes::Outcomes,
    pool::Pool,
    retry_budget::RetryBudget,
    silence,
    sink::Failure,
    streams::{self, Streams},
    udp::{self, Datagrams},
};
use crate::{
    config::{OnTlsFailure, Transport},
    ledger::{BackendLine, Counter, Traffic},
    proxy::header,
};

/// Longest query sent as a datagram; a longer one goes over a connection.
const DATAGRAM_QUERY_OCTETS_MAX: usize = 1400;

/// A query's deadline has this many shares; a backend that is silent for one share may lose the query.
const SHARES: u32 = 4;

/// A backend, its queues and its sockets.
pub struct Backend {
    /// Its settings.
    pub config: BackendConfig,
    /// Its index among the backends.
    pub index: usize,
    /// All backends and their queries.
    pub pool: Rc<Pool>,
    /// Queues and sockets for UDP.
    pub datagrams: Datagrams,
    /// Queues and connections.
    pub streams: Streams,
    /// How long it usually takes.
    pub pace: Pace,
    /// The second tries that are left.
    pub retries: RetryBudget,
    /// Its weight and limits; a reload replaces those in `config`.
    pub live: Cell<Live>,
    /// The part of its queries that it answered lately.
    pub outcomes: Outcomes,
    /// This worker's counters for it.
    pub line: Arc<BackendLine>,
    /// It is set aside until then, because others answer what it does not.
    aside_until: Cell<Option<Instant>>,
    outstanding: Cell<usize>,
    rests_until: Cell<Option<Instant>>,
}

impl Backend {
    /// A backend without queries.
    pub fn new(config: &BackendConfig, index: usize, pool: Rc<Pool>) -> Self {
        Self {
            config: config.clone(),
            index,
            pace: Pace::new(&pool.hedging),
            pool,
            datagrams: Datagrams::default(),
            streams: Streams::default(),
            retries: RetryBudget::default(),
            live: Cell::new(config.live()),
            outcomes: Outcomes::default(),
            line: config.lines.open(),
            aside_until: Cell::new(None),
            outstanding: Cell::new(0),
            rests_until: Cell::new(None),
        }
    }

    /// Starts its tasks. They end with the worker's runtime, or by these handles.
    pub fn start(self: &Rc<Self>) -> [AbortHandle; 2] {
        [udp::start(self), streams::start(self)]
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
            Half::Datagram => self.datagrams.enqueue(slot),
            Half::Stream => self.streams.enqueue(slot),
        }
    }

    /// Asks the query in `slot` over a connection, and not as a datagram any more.
    pub fn ask_by_stream(&self, slot: u16) {
        if let Some(flight) = self.pool.flights.borrow_mut().get_mut(slot) {
            flight.take_back();
            flight.half = Half::Stream;
        }
        self.enqueue(slot, Half::Stream);
    }

    /// How long a query may take.
    pub fn timeout(&self) -> Duration {
        self.live.get().timeout
    }

    /// How long it may be silent about a query before another backend is asked.
    pub fn patience(&self) -> Duration {
        self.timeout() / SHARES
    }

    /// Does the work of one run of the sweeper.
    pub fn look(self: &Rc<Self>, now: Instant) {
        self.retries.refill();
        let streams = &self.streams;
        streams.suspects.refill(streams.is_answering());
        streams.suspects.refusals.look(streams.answered_at.get(), now);
        streams.limits.look(now);
        // Queries that were given up left room on connections.
        silence::look(self, now);
    }

    /// The backend cannot be reached: queries sent over `ids` go elsewhere, and new queries do so for a while.
    pub fn is_unreachable(&self, ids: &Rc<Ids>) {
        self.rest();
        let lost = self.pool.flights.borrow().find(|flight| flight.is_over(ids));
        lost.into_iter().for_each(|slot| self.pool.try_elsewhere(slot, Failure::Unreachable));
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
        self.pool.counters.add(Counter::BackendSetAside, 1);
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
        if self.streams.is_insecure() && self.refuses_without_tls() {
            return true;
        }
        if self.config.stands_in.as_ref().is_some_and(|memory| !memory.may_speak_clear()) {
            return false;
        }
        let is_over = |until: &Cell<Option<Instant>>| until.get().is_none_or(|until| until <= Instant::now());
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
            self.pool.counters.add(Counter::BackendInClear, 1);
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

    /// Closes every socket.
    pub fn close(&self) {
        self.datagrams.close();
        self.streams.close();
    }
}
