//! Accepts connections from a worker's listeners and serves each one to its end. Step 4 of 9.
//!
//! Before: the kernel chose this worker for the connection. After: its handshake, session and end are counted.
//! Never: loops when descriptors run out, or lets one connection's panic end another one (each is a task of its own).

use std::{io, net::SocketAddr, rc::Rc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    task::spawn_local,
    time::{Instant, sleep},
};

use super::{
    acceptor::Acceptor,
    admission::Refused,
    entry::{Entry, Transport},
    open::Open,
    sessions::serve,
};
use crate::{
    ledger::Counter,
    proxy::{self, Client, Named},
    session::{Carried, Guest, Plain},
    tls::{self, Serving},
};

/// Pause after `accept` failed for a reason other than the connection itself: other connections must end first, or an
/// operator must act.
const ACCEPT_REST: Duration = Duration::from_millis(50);
/// Accepts until aborted.
pub(super) async fn accept_all(listener: Rc<TcpListener>, entry: Entry, acceptor: Rc<Acceptor>) {
    let counters = acceptor.shared().counters.clone();
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
    if acceptor.trusts(peer) && !acceptor.shared().is_off() {
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
    acceptor.shared().counters.add(counter, 1);
    acceptor.shared().events.refused(client, counter);
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
            acceptor.shared().events.refused(peer, counter);
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
