//! Copies queries to backends, and their responses, for a dnstap reader.
//!
//! Before: the kernel or a connection has a query, or a response matches one. After: the reader has a copy.
//! Never: costs more than a branch while there is no reader.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use super::{
    BackendConfig,
    flights::{Flight, Flights, Half},
    ids::Ids,
};
use crate::{
    config::Transport,
    dns::Asked,
    events::tap::{self, Carrier, OfQuery, Tapped, Way},
    moment::Moment,
};

/// The kernel has the datagrams of these queries.
#[inline]
pub fn sent(backend: &BackendConfig, flights: &RefCell<Flights>, batch: &[u16]) {
    if tap::is_on() {
        let flights = flights.borrow();
        batch
            .iter()
            .filter_map(|slot| flights.get(*slot))
            .for_each(|flight| query(backend, flight, &flight.query));
    }
}

/// A query leaves as `octets`.
#[inline]
pub fn query(backend: &BackendConfig, flight: &Flight, octets: &[u8]) {
    if tap::is_on() {
        let local = flight.sent.as_ref().and_then(|(ids, _)| ids.local());
        let way = || way(backend, local, flight.half);
        tap::tell(Tapped::BackendQuery, of(flight.asked, flight.sent_at), way, octets);
    }
}

/// `message`, which came over `ids`, answers the query of `flight`.
#[inline]
pub fn response(backend: &BackendConfig, flight: &Flight, ids: &Rc<Ids>, half: Half, message: &[u8]) {
    if tap::is_on() {
        let way = || way(backend, ids.local(), half);
        tap::tell(Tapped::BackendResponse, of(flight.asked, flight.sent_at), way, message);
    }
}

/// A message of a zone transfer, over a connection of its own.
pub fn transfer(
    backend: &BackendConfig,
    what: Tapped,
    asked: Asked,
    local: Option<SocketAddr>,
    message: &[u8],
) {
    if tap::is_on() {
        tap::tell(what, of(asked, None), || way(backend, local, Half::Stream), message);
    }
}

fn of(asked: Asked, sent_at: Option<Moment>) -> OfQuery {
    OfQuery { id: asked.id, read: asked.since, began: sent_at }
}

fn way(backend: &BackendConfig, local: Option<SocketAddr>, half: Half) -> Way {
    let carrier = match (half, backend.transport) {
        (Half::Datagram, _) => Carrier::Udp,
        (Half::Stream, Transport::Tls) => Carrier::Dot,
        (Half::Stream, _) => Carrier::Tcp,
    };
    Way { asker: local, asked: backend.address, carrier }
}
