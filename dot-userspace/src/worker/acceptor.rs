//! The state that new connections of a worker need: caps, rates, the queue of handshakes, the eviction of idle sessions, and the
//! worker's status for the kernel half.
//!
//! Before: the worker has its settings. After: `accept` admits each connection by them; a reload changes them for later ones.
//! Never: accepts or reads by itself.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{task::spawn_local, time::Instant};

use super::{
    Admission, Settings,
    admission::{Place, Refused},
    charges::{Account, Accounts},
    entry::{Entry, Transport},
    eviction::{EvictionQueue, Group},
    is_shortage,
    mover::Mover,
    open::Open,
    redacted_address::RedactedAddress,
};
use crate::{
    config::ClientAddress,
    ledger::Counter,
    proxy::Trusted,
    session::{self, Wanted, WorkerShared},
    supervise::supervise,
    tls::{Serving, Turnstile},
    xdp::StatusWriter,
};

/// How often a worker logs that it accepts nothing.
const SHORTAGE_SAID: Duration = Duration::from_secs(60);

/// How long a worker accepts no connections after it ran out of places, or too many handshakes wait: longer than the
/// work of a turn, shorter than a client's first retransmission of its SYN (1 s, RFC 6298).
const CLOSED: Duration = Duration::from_millis(100);
/// While this many handshakes wait, a worker accepts no further connections: about 0.4 s of work.
const BACKLOG_MAX: usize = 1024;

/// The state that new connections need; a reload changes it for later ones.
pub(super) struct Acceptor {
    shared: Rc<WorkerShared>,
    pub(super) admission: Arc<Admission>,
    pub(super) accounts: Rc<Accounts>,
    pub(super) turnstile: Rc<Turnstile>,
    pub(super) eviction: Rc<EvictionQueue>,
    pub(super) status: StatusWriter,
    pub(super) current: RefCell<(Serving, Duration)>,
    /// Load balancers, whose PROXY headers name the client.
    trusted: RefCell<Trusted>,
    client_address: Cell<ClientAddress>,
    /// Has one more reference for each connection whose session has not begun.
    pub(super) shaking: Rc<()>,
    /// When the log last said that no connection can be accepted.
    shortage_said: Cell<Option<Instant>>,
    /// The listeners for connections.
    pub(super) entries: RefCell<Vec<Entry>>,
    /// Sends sessions to the next engine.
    pub(super) mover: RefCell<Option<Rc<Mover>>>,
}

impl Acceptor {
    pub(super) fn new(
        shared: Rc<WorkerShared>,
        admission: Arc<Admission>,
        accounts: Rc<Accounts>,
        status: StatusWriter,
        settings: &Settings,
    ) -> Self {
        let current = RefCell::new((settings.serving.clone(), settings.handshake_timeout));
        let turnstile = Rc::new(Turnstile::new(shared.counters.clone()));
        let own = Rc::clone(&turnstile);
        spawn_local(supervise("turnstile", move || Rc::clone(&own).run()));
        let trusted = RefCell::new(settings.proxy_protocol_from.clone());
        shared.trust(settings.proxy_protocol_from.clone());
        Self {
            shared,
            admission,
            accounts,
            turnstile,
            eviction: Rc::new(EvictionQueue::new(session::long_ago())),
            status,
            current,
            trusted,
            client_address: Cell::new(settings.client_address),
            shaking: Rc::default(),
            shortage_said: Cell::new(None),
            entries: RefCell::default(),
            mover: RefCell::default(),
        }
    }

    /// Whether a connection from this peer begins with a header that names its client.
    pub(super) fn trusts(&self, peer: SocketAddr) -> bool {
        self.trusted.borrow().has(peer.ip())
    }

    /// A connection that waits cannot be accepted. If descriptors or memory are short, the session that has been idle
    /// longest ends.
    pub(super) fn note_refusal(&self, error: &io::Error, now: Instant) {
        let consequence =
            if is_shortage(error) { "idle sessions are ended to free resources" } else { "dotd tries again" };
        if is_shortage(error) {
            self.eviction.make_room(Wanted::Descriptor, None, now);
        }
        if self.shortage_said.get().is_none_or(|said| now >= said + SHORTAGE_SAID) {
            self.shortage_said.set(Some(now));
            tracing::warn!(%error, "no connection can be accepted at present; {consequence}");
        }
    }

    /// A client's address, in the form that log lines may show.
    pub(super) fn redacted(&self, client: SocketAddr) -> RedactedAddress {
        RedactedAddress(self.client_address.get(), client.ip())
    }

    /// Handshakes use `serving` from now on.
    pub(super) fn serve(&self, serving: Serving) {
        self.current.borrow_mut().0 = serving;
    }

    /// Sets all timeouts of this worker by the total number of open connections, and tells the kernel half how many
    /// connections are open here.
    pub(super) fn note_fill(&self) {
        let fill = self.admission.fill();
        self.shared.note_fill(fill);
        let (open, backlog) = (self.shared.counters.get(Counter::Open), self.turnstile.waiting());
        let is_late = backlog >= BACKLOG_MAX;
        let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        self.status.publish(number(open), fill.max, number(backlog as u64), !is_late && !fill.is_full());
        if is_late {
            self.status.close_for(CLOSED);
        }
    }

    /// Whether a handshake is in progress, or the header of a load balancer is awaited.
    pub(super) fn is_shaking(&self) -> bool {
        Rc::strong_count(&self.shaking) > 1
    }

    /// Accepts no more connections.
    pub(super) fn close(&self) {
        self.status.end();
    }

    /// The same, and wakes the sessions that are overdue under the new timeouts; other sessions use them later.
    pub(super) fn note_pressure(&self) {
        self.note_fill();
        let now = Instant::now();
        if let Some(latest) = now.checked_sub(self.shared.idle_timeout()) {
            self.eviction.wake_overdue(latest, now);
        }
    }

    /// Calls `admit`. If a cap refuses, it is called again with the place of the session that has been idle longest
    /// under that cap.
    pub(super) fn with_room<T>(
        &self,
        entry: Entry,
        client: Option<IpAddr>,
        mut admit: impl FnMut() -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let admitted = admit().or_else(|refused| {
            let within = match refused {
                Refused::Prefix => client.map(|client| Group::Prefix(Some(self.admission.prefix_of(client)))),
                Refused::Listener => Some(Group::Listener(entry.number)),
                Refused::Total | Refused::Rate => None,
            };
            if self.eviction.make_room(Wanted::Place, within, Instant::now()) {
                admit()
            } else {
                Err(refused)
            }
        });
        if matches!(admitted, Err(Refused::Total)) {
            self.note_fill();
            // Every place is taken and no session of this worker is idle: other workers may have one, and the status
            // tells XDP if none has.
            self.status.close_for(CLOSED);
        }
        admitted
    }

    /// Registers a new connection.
    pub(super) fn open(&self, place: Place, account: Option<Account>) -> Open {
        let open = Open::new(&self.shared.counters, place, account);
        self.note_fill();
        open
    }

    /// Whether `client` may start the protocol of that listener. Called before a place is made for the client, so
    /// that a client above its rate displaces no other.
    pub(super) fn begins(&self, entry: Entry, client: IpAddr) -> Result<(), Refused> {
        let is_tls = entry.transport == Transport::Dot;
        if is_tls { self.admission.begin_handshake(client, Instant::now()) } else { Ok(()) }
    }

    /// State that the sessions of this worker share.
    pub(super) fn shared(&self) -> &Rc<WorkerShared> {
        &self.shared
    }

    pub(super) fn reload(&self, settings: &Settings) {
        self.current.replace((settings.serving.clone(), settings.handshake_timeout));
        self.trusted.replace(settings.proxy_protocol_from.clone());
        self.shared.trust(settings.proxy_protocol_from.clone());
        self.client_address.set(settings.client_address);
    }
}
