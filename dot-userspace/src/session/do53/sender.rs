//! Who asked by a datagram: while it is looked at, and while it waits for an answer.
//!
//! Before: a door has a query. After: the answer waits to leave by that door, and the place is another datagram's.
//! Holds: both ends, the client's row, and for whom a load balancer sent it; places are used again, so that a datagram
//! allocates nothing once the socket is warm.
//! Never: answers twice, or holds a door that it owes nothing.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::{Rc, Weak},
};

use super::{Endpoint, Ends};
use crate::{
    backend::{Broken, Failure, Sink},
    dns::{Asked, Query},
    ledger::{Counter, Disposal},
    proxy::Client,
    session::{clients::Row, failure::failure_reply, shared_answers::Asker},
};

/// Senders kept for the next queries: half a MiB of them at most.
const SPARE_SENDERS_MAX: usize = 4096;

/// A datagram that is being looked at.
pub(super) struct Asking<'a> {
    /// Where it came.
    pub(super) endpoint: &'a Rc<Endpoint>,
    /// Both its ends.
    pub(super) ends: Ends,
    /// What its client uses up of this worker.
    pub(super) row: Row,
    /// For whom a load balancer sent it.
    pub(super) client: Option<Client>,
    /// As many octets as its client takes.
    pub(super) octets_max: usize,
}

impl Asker for Asking<'_> {
    fn pass(&self, asked: Asked, response: &[u8]) -> bool {
        self.endpoint.pass(self.ends, self.octets_max, asked, response, Disposal::Cached).is_ok()
    }

    fn expect(&self) -> Rc<dyn Sink> {
        self.endpoint.shared.owe(1);
        self.endpoint.shared.clients.begin_datagram(self.row);
        let spare = self.endpoint.spare.borrow_mut().pop();
        // Whoever had it as its sink may not have let go of it yet.
        let sender = spare.filter(|spare| Rc::strong_count(spare) == 1).unwrap_or_else(Sender::nobody);
        sender.owed.replace(Some(Owed {
            endpoint: Rc::clone(self.endpoint),
            ends: self.ends,
            row: self.row,
            client: self.client.clone(),
            octets_max: self.octets_max,
        }));
        sender
    }

    fn client(&self) -> Option<Client> {
        Some(self.client.clone().unwrap_or_else(|| client_of(self.endpoint, &self.ends)))
    }

    fn is_deferred(&self, message: &[u8], query: &Query) -> bool {
        let is_deferred = !self.endpoint.shared.has_datagram_share(self.row);
        if is_deferred {
            self.endpoint.shared.counters.add(Counter::DatagramsDeferred, 1);
            self.endpoint.send_to_tcp(self.ends, message, query);
        }
        is_deferred
    }
}

/// Who sent a datagram, and whither.
fn client_of(endpoint: &Endpoint, ends: &Ends) -> Client {
    let host = ends.ours.map_or(endpoint.address.ip(), |(host, _)| host);
    let destination = SocketAddr::new(host, endpoint.address.port());
    Client { source: ends.client, destination, is_datagram: true, tls: None, tlvs: None }
}

/// A datagram's sender, who waits for an answer; afterwards another one's place.
pub(super) struct Sender {
    /// `None`: nothing any more.
    owed: RefCell<Option<Owed>>,
    itself: Weak<Self>,
}

/// What a sender waits for.
struct Owed {
    endpoint: Rc<Endpoint>,
    ends: Ends,
    row: Row,
    /// For whom a load balancer sent the query.
    client: Option<Client>,
    octets_max: usize,
}

impl Sender {
    fn nobody() -> Rc<Self> {
        Rc::new_cyclic(|itself| Self { owed: RefCell::default(), itself: Weak::clone(itself) })
    }

    /// It has its answer: its place is for the next one.
    fn settle(&self) {
        let Some(owed) = self.owed.take() else { return };
        owed.endpoint.shared.settle(1);
        owed.endpoint.shared.clients.end_datagram(owed.row);
        let mut spare = owed.endpoint.spare.borrow_mut();
        if let Some(itself) = self.itself.upgrade().filter(|_| spare.len() < SPARE_SENDERS_MAX) {
            spare.push(itself);
        }
    }
}

/// However it ends: the worker does not wait for it any more.
impl Drop for Sender {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Sink for Sender {
    fn client(&self) -> Option<Client> {
        let owed = self.owed.borrow();
        let Owed { endpoint, ends, client, .. } = owed.as_ref()?;
        Some(client.clone().unwrap_or_else(|| client_of(endpoint, ends)))
    }

    fn response(&self, asked: Asked, response: &[u8]) -> Result<(), Broken> {
        if let Some(Owed { endpoint, ends, octets_max, .. }) = self.owed.borrow().as_ref() {
            endpoint.pass(*ends, *octets_max, asked, response, Disposal::Forwarded)?;
        }
        self.settle();
        Ok(())
    }

    fn failure(&self, asked: Asked, query: &[u8], failure: Failure) {
        if let Some(Owed { endpoint, ends, .. }) = self.owed.borrow().as_ref() {
            let (message, reply) = failure_reply(asked, query, failure);
            endpoint.answer_as(*ends, &message, &reply, (asked.since, Disposal::Failed));
        }
        self.settle();
    }
}
