//! What the sessions of one worker share: limits, backends, buffers, counters. No locks: one thread.
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
    Fill, Inbox, SessionEnd, SharedAnswers,
    clients::{Clients, Row},
    linger::Lingering,
    owed::{Debts, OwedLimits},
    rates::{Pace, QueryRate, Rates},
    stamps::StampPool,
    turns::Turns,
};
use crate::{
    backend::Backends,
    cache::{Forget, Keeping},
    config::QueriesOver,
    dns::{self, Allowed, Edit, Hop},
    events::Events,
    ledger::{Counter, WorkerCounters},
    policy::{Access, Denial},
    proxy::Trusted,
    tls,
};

/// Octets read at a time, in as many TLS records as they come.
const READ_OCTETS: usize = 64 * 1024;
const _: () = assert!(READ_OCTETS >= tls::SCRATCH_OCTETS_MIN);
/// Buffers kept for the next session that writes.
const POOL_MAX: usize = 64;
/// A buffer that grew beyond this is given back to the allocator.
const POOLED_OCTETS_MAX: usize = 64 * 1024;

/// The same of the buffer in which responses are sealed.
const SEALING_OCTETS_MAX: usize = 256 * 1024;

/// Deadlines and caps of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From a message's first octet to its last.
    pub message_timeout: Duration,
    /// For a client to take what waits for it, beside what its pace gains it.
    pub write_timeout: Duration,
    /// Without a whole message.
    pub idle_timeout: Duration,
    /// From the handshake on.
    pub duration_max: Duration,
    /// Queries of a session.
    pub queries_max: u64,
    /// Unanswered queries of a session.
    pub in_flight_max: usize,
    /// Messages of a client over connections.
    pub query_rate: QueryRate,
    /// Lengths of client prefixes, IPv4 and IPv6.
    pub prefix_bits: (u8, u8),
    /// Pad responses to padded queries.
    pub padding: bool,
    /// Answer edns-tcp-keepalive.
    pub keepalive: bool,
    /// What else but queries goes to backends.
    pub allowed: Allowed,
    /// Octets that clients may let wait.
    pub owed: OwedLimits,
}

/// What the sessions of one worker share.
pub struct WorkerShared {
    limits: Cell<Limits>,
    backends: RefCell<Rc<Backends>>,
    /// `None`: the cache is off.
    answers: RefCell<Option<Rc<SharedAnswers>>>,
    is_draining: Cell<bool>,
    /// What clients use up of this worker.
    pub(super) clients: Clients,
    /// Which of them may read.
    pub(super) turns: Turns,
    /// How much they may ask, of any worker.
    rates: Arc<Rates>,
    /// Load balancers whose datagrams begin with a PROXY header.
    trusted: RefCell<Trusted>,
    /// `None`: every client may ask.
    access: RefCell<Option<Arc<Access>>>,
    /// Datagrams that wait for an answer, and answers that wait for the kernel.
    owed: Cell<usize>,
    fill: Cell<Fill>,
    sessions: RefCell<HashMap<u64, Rc<Inbox>>>,
    /// What the sessions are owed.
    pub(super) debts: Debts,
    /// Those that are over, and whose clients have not taken everything.
    pub(super) lingering: Lingering,
    next_session: Cell<u64>,
    pool: RefCell<Vec<Vec<u8>>>,
    /// Where the times of responses were, and will be.
    pub(super) stamp_pool: StampPool,
    /// Where each read lands before it is cut; empty again before the next session reads.
    pub(super) scratch: RefCell<Box<[u8]>>,
    /// Where responses are sealed before they are written; its content is of no use afterwards.
    pub(super) sealing: RefCell<Vec<u8>>,
    /// The worker's line in the ledger.
    pub counters: WorkerCounters,
    /// What it tells operators.
    pub events: Rc<Events>,
}

impl WorkerShared {
    /// A worker without sessions.
    #[must_use]
    pub fn new(limits: Limits, backends: Backends, counters: WorkerCounters, rates: Arc<Rates>) -> Self {
        Self {
            limits: Cell::new(limits),
            backends: RefCell::new(Rc::new(backends)),
            answers: RefCell::default(),
            is_draining: Cell::new(false),
            clients: Clients::default(),
            turns: Turns::default(),
            rates,
            trusted: RefCell::default(),
            access: RefCell::default(),
            owed: Cell::new(0),
            fill: Cell::default(),
            sessions: RefCell::default(),
            debts: Debts::new(limits.prefix_bits, &counters),
            lingering: Lingering::new(&counters),
            next_session: Cell::new(0),
            pool: RefCell::default(),
            stamp_pool: StampPool::default(),
            scratch: RefCell::new(vec![0; READ_OCTETS].into_boxed_slice()),
            sealing: RefCell::default(),
            counters,
            events: Rc::default(),
        }
    }

    /// Limits as of now; a reload changes them for running sessions too.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits.get()
    }

    /// The backends as of now.
    #[must_use]
    pub fn backends(&self) -> Rc<Backends> {
        Rc::clone(&self.backends.borrow())
    }

    /// The row of a client among those of the worker.
    pub(super) fn row_of(&self, client: IpAddr) -> Row {
        self.clients.row_of(client, self.limits.get().prefix_bits)
    }

    /// A session with so many queries in flight, of the client with this row, may have another one there.
    pub(super) fn has_share(&self, row: Row, in_flight: usize) -> bool {
        let shares = self.backends.borrow().shares();
        // With one in flight a session goes on as its own answers come, and needs nobody to wake it.
        in_flight == 0 || (in_flight < shares.session && self.clients.queries(row) < shares.client)
    }

    /// A client whose row this is may have the first query of one of its sessions in flight, too.
    pub(super) fn has_share_of_first(&self, row: Row) -> bool {
        self.clients.queries(row) < self.backends.borrow().shares().client_total
    }

    /// A client whose row this is may have another query in flight by UDP.
    pub(super) fn has_datagram_share(&self, row: Row) -> bool {
        let (own, all) = self.clients.datagrams(row);
        own < self.backends.borrow().datagram_share(all)
    }

    /// Units that a session may use in this turn; `granted` are those for which it has waited.
    pub(super) fn units(&self, row: Row, granted: u32) -> u32 {
        self.turns.units(&self.clients, row, granted)
    }

    /// A session has used so many of them.
    pub(super) fn spend(&self, row: Row, units: u32) {
        self.turns.spend(&self.clients, row, units);
    }

    /// Whether a message of `client` that came now is within its rate; what is over is counted here.
    pub(super) fn pace(&self, client: IpAddr, now: Instant) -> Pace {
        let limits = self.limits.get();
        if !limits.query_rate.rate.is_limit() {
            return Pace::Within;
        }
        let pace = self.rates.take(client, limits.prefix_bits, limits.query_rate, now);
        self.counters.add(Counter::QueriesOverRate, u64::from(pace != Pace::Within));
        if limits.query_rate.over == QueriesOver::Count { Pace::Within } else { pace }
    }

    /// Has turns begin while sessions wait for theirs. Runs until aborted.
    pub async fn take_turns(self: Rc<Self>) {
        self.turns.run().await;
    }

    /// Takes new limits, and new backends where they changed. Queries in flight keep the old ones.
    pub fn reload(&self, limits: Limits, backends: Option<Backends>) {
        self.limits.set(limits);
        if let Some(backends) = backends {
            self.backends.replace(Rc::new(backends));
        }
        self.wake_all();
    }

    /// Whose datagrams begin with a PROXY header from now on.
    pub fn trust(&self, trusted: Trusted) {
        self.trusted.replace(trusted);
    }

    /// Whether a datagram of `sender` begins with one.
    pub(super) fn trusts(&self, sender: IpAddr) -> bool {
        self.trusted.borrow().has(sender)
    }

    /// Who may ask from now on. Sessions of who may not end, or hear REFUSED.
    pub fn admit_by(&self, access: Option<Arc<Access>>) {
        self.access.replace(access);
        let access = self.access.borrow();
        for inbox in self.sessions.borrow().values() {
            if inbox.standing.judge(access.as_deref(), inbox.client.source) {
                inbox.wake();
            }
        }
    }

    /// Who may ask; `None`: every client.
    #[must_use]
    pub fn access(&self) -> Option<Arc<Access>> {
        self.access.borrow().clone()
    }

    /// Whether a client may not ask at `listener`, by its address.
    #[must_use]
    pub fn denies(&self, listener: SocketAddr, client: IpAddr) -> Option<Denial> {
        self.access.borrow().as_ref()?.denies_address(listener, client)
    }

    /// The cache and who waits for it, if it is on.
    pub(super) fn answers(&self) -> Option<Rc<SharedAnswers>> {
        self.answers.borrow().clone()
    }

    /// An empty cache in the place of the one there is, if any is to be.
    pub fn renew_cache(&self, keeping: Keeping) {
        let answers = (keeping.entries > 0).then(|| SharedAnswers::new(keeping, &self.counters));
        if let Some(old) = self.answers.replace(answers) {
            old.retire();
        }
    }

    /// Forgets the kept answers that `forget` means.
    pub fn forget(&self, forget: Forget) {
        if let Some(answers) = self.answers() {
            answers.forget(forget);
        }
    }

    /// No session reads another query; each ends when it owes nothing.
    pub fn drain(&self) {
        self.is_draining.set(true);
        self.wake_all();
    }

    /// Nobody is owed anything: no session is open or lingers, and no datagram waits for its answer.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.sessions.borrow().is_empty() && self.lingering.is_empty() && self.owed.get() == 0
    }

    /// So many datagrams more are owed.
    pub(super) fn owe(&self, datagrams: usize) {
        self.owed.set(self.owed.get() + datagrams);
    }

    /// So many are no longer.
    pub(super) fn settle(&self, datagrams: usize) {
        self.owed.set(self.owed.get().saturating_sub(datagrams));
    }

    /// So many connections there are; timeouts shrink with them.
    pub fn note_fill(&self, fill: Fill) {
        self.fill.set(fill);
    }

    /// How long a session may be idle at the moment.
    pub fn idle_timeout(&self) -> Duration {
        self.fill.get().shrunk(self.limits.get().idle_timeout)
    }

    /// What this hop tells a client in EDNS. The keepalive timeout is 0, which asks it to leave when it has its
    /// answer, while draining and when every place is taken (RFC 7828 §3.3.2).
    #[must_use]
    pub fn hop(&self) -> Hop {
        let limits = self.limits.get();
        let timeout = u16::try_from(self.idle_timeout().as_millis() / 100).unwrap_or(u16::MAX);
        let timeout = if self.is_draining.get() || self.fill.get().is_full() { 0 } else { timeout };
        Hop { padding: limits.padding, keepalive_100ms: limits.keepalive.then_some(timeout) }
    }

    /// Counts what became of the EDNS of a response.
    pub(super) fn note_edit(&self, edit: Edit) {
        match edit {
            Edit::Made | Edit::Signed => {}
            Edit::Entangled => self.counters.add(Counter::BackendOptEntangled, 1),
        }
    }

    /// Counts a response by its rcode, of which a header has only the lower part: `is_extended`, it is none of those.
    pub(super) fn count_response(&self, message: &[u8], is_extended: bool) {
        let counter = if is_extended { Counter::RcodeOther } else { rcode_counter(dns::rcode_of(message)) };
        self.counters.add(counter, 1);
    }

    pub(super) fn must_close(&self) -> Option<SessionEnd> {
        self.is_draining.get().then_some(SessionEnd::Drain)
    }

    pub(super) fn enter(&self, inbox: &Rc<Inbox>) -> u64 {
        let number = self.next_session.get();
        self.next_session.set(number.wrapping_add(1));
        self.sessions.borrow_mut().insert(number, Rc::clone(inbox));
        number
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

    /// Gives back what one large write has left of the buffer that all share.
    pub(super) fn shrink_sealing(&self) {
        let mut sealing = self.sealing.borrow_mut();
        if sealing.capacity() > SEALING_OCTETS_MAX {
            *sealing = Vec::new();
        }
    }

    /// Ends the sessions that are owed most while the worker owes more than it may.
    pub(super) fn relieve(&self) {
        while let Some(number) = self.debts.most_owed(self.limits.get().owed.worker) {
            let inbox = self.sessions.borrow().get(&number).map(Rc::clone);
            let Some(inbox) = inbox else { return };
            inbox.cut();
        }
    }

    fn wake_all(&self) {
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
