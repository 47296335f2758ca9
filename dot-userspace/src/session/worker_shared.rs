//! State that the sessions of one worker share: limits, backends, buffers, counters. No locks: one thread.
//!
//! Before: the worker makes one. After: every session holds it.
//! Never: leaves its thread.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Fill, Inbox, Moving, SharedAnswers,
    clients::{Clients, Row},
    freed::Freed,
    limits::Limits,
    linger::Lingering,
    misused::Watch,
    owed::Debts,
    rates::{Pace, Rates},
    stamps::StampPool,
    tenancy::Tenancies,
    turns::Turns,
};
use crate::{
    backend::Backends,
    cache::{Forget, Keeping},
    config::QueriesOver,
    dns::{self, Designation, Edit, Hop, Proofs},
    events::Events,
    ledger::{Counter, WorkerCounters},
    policy::{Access, Denial, Member, Notified, Screen, TenantId},
    proxy::Trusted,
    tls,
};

/// Octets read at a time, in as many TLS records as they come.
const READ_OCTETS: usize = 64 * 1024;
const _: () = assert!(READ_OCTETS >= tls::SCRATCH_OCTETS_MIN);
/// Buffers kept for the next sessions that write.
const POOL_MAX: usize = 64;
/// A larger buffer is freed instead of kept.
const POOLED_OCTETS_MAX: usize = 64 * 1024;

/// The same for the buffer in which responses are sealed.
const SEALING_OCTETS_MAX: usize = 256 * 1024;

/// State that the sessions of one worker share.
pub struct WorkerShared {
    limits: Cell<Limits>,
    pub(super) backends: RefCell<Rc<Backends>>,
    /// `None`: the cache is off.
    answers: RefCell<Option<Rc<SharedAnswers>>>,
    pub(super) is_draining: Cell<bool>,
    /// Whether sessions move to the next engine.
    pub(super) moving: Cell<Moving>,
    /// DNS over TLS is switched off.
    pub(super) is_off: Cell<bool>,
    /// What each client uses of this worker.
    pub(super) clients: Clients,
    /// Which clients may read now.
    pub(super) turns: Turns,
    /// How many messages clients may send, over all workers.
    rates: Arc<Rates>,
    /// Load balancers whose datagrams begin with a PROXY header.
    trusted: RefCell<Trusted>,
    /// `None`: every client may ask.
    access: RefCell<Option<Arc<Access>>>,
    /// Whether zones or proofs may answer in place of the cache and backends: without them a query looks at this alone.
    pub(super) is_judging: Cell<bool>,
    /// The policy zones. `None`: there are none.
    pub(super) screen: RefCell<Option<Arc<Screen>>>,
    /// Zones whose primary servers send NOTIFY; `None`: there is no such zone.
    pub(super) notified: RefCell<Option<Arc<Notified>>>,
    /// How dotd describes itself. `None`: it does not.
    pub(super) designation: RefCell<Option<Arc<Designation>>>,
    /// What each tenant has of its own.
    pub(super) tenancies: Tenancies,
    /// Records for an ACME authority. `None`: dotd has no such names.
    pub(super) proofs: RefCell<Option<Arc<Proofs>>>,
    /// Looks for misuse.
    pub(super) misuse: Watch,
    /// Buffer for a response of dotd's own with records.
    pub(super) made: RefCell<Vec<u8>>,
    /// Datagrams that wait for an answer, and answers that wait for the kernel.
    pub(super) owed: Cell<usize>,
    fill: Cell<Fill>,
    /// This hop's EDNS options for clients at present.
    hop: Cell<Hop>,
    pub(super) sessions: RefCell<HashMap<u64, Rc<Inbox>>>,
    /// Memory that sessions at rest have freed.
    pub(super) freed: Freed,
    /// Octets that wait for each session's client.
    pub(super) debts: Debts,
    /// Sessions that are over and whose clients have not taken everything.
    pub(super) lingering: Lingering,
    next_session: Cell<u64>,
    pool: RefCell<Vec<Vec<u8>>>,
    /// Lists for the times of responses.
    pub(super) stamp_pool: StampPool,
    /// Buffer of each read; empty again before the next session reads.
    pub(super) scratch: RefCell<Box<[u8]>>,
    /// Buffer in which responses are sealed; its content is useless afterwards.
    pub(super) sealing: RefCell<Vec<u8>>,
    /// The worker's counters in the ledger.
    pub counters: WorkerCounters,
    /// Events for operators.
    pub events: Rc<Events>,
}

impl WorkerShared {
    /// A worker without sessions.
    #[must_use]
    pub fn new(limits: Limits, backends: Backends, counters: WorkerCounters, rates: Arc<Rates>) -> Self {
        let shared = Self {
            limits: Cell::new(limits),
            backends: RefCell::new(Rc::new(backends)),
            answers: RefCell::default(),
            is_draining: Cell::new(false),
            moving: Cell::default(),
            is_off: Cell::new(false),
            clients: Clients::default(),
            turns: Turns::default(),
            rates,
            trusted: RefCell::default(),
            access: RefCell::default(),
            is_judging: Cell::new(false),
            screen: RefCell::default(),
            notified: RefCell::default(),
            designation: RefCell::default(),
            tenancies: Tenancies::default(),
            proofs: RefCell::default(),
            misuse: Watch::default(),
            made: RefCell::default(),
            owed: Cell::new(0),
            fill: Cell::default(),
            hop: Cell::new(Hop { padding: false, keepalive_100ms: None }),
            sessions: RefCell::default(),
            freed: Freed::default(),
            debts: Debts::new(limits.prefix_bits, &counters),
            lingering: Lingering::new(&counters),
            next_session: Cell::new(0),
            pool: RefCell::default(),
            stamp_pool: StampPool::default(),
            scratch: RefCell::new(vec![0; READ_OCTETS].into_boxed_slice()),
            sealing: RefCell::default(),
            counters,
            events: Rc::default(),
        };
        shared.renew_hop();
        shared
    }

    /// The current limits; a reload changes them for running sessions too.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits.get()
    }

    /// The current backends.
    #[must_use]
    pub fn backends(&self) -> Rc<Backends> {
        Rc::clone(&self.backends.borrow())
    }

    /// The row of a client among those of the worker.
    pub(super) fn row_of(&self, client: IpAddr) -> Row {
        self.clients.row_of(client, self.limits.get().prefix_bits)
    }

    /// Whether a session with `in_flight` queries, of the client with this row, may ask a backend another one.
    pub(super) fn has_share(&self, tenant: TenantId, row: Row, in_flight: usize) -> bool {
        let shares = self.shares_of(tenant);
        // With one query in flight a session goes on when its own answer comes, and needs no other wake-up.
        in_flight == 0 || (in_flight < shares.session && self.clients.queries(row) < shares.client)
    }

    /// Whether the client with this row may have the first query of one more session in flight.
    pub(super) fn has_share_of_first(&self, tenant: TenantId, row: Row) -> bool {
        self.clients.queries(row) < self.shares_of(tenant).client_total
    }

    /// Whether the client with this row may have another query in flight by UDP.
    pub(super) fn has_datagram_share(&self, tenant: TenantId, row: Row) -> bool {
        let (own, all) = self.clients.datagrams(row);
        own < self.look_at_backends_of(tenant, |backends| backends.datagram_share(all))
    }

    /// Units that a session may use in this turn; `granted`: units for which it has waited.
    pub(super) fn units(&self, row: Row, granted: u32) -> u32 {
        self.turns.units(&self.clients, row, granted)
    }

    /// Adds units that a session has used.
    pub(super) fn spend(&self, row: Row, units: u32) {
        self.turns.spend(&self.clients, row, units);
    }

    /// Whether a message of `client` that came now is within the rate of its address; messages over it are counted here.
    pub(super) fn pace(&self, client: IpAddr, member: Member, now: Instant) -> Pace {
        let limits = self.limits.get();
        if !limits.query_rate.rate.is_limit() || member.is_by_name {
            return Pace::Within;
        }
        let pace = self.rates.take(client, limits.prefix_bits, limits.query_rate, now);
        self.counters.add(Counter::QueriesOverRate, u64::from(pace != Pace::Within));
        if limits.query_rate.over == QueriesOver::Count { Pace::Within } else { pace }
    }

    /// Begins turns while sessions wait. Runs until aborted.
    pub async fn take_turns(self: Rc<Self>) {
        self.turns.run().await;
    }

    /// Sets new limits, and new backends if they changed. Queries in flight stay with the old backends.
    pub fn reload(&self, limits: Limits, backends: Option<Backends>) {
        self.limits.set(limits);
        self.renew_hop();
        if let Some(backends) = backends {
            self.backends.replace(Rc::new(backends));
        }
        self.wake_all();
    }

    /// Sets which senders' datagrams begin with a PROXY header.
    pub fn trust(&self, trusted: Trusted) {
        self.trusted.replace(trusted);
    }

    /// Whether a datagram of `sender` begins with a PROXY header.
    pub(super) fn trusts(&self, sender: IpAddr) -> bool {
        self.trusted.borrow().has(sender)
    }

    /// Sets the access lists. Sessions of clients that may not ask end, or answer REFUSED.
    pub fn admit_by(&self, access: Option<Arc<Access>>) {
        self.access.replace(access);
        let access = self.access.borrow();
        for inbox in self.sessions.borrow().values() {
            if inbox.standing.judge(access.as_deref(), inbox.client.source) {
                inbox.wake();
            }
        }
    }

    /// The access lists. `None`: every client may ask.
    #[must_use]
    pub fn access(&self) -> Option<Arc<Access>> {
        self.access.borrow().clone()
    }

    /// Whether a client may not ask at `listener`, by its address.
    #[must_use]
    pub fn denies(&self, listener: SocketAddr, client: IpAddr) -> Option<Denial> {
        self.access.borrow().as_ref()?.denies_address(listener, client)
    }

    /// The cache and the queries that wait for its answers. `None`: the cache is off.
    pub(super) fn answers(&self) -> Option<Rc<SharedAnswers>> {
        self.answers.borrow().clone()
    }

    /// Replaces the cache by an empty one, or by none.
    pub fn renew_cache(&self, keeping: Keeping) {
        let answers = (keeping.entries > 0).then(|| SharedAnswers::new(keeping, &self.counters));
        if let Some(old) = self.answers.replace(answers) {
            old.retire();
        }
    }

    /// Removes the answers that `forget` selects.
    pub fn forget(&self, forget: Forget) {
        if let Some(answers) = self.answers() {
            answers.forget(forget);
        }
    }

    /// Counts datagrams that wait for an answer.
    pub(super) fn owe(&self, datagrams: usize) {
        self.owed.set(self.owed.get() + datagrams);
    }

    /// Counts datagrams that do not wait any more.
    pub(super) fn settle(&self, datagrams: usize) {
        self.owed.set(self.owed.get().saturating_sub(datagrams));
    }

    /// Sets the number of connections; timeouts shrink with it.
    pub fn note_fill(&self, fill: Fill) {
        self.fill.set(fill);
        self.renew_hop();
    }

    /// The current idle timeout.
    pub fn idle_timeout(&self) -> Duration {
        self.fill.get().shrunk(self.limits.get().idle_timeout)
    }

    /// This hop's EDNS options for a client.
    #[must_use]
    pub fn hop(&self) -> Hop {
        self.hop.get()
    }

    /// Limits, fill or draining have changed. While draining and when every place is taken the keepalive timeout is 0, which
    /// asks the client to leave after its answer (RFC 7828 §3.3.2).
    pub(super) fn renew_hop(&self) {
        let limits = self.limits.get();
        let timeout = u16::try_from(self.idle_timeout().as_millis() / 100).unwrap_or(u16::MAX);
        let timeout = if self.is_draining.get() || self.fill.get().is_full() { 0 } else { timeout };
        self.hop.set(Hop { padding: limits.padding, keepalive_100ms: limits.keepalive.then_some(timeout) });
    }

    /// Counts how the EDNS of a response was edited.
    pub(super) fn note_edit(&self, edit: Edit) {
        match edit {
            Edit::Made | Edit::Signed => {}
            Edit::Entangled => self.counters.add(Counter::BackendOptEntangled, 1),
        }
    }

    /// Counts a response by its rcode, of which the header has only the lower part; with `is_extended` it has another
    /// rcode.
    pub(super) fn count_response(&self, message: &[u8], is_extended: bool) {
        let counter = if is_extended { Counter::RcodeOther } else { rcode_counter(dns::rcode_of(message)) };
        self.counters.add(counter, 1);
    }

    pub(super) fn enter(&self, inbox: &Rc<Inbox>) -> u64 {
        let number = self.next_session.get();
        self.next_session.set(number.wrapping_add(1));
        self.sessions.borrow_mut().insert(number, Rc::clone(inbox));
        number
    }

    /// The session with this number, while it is open.
    pub(super) fn session(&self, number: u64) -> Option<Rc<Inbox>> {
        self.sessions.borrow().get(&number).map(Rc::clone)
    }

    pub(super) fn leave(&self, number: u64) {
        self.sessions.borrow_mut().remove(&number);
    }

    pub(super) fn take_buffer(&self) -> Vec<u8> {
        self.pool.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn give_buffer(&self, mut buffer: Vec<u8>) {
        let mut pool = self.pool.borrow_mut();
        let is_worth_keeping = (1..=POOLED_OCTETS_MAX).contains(&buffer.capacity());
        if is_worth_keeping && pool.len() < POOL_MAX {
            buffer.clear();
            pool.push(buffer);
        }
    }

    /// Frees the memory that a large write left in the shared buffer.
    pub(super) fn shrink_sealing(&self) {
        let mut sealing = self.sealing.borrow_mut();
        if sealing.capacity() > SEALING_OCTETS_MAX {
            *sealing = Vec::new();
        }
    }

    /// Ends the sessions with the most waiting octets while the worker holds more than it may.
    pub(super) fn relieve(&self) {
        while let Some(number) = self.debts.most_owed(self.limits.get().owed.worker) {
            let inbox = self.sessions.borrow().get(&number).map(Rc::clone);
            let Some(inbox) = inbox else { return };
            inbox.cut();
        }
    }

    pub(super) fn wake_all(&self) {
        self.sessions.borrow().values().for_each(|inbox| inbox.wake());
    }
}

fn rcode_counter(rcode: dns::ResponseCode) -> Counter {
    match rcode {
        dns::ResponseCode::NoError => Counter::RcodeNoError,
        dns::ResponseCode::FormErr => Counter::RcodeFormErr,
        dns::ResponseCode::ServFail => Counter::RcodeServFail,
        dns::ResponseCode::NXDomain => Counter::RcodeNxDomain,
        dns::ResponseCode::NotImp => Counter::RcodeNotImp,
        dns::ResponseCode::Refused => Counter::RcodeRefused,
        _ => Counter::RcodeOther,
    }
}
