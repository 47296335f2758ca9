//! Acts on what triage decided about a message: the one dispatch for streams and datagrams.
//!
//! Before: a message was read. After: it is at a backend, answered, or dropped, and its fate is counted.
//! Never: decides about a message, or knows over which transport it came.

use crate::{
    dns::{Disposition, DropReason, Ede, Query, Rcode, Reply},
    ledger::{Counter, WorkerCounters},
};

/// The client that waits for a response to one message.
pub(super) trait Recipient {
    /// Gives it a response of dotd's own.
    fn answer(&self, message: &[u8], reply: &Reply);

    /// Makes the cache or a backend answer the query.
    fn forward(self, message: &[u8], query: &Query);

    /// Says which resolver this is.
    fn describe(self, message: &[u8], query: &Query);

    /// Handles a NOTIFY, or lets it be answered as a query.
    fn notify(self, message: &[u8], query: &Query);

    /// Makes a backend transfer the zone, or refuses if the transport has no room for one.
    fn transfer(self, message: &[u8], query: &Query);
}

/// Why a client's queries are refused.
#[derive(Clone, Copy)]
pub(super) struct Refusal {
    pub ede: Ede,
    pub counter: Counter,
}

impl Refusal {
    /// The client may not ask.
    pub(super) const ACCESS: Self = Self { ede: Ede::NOT_SERVED, counter: Counter::AccessRefused };
    /// The client's tenant exceeds its rate.
    pub(super) const TENANTS_RATE: Self =
        Self { ede: Ede::OVER_TENANTS_RATE, counter: Counter::TenantOverRate };
    /// The client's tenant does not let it ask from its address.
    pub(super) const TENANTS_ALLOW: Self = Self { ede: Ede::NOT_SERVED, counter: Counter::TenantNotAllowed };
    /// What it asks is misuse.
    pub(super) const MISUSE: Self = Self { ede: Ede::MISUSE, counter: Counter::MisuseRefused };
    /// The client exceeds its rate.
    pub(super) const RATE: Self = Self { ede: Ede::OVER_RATE, counter: Counter::QueriesRefused };
}

/// The result for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// The message was counted with its outcome, and reading continues.
    Handled,
    /// The query was refused, for the reason that the caller gave.
    Refused,
    /// The message was counted, without an outcome, and the framing cannot be trusted any more.
    Closed,
}

/// Acts on the `disposition` of `message`; with a `refusal`, queries are answered REFUSED.
pub(super) fn act_on(
    disposition: Disposition,
    message: &[u8],
    refusal: Option<Refusal>,
    recipient: impl Recipient,
    counters: &WorkerCounters,
) -> Done {
    let query = match &disposition {
        Disposition::Forward(query)
        | Disposition::Describe(query)
        | Disposition::Notified(query)
        | Disposition::Transfer(query) => Some(query),
        Disposition::Respond(_) | Disposition::Drop(_) | Disposition::Close(_) => None,
    };
    if let (Some(refusal), Some(query)) = (refusal, query) {
        recipient.answer(message, &Reply::to(query, Rcode::REFUSED, Some(refusal.ede)));
        counters.add(Counter::Responded, 1);
        counters.add(refusal.counter, 1);
        return Done::Refused;
    }
    match disposition {
        Disposition::Forward(query) => recipient.forward(message, &query),
        Disposition::Describe(query) => recipient.describe(message, &query),
        Disposition::Notified(query) => recipient.notify(message, &query),
        Disposition::Transfer(query) => recipient.transfer(message, &query),
        Disposition::Respond(reply) => {
            recipient.answer(message, &reply);
            counters.add(Counter::Responded, 1);
        }
        Disposition::Drop(reason) => counters.add(drop_counter(reason), 1),
        Disposition::Close(reason) => {
            counters.add(drop_counter(reason), 1);
            return Done::Closed;
        }
    }
    Done::Handled
}

fn drop_counter(reason: DropReason) -> Counter {
    match reason {
        DropReason::IsResponse => Counter::DroppedResponse,
        DropReason::Short => Counter::DroppedShort,
    }
}
