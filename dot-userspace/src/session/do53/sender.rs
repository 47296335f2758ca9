//! The sender of a datagram: while its query is judged, and while it waits for an answer.
//!
//! Before: an endpoint has a query. After: its answer waits to leave over that endpoint, and the sender's memory is
//! free for another datagram.
//! Holds: both addresses, the client's row, and the client that a load balancer named. Senders are reused, so a
//! datagram allocates nothing once the socket is warm.
//! Never: answers twice, or keeps an endpoint alive without waiting for an answer.

use std::{
    cell::RefCell,
    net::IpAddr,
    rc::{Rc, Weak},
};

use super::{Addressee, Endpoint, Ends};
use crate::{
    backend::{Broken, Failure, Sink},
    dns::{Asked, Query, Reply},
    events::What,
    ledger::{Counter, Disposal},
    policy::TenantId,
    proxy::Client,
    session::{
        SessionEnd, asker::Suspect, clients::Row, failure::failure_reply, screening::screen_answer,
        shared_answers::Asker,
    },
};

/// Senders kept for reuse: half a MiB of them at most.
const SPARE_SENDERS_MAX: usize = 4096;

/// A datagram that is being judged.
pub(super) struct Asking<'a> {
    /// The endpoint where it came in.
    pub(super) endpoint: &'a Rc<Endpoint>,
    /// Both its addresses.
    pub(super) ends: Ends,
    /// Its client's row in the worker's table.
    pub(super) row: Row,
    /// Its client's tenant.
    pub(super) tenant: TenantId,
    /// The client that a load balancer named.
    pub(super) client: Option<Client>,
    /// The longest answer that its client accepts.
    pub(super) octets_max: usize,
}

impl Asker for Asking<'_> {
    fn pass(&self, asked: Asked, response: &[u8]) -> bool {
        self.screened(asked, response, Disposal::Cached).is_ok()
    }

    fn source(&self) -> IpAddr {
        self.client.as_ref().map_or(self.ends.client, |client| client.source).ip()
    }

    fn pass_made(&self, asked: Asked, response: &[u8], is_cut: bool) {
        let octets_max = if is_cut { 0 } else { self.octets_max };
        let _ = self.endpoint.pass(self.addressee(), octets_max, asked, response, Disposal::Responded);
    }

    fn is_datagram(&self) -> bool {
        true
    }

    fn expect(&self) -> Rc<dyn Sink> {
        self.endpoint.shared.owe(1);
        self.endpoint.shared.clients.begin_datagram(self.row);
        let spare = self.endpoint.spare.borrow_mut().pop();
        // Another owner may still hold it as a sink.
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
        Some(self.addressee().client(self.endpoint))
    }

    fn is_deferred(&self, message: &[u8], query: &Query) -> bool {
        let is_deferred = !self.endpoint.shared.has_datagram_share(self.tenant, self.row);
        if is_deferred {
            self.endpoint.shared.counters.add(Counter::DatagramsDeferred, 1);
            self.endpoint.send_to_tcp(self.addressee(), message, query);
        }
        is_deferred
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn suspect(&self) -> Option<&dyn Suspect> {
        Some(self)
    }
}

impl Suspect for Asking<'_> {
    fn reply(&self, message: &[u8], reply: &Reply) {
        self.endpoint.answer(self.addressee(), message, reply);
    }

    fn send_to_tcp(&self, message: &[u8], query: &Query) {
        self.endpoint.send_to_tcp(self.addressee(), message, query);
    }

    fn end_by(&self, _: SessionEnd) {}

    fn tell(&self, what: What, refused: Option<Counter>) {
        self.endpoint.tell_misuse(self.addressee().source(), what, refused);
    }
}

impl Asking<'_> {
    fn addressee(&self) -> Addressee<'_> {
        Addressee { ends: self.ends, named: self.client.as_ref() }
    }

    /// Passes a response on, as policy zones change it.
    fn screened(&self, asked: Asked, response: &[u8], disposal: Disposal) -> Result<(), Broken> {
        let write = |asked, response: &[u8], is_cut| {
            let octets_max = if is_cut { 0 } else { self.octets_max };
            self.endpoint.pass(self.addressee(), octets_max, asked, response, disposal)
        };
        let shared = &self.endpoint.shared;
        if !shared.is_screened(self.tenant) {
            return write(asked, response, false);
        }
        screen_answer(
            shared,
            asked,
            response,
            (self.source(), true, self.tenant),
            || Some(self.expect()),
            write,
        )
    }
}

/// A datagram's sender, which waits for an answer; afterwards it is reused.
pub(super) struct Sender {
    /// `None`: it waits for nothing any more.
    owed: RefCell<Option<Owed>>,
    itself: Weak<Self>,
}

/// A query that a sender waits for.
struct Owed {
    endpoint: Rc<Endpoint>,
    ends: Ends,
    row: Row,
    /// The client that a load balancer named.
    client: Option<Client>,
    octets_max: usize,
}

impl Sender {
    fn nobody() -> Rc<Self> {
        Rc::new_cyclic(|itself| Self { owed: RefCell::default(), itself: Weak::clone(itself) })
    }

    /// The sender has its response, and may be reused.
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

/// The worker does not wait for the sender any more, however it ends.
impl Drop for Sender {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Sink for Sender {
    fn client(&self) -> Option<Client> {
        let owed = self.owed.borrow();
        let Owed { endpoint, ends, client, .. } = owed.as_ref()?;
        Some(Addressee { ends: *ends, named: client.as_ref() }.client(endpoint))
    }

    fn response(&self, asked: Asked, response: &[u8]) -> Result<(), Broken> {
        if let Some(Owed { endpoint, ends, row, client, octets_max }) = self.owed.borrow().as_ref() {
            let (ends, row, client, octets_max) = (*ends, *row, client.clone(), *octets_max);
            // Its tenant of this moment: a reload may have changed the list, in which a tenant is a place.
            let source = Addressee { ends, named: client.as_ref() }.source();
            let tenant = endpoint.member_of(source).tenant;
            let asking = Asking { endpoint, ends, row, tenant, client, octets_max };
            asking.screened(asked, response, Disposal::Forwarded)?;
        }
        self.settle();
        Ok(())
    }

    fn failure(&self, asked: Asked, query: &[u8], failure: Failure) {
        if let Some(Owed { endpoint, ends, client, .. }) = self.owed.borrow().as_ref() {
            let (message, reply) = failure_reply(asked, query, failure);
            let to = Addressee { ends: *ends, named: client.as_ref() };
            endpoint.answer_as(to, &message, &reply, (asked.since, Disposal::Failed));
        }
        self.settle();
    }
}
