//! A session as the asker of a query.
//!
//! Before: its reader has a query. After: it has the answer, or waits for one outcome.
//! Holds: nothing. Never: gives a client two outcomes.

use std::{net::IpAddr, rc::Rc};

use super::{Inbox, failure_reply};
use crate::{
    backend::{Failure, Sink},
    dns::{Asked, Query, Reply},
    events::What,
    ledger::{Counter, Disposal},
    policy::TenantId,
    proxy::Client,
    session::{SessionEnd, asker::Suspect, shared_answers::Asker},
};

impl Asker for Rc<Inbox> {
    fn pass(&self, asked: Asked, response: &[u8]) -> bool {
        self.screened(asked, response, Disposal::Cached).is_ok()
    }

    fn source(&self) -> IpAddr {
        self.client.source.ip()
    }

    fn pass_made(&self, asked: Asked, response: &[u8], _: bool) {
        let _ = self.append_response(asked, response, Disposal::Responded);
    }

    fn is_datagram(&self) -> bool {
        false
    }

    fn expect(&self) -> Rc<dyn Sink> {
        self.in_flight.set(self.in_flight.get() + 1);
        self.shared.clients.begin_query(self.row);
        Rc::clone(self) as Rc<dyn Sink>
    }

    fn client(&self) -> Option<Client> {
        Some(self.client.clone())
    }

    /// A session without a query in flight is read, because no answer would wake it. If only the reserve is left and
    /// its client has used its share of that, the client gets SERVFAIL.
    fn is_deferred(&self, message: &[u8], query: &Query) -> bool {
        let is_refused =
            self.in_flight.get() == 0 && !self.shared.has_share_of_first(self.member.get().tenant, self.row);
        if is_refused {
            let (question, reply) = failure_reply(Asked::by(query), message, Failure::Full);
            self.answer(&question, &reply);
            self.shared.counters.add(Counter::Responded, 1);
            self.shared.counters.add(Counter::QueriesOverShare, 1);
            self.refused(Counter::QueriesOverShare);
        }
        is_refused
    }

    fn tenant(&self) -> TenantId {
        self.member.get().tenant
    }

    fn suspect(&self) -> Option<&dyn Suspect> {
        Some(self)
    }
}

impl Suspect for Rc<Inbox> {
    fn reply(&self, message: &[u8], reply: &Reply) {
        self.answer(message, reply);
    }

    fn send_to_tcp(&self, _: &[u8], _: &Query) {}

    fn end_by(&self, end: SessionEnd) {
        self.standing.end_by(end);
        self.wake();
    }

    fn tell(&self, what: What, refused: Option<Counter>) {
        self.tell_misuse(what, refused);
    }
}
