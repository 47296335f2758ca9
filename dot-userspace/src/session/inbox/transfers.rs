//! Zone transfers on their way to one client: many messages for one query.
//!
//! Before: `reader` has a query for a zone. After: each message of it is in the inbox, while its client takes them.
//! Never: counts a second response for one query; goes on for a client that has left.

use std::{convert::Infallible, rc::Rc};

use tokio::sync::Notify;

use super::{Inbox, WAITING_OCTETS_MAX};
use crate::{
    backend::{Failure, Receiver},
    dns::{self, Asked, Query},
    ledger::{Counter, Disposal},
    session::{failure::failure_reply, shared_answers::Asker as _},
};

impl Receiver for Inbox {
    fn has_room(&self) -> bool {
        self.waiting() < WAITING_OCTETS_MAX
    }

    fn is_open(&self) -> bool {
        self.is_open.get()
    }

    fn changes(&self) -> Rc<Notify> {
        Rc::clone(self.changes.get_or_init(Rc::default))
    }

    fn message(&self, message: &[u8], is_first: bool) {
        if !self.is_open.get() {
            self.shared.counters.add(Counter::DroppedClientGone, u64::from(is_first));
            return;
        }
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(message);
            Ok::<_, Infallible>(())
        };
        match is_first {
            true => drop(self.append(false, (None, Disposal::Forwarded), write)),
            false => self.append_uncounted(write),
        }
        self.wake();
    }

    fn end(&self, asked: Asked, query: &[u8], is_whole: bool) {
        if !is_whole && self.is_open.get() {
            // The ledger has already counted a response for this query: this message is for the client only (RFC 5936
            // §2.2).
            let ((message, reply), hop) = (failure_reply(asked, query, Failure::Unreachable), self.hop());
            self.append_uncounted(|out| {
                dns::synthesize(&message, &reply, hop, out);
                Ok(())
            });
        }
        self.settle();
    }
}

/// Starts a zone transfer. If no backend takes it, the client gets SERVFAIL at once.
pub(in crate::session) fn transfer(message: &[u8], query: &Query, inbox: &Rc<Inbox>) {
    let sink = inbox.expect();
    let receiver = Rc::clone(inbox) as Rc<dyn Receiver>;
    if let Err(failure) =
        inbox.shared.backends_of(inbox.member.get().tenant).transfer(message, query, receiver)
    {
        inbox.shared.counters.add(Counter::Responded, 1);
        sink.failure(Asked::by(query), message, failure);
    }
}
