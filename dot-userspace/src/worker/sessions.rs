//! Serves sessions in separate tasks: new ones, and those that began in the previous engine.
//!
//! Before: a handshake is done, or the previous engine has sent a session. After: the session was served to its end,
//! which the ledger counts once, or has left for the next engine.
//! Never: relies on another engine's data for facts that the kernel knows: the client of a connection, and its local
//! address.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use crossbeam::channel::Receiver;
use tokio::{
    net::TcpStream,
    sync::Notify,
    task::{spawn_local, yield_now},
    time::Instant,
};

use super::{
    acceptor::Acceptor,
    connection_octets::Connection,
    entry::{Entry, Transport},
    mover::Mover,
    open::Open,
    passage::{Arrived, shared_clock_ns},
};
use crate::{
    ledger::{Counter, Stage},
    moment::Moment,
    octets::Octets,
    proxy::Client,
    session::{self, Carried, Departed, Guest, IdleProbe, Link, Moving, Outcome, Plain, Wanted},
    tls::Stream,
};

/// Most sessions of the previous engine that wait for a worker: the others are still served where they are.
pub(super) const ARRIVED_MAX: usize = 32;

/// Makes the moments of this thread begin long ago, because sessions that began in another engine are older than the
/// thread.
pub(super) fn look_back() {
    let _ = Moment::of(session::long_ago().into_std());
}

/// Serves a session in a separate task to its end: from its start, or from the state that another engine sent.
pub(super) fn serve<L: Link + 'static>(
    link: L,
    guest: Guest,
    acceptor: Rc<Acceptor>,
    mut open: Open,
    carried: Carried,
) {
    let probe = Rc::new(IdleProbe::default());
    let since = carried.idle_since();
    let queued = open.place.take().map(|place| acceptor.eviction.take(&probe, place, since));
    if queued.is_none() {
        probe.ask_to_leave(Wanted::Place);
    }
    let shared = Rc::clone(acceptor.shared());
    open.panic_end = Some(Counter::EndPanic);
    spawn_local(session::serve(link, shared, guest, probe, carried, move |outcome| {
        match outcome {
            Outcome::Ended(ended) => {
                let end = ended.end;
                open.end(end.counter());
                open.charge(|account| account.end(end));
                acceptor.note_end(&open, ended);
            }
            Outcome::Moved(departed) => acceptor.send_on(&mut open, departed),
        }
        drop((queued, open));
        acceptor.note_fill();
    }));
}

impl Acceptor {
    /// Registers a listener of connections.
    pub(super) fn note_entry(&self, entry: Entry) {
        self.entries.borrow_mut().push(entry);
    }

    /// The listener for a listen address.
    pub(super) fn entry_at(&self, transport: Transport, listener: SocketAddr) -> Option<Entry> {
        let is_meant = |entry: &&Entry| entry.transport == transport && entry.listener == Some(listener);
        self.entries.borrow().iter().find(is_meant).copied()
    }

    /// From now on sessions leave for the next engine when they can.
    pub(super) fn move_by(&self, mover: &Rc<Mover>) {
        self.mover.replace(Some(Rc::clone(mover)));
        self.shared().move_sessions(Moving::WhenQuiet);
    }

    /// The mover to the next engine.
    pub(super) fn mover(&self) -> Option<Rc<Mover>> {
        self.mover.borrow().clone()
    }

    /// Sends a session to the next engine.
    fn send_on(&self, open: &mut Open, mut departed: Departed) {
        let client = departed.client.clone();
        let Some(mover) = self.mover() else {
            // Unreachable: the session left because there is a mover.
            return open.end(Counter::EndDrain);
        };
        let connection = Connection {
            worker: mover.worker(),
            at_ns: shared_clock_ns(),
            paused: departed.paused,
            began: open.began,
            shaken: open.shaken,
            listener: departed.so_far.listener.unwrap_or(client.destination),
            client,
            by_names: departed.by_names,
            identity: departed.identity.take(),
        };
        let mut octets = Vec::new();
        connection.write(Instant::now(), &mut octets);
        open.end(Counter::EndMoved);
        self.note_moved(open, departed.so_far);
        mover.send(octets, departed);
    }

    /// Continues sessions that have arrived, at most as many as may wait, so that other work comes between.
    pub(super) async fn adopt_some(self: &Rc<Self>, arrived: &Receiver<Arrived>, bell: &Notify) {
        arrived.try_iter().take(ARRIVED_MAX).for_each(|arrived| self.adopt(arrived));
        if !arrived.is_empty() {
            bell.notify_one();
            yield_now().await;
        }
    }

    /// Continues every session that has arrived.
    pub(super) fn adopt_all(self: &Rc<Self>, arrived: &Receiver<Arrived>) {
        arrived.try_iter().for_each(|arrived| self.adopt(arrived));
    }

    /// Continues a session of the previous engine.
    fn adopt(self: &Rc<Self>, arrived: Arrived) {
        if self.try_adopt(arrived).is_none() {
            tracing::warn!("a session of the previous engine is closed, because it cannot be continued here");
        }
    }

    fn try_adopt(self: &Rc<Self>, Arrived { socket, octets }: Arrived) -> Option<()> {
        let now = Instant::now();
        let mut rest = Octets::new(&octets);
        let connection = Connection::read(&mut rest, now)?;
        let carried = Carried::read(&mut rest, now)?;
        let transport = if connection.client.tls.is_some() { Transport::Dot } else { Transport::Do53 };
        let entry = self.entry_at(transport, connection.listener)?;
        let tcp = TcpStream::from_std(socket).ok()?;
        match transport {
            Transport::Dot => {
                let stream = Stream::resume(tcp, &mut rest).filter(|_| rest.is_empty())?;
                let client = self.client_of(stream.socket(), connection.client.clone())?;
                self.go_on(stream, (client, entry), &connection, carried);
            }
            Transport::Do53 => {
                let plain = Plain::resume(tcp, &mut rest).filter(|_| rest.is_empty())?;
                let client = self.client_of(plain.socket(), connection.client.clone())?;
                self.go_on(plain, (client, entry), &connection, carried);
            }
        }
        let paused =
            connection.paused + Duration::from_nanos(shared_clock_ns().saturating_sub(connection.at_ns));
        self.shared().counters.stages().record(Stage::Moved, paused);
        Some(())
    }

    /// The client of a connection: as the other engine says (`said`) if a load balancer's header could have named it,
    /// and otherwise as the kernel says; and whether the peer is charged for its costs, which a load balancer is not.
    fn client_of(&self, tcp: &TcpStream, said: Client) -> Option<(Client, bool)> {
        let peer = tcp.peer_addr().ok()?;
        if self.trusts(peer) {
            return Some((said, false));
        }
        let destination = tcp.local_addr().ok()?;
        Some((Client { source: peer, destination, ..said }, true))
    }

    fn go_on<L: Link + 'static>(
        self: &Rc<Self>,
        link: L,
        ((client, is_charged), entry): ((Client, bool), Entry),
        connection: &Connection,
        carried: Carried,
    ) {
        self.shared().counters.add(Counter::Adopted, 1);
        let ip = client.source.ip();
        // Above a cap of this engine the session ends in order, as if another connection had taken its place.
        let place = self.with_room(entry, Some(ip), || self.admission.admit(ip, entry.number)).ok();
        let account = is_charged.then(|| self.accounts.account(ip));
        let open =
            Open::going_on(&self.shared().counters, place, account, (connection.began, connection.shaken));
        self.note_fill();
        let mut guest = Guest { by_names: connection.by_names, ..self.guest(entry, client) };
        self.keep(&mut guest, connection.identity.clone());
        serve(link, guest, Rc::clone(self), open, carried);
    }
}
