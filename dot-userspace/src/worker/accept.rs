//! Accepts connections from a worker's listeners and serves each one to its end. Step 4 of 9.
//!
//! Before: the kernel chose this worker for the connection. After: its handshake, session and end are counted.
//! Never: loops when descriptors run out, or lets one connection's panic end another one (each is a task of its own).

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::spawn_local,
    time::{Instant, sleep},
};

use super::{
    Admission, Settings,
    access::{Entry, Transport},
    admission::{Place, Refused},
    charges::{Account, Accounts},
    eviction::{EvictionQueue, Group},
    is_shortage,
    mover::Mover,
    open::Open,
    redacted_address::RedactedAddress,
    sessions::serve,
};
use crate::{
    config::ClientAddress,
    ledger::Counter,
    proxy::{self, Client, Named, Trusted},
    session::{self, Carried, Guest, Plain, Wanted, WorkerShared},
    supervise::supervise,
    tls::{self, Serving, Turnstile},
    xdp::StatusWriter,
};

/// Pause after `accept` failed for a reason other than the connection itself: other connections must end first, or an
/// operator must act.
const ACCEPT_REST: Duration = Duration::from_millis(50);
/// How often a worker logs that it accepts nothing.
const SHORTAGE_SAID: Duration = Duration::from_secs(60);

/// How long a worker accepts no connections after it ran out of places, or too many handshakes wait: longer than the
/// work of a turn, shorter than a client's first retransmission of its SYN (1 s, RFC 6298).
const CLOSED: Duration = Duration::from_millis(100);
/// While this many handshakes wait, a worker accepts no further connections: about 0.4 s of work.
const BACKLOG_MAX: usize = 1024;

/// What new connections need; a reload changes it for later connections.
pub(super) struct Acceptor {
    shared: Rc<WorkerShared>,
    pub(super) admission: Arc<Admission>,
    pub(super) accounts: Rc<Accounts>,
    turnstile: Rc<Turnstile>,
    pub(super) eviction: Rc<EvictionQueue>,
    status: StatusWriter,
    current: RefCell<(Serving, Duration)>,
    /// Load balancers, whose PROXY headers name the client.
    trusted: RefCell<Trusted>,
    client_address: Cell<ClientAddress>,
    /// Has one more reference for each connection whose session has not begun.
    shaking: Rc<()>,
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
    fn note_refusal(&self, error: &io::Error, now: Instant) {
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
    fn open(&self, place: Place, account: Option<Account>) -> Open {
        let open = Open::new(&self.shared.counters, place, account);
        self.note_fill();
        open
    }

    /// Whether `client` may start the protocol of that listener. Called before a place is made for the client, so
    /// that a client above its rate displaces no other.
    fn begins(&self, entry: Entry, client: IpAddr) -> Result<(), Refused> {
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

/// Accepts until aborted.
pub(super) async fn accept_all(listener: Rc<TcpListener>, entry: Entry, acceptor: Rc<Acceptor>) {
    let counters = acceptor.shared.counters.clone();
    loop {
        match listener.accept().await {
            Ok((tcp, client)) => {
                counters.add(Counter::Accepted, 1);
                admit(tcp, client, entry, &acceptor);
            }
            Err(error) => {
                counters.add(Counter::AcceptFailed, 1);
                if !is_of_the_connection(&error) {
                    acceptor.note_refusal(&error, Instant::now());
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    }
}

/// The connection ended in the queue: the next one may be good.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn admit(tcp: TcpStream, peer: SocketAddr, entry: Entry, acceptor: &Rc<Acceptor>) {
    let deadline = Instant::now() + acceptor.current.borrow().1;
    if acceptor.trusts(peer) && !acceptor.shared.is_off() {
        return match acceptor.with_room(entry, None, || acceptor.admission.admit_unknown(entry.number)) {
            Ok(place) => {
                // The SYNs come from the load balancer, which must not be charged for its clients.
                let open = acceptor.open(place, None);
                spawn_local(introduce(tcp, (peer, entry), deadline, Rc::clone(acceptor), open));
            }
            Err(refused) => refuse(acceptor, peer, refused),
        };
    }
    if acceptor.is_off(entry) || acceptor.closes_at(entry, peer) {
        return;
    }
    let client = peer.ip();
    let admit = || acceptor.with_room(entry, Some(client), || acceptor.admission.admit(client, entry.number));
    match acceptor.begins(entry, client).and_then(|()| admit()) {
        Ok(place) => {
            let account = acceptor.accounts.account(client);
            let open = acceptor.open(place, Some(account));
            begin(tcp, (peer, Named::default()), entry, deadline, acceptor, open);
        }
        Err(refused) => {
            acceptor.accounts.account(peer.ip()).refusal();
            refuse(acceptor, peer, refused);
        }
    }
}

fn refuse(acceptor: &Acceptor, client: SocketAddr, refused: Refused) {
    let counter = match refused {
        Refused::Total => Counter::RefusedTotal,
        Refused::Prefix => Counter::RefusedPrefix,
        Refused::Listener => Counter::RefusedListener,
        Refused::Rate => Counter::RefusedRate,
    };
    acceptor.shared.counters.add(counter, 1);
    acceptor.shared.events.refused(client, counter);
    tracing::debug!(client = %acceptor.redacted(client), cause = counter.label(), "a connection is refused");
}

/// A load balancer's connection: its header names the client that the connection counts for.
async fn introduce(
    mut tcp: TcpStream,
    (peer, entry): (SocketAddr, Entry),
    deadline: Instant,
    acceptor: Rc<Acceptor>,
    mut open: Open,
) {
    let _is_shaking = Rc::clone(&acceptor.shaking);
    let named = match proxy::receive(&mut tcp, deadline).await {
        Ok(named) => named,
        Err(refusal) => {
            tracing::debug!(client = %acceptor.redacted(peer), %refusal, "a connection from a load balancer is closed");
            let counter = match refusal {
                proxy::Refusal::Timeout => Counter::HandshakeTimeout,
                proxy::Refusal::Closed => Counter::HandshakeClosed,
                proxy::Refusal::Malformed(_) => Counter::HandshakeProxyHeader,
            };
            acceptor.shared.events.refused(peer, counter);
            return open.end(counter);
        }
    };
    let source = named.addresses.map_or(peer, |(source, _)| source);
    if acceptor.closes_at(entry, source) {
        open.panic_end = None;
        return;
    }
    let place = &mut open.place;
    let belongs = || place.as_mut().map_or(Ok(()), |place| place.belongs_to(source.ip()));
    let begins = acceptor.begins(entry, source.ip());
    if let Err(refused) = begins.and_then(|()| acceptor.with_room(entry, Some(source.ip()), belongs)) {
        return refuse(&acceptor, source, refused);
    }
    begin(tcp, (source, named), entry, deadline, &acceptor, open);
}

/// Serves a connection whose two ends are known.
fn begin(
    tcp: TcpStream,
    ends: (SocketAddr, Named),
    entry: Entry,
    deadline: Instant,
    acceptor: &Rc<Acceptor>,
    mut open: Open,
) {
    let is_direct = ends.1.addresses.is_none();
    let client = client(&tcp, ends);
    if is_direct {
        open.note_syn(&acceptor.status, &client);
    }
    acceptor.note_accepted(entry, &open, client.source);
    let guest = acceptor.guest(entry, client);
    match entry.transport {
        Transport::Dot => {
            let serving = acceptor.current.borrow().0.clone();
            spawn_local(converse(tcp, guest, serving, deadline, Rc::clone(acceptor), open));
        }
        Transport::Do53 => {
            open.counters.add(Counter::AcceptedPlain, 1);
            serve(Plain::new(tcp), guest, Rc::clone(acceptor), open, Carried::begun());
        }
    }
}

/// Both ends of a connection, in clear until a handshake is done. If no header named the local address, the kernel is
/// asked for it.
fn client(tcp: &TcpStream, (source, named): (SocketAddr, Named)) -> Client {
    let destination = named.addresses.map(|(_, destination)| destination);
    let destination = destination.or_else(|| tcp.local_addr().ok()).unwrap_or(source);
    Client { source, destination, is_datagram: named.is_datagram, tls: None, tlvs: named.tlvs }
}

/// A connection's handshake. The session is a separate task, so that it keeps no memory of the handshake.
async fn converse(
    tcp: TcpStream,
    mut guest: Guest,
    serving: Serving,
    deadline: Instant,
    acceptor: Rc<Acceptor>,
    mut open: Open,
) {
    let _is_shaking = Rc::clone(&acceptor.shaking);
    match tls::accept(tcp, &serving, &acceptor.turnstile, deadline).await {
        Ok(handshake) => {
            open.shook_hands(&handshake);
            open.charge(|account| account.handshake(handshake.kind.is_resumed));
            acceptor.note_handshake(&open, &guest, &handshake);
            guest.client.tls = Some(handshake.kind.client_tls());
            acceptor.name(&mut guest.client, &handshake);
            acceptor.recognise(&mut guest, handshake.server_name, handshake.client_names);
            serve(handshake.stream, guest, acceptor, open, Carried::begun());
        }
        Err(failure) => {
            open.end(failure.counter());
            open.charge(|account| account.failure(failure));
            acceptor.note_failure(&open, &guest, failure);
            drop(open);
            acceptor.note_fill();
        }
    }
}

#[cfg(test)]
mod tests;
