//! Reports a session's messages to traces of its client and to a dnstap reader.
//!
//! Before: a message was read, or a response is ready. After: each trace of this client has an event, and the reader
//! has a copy.
//! Never: costs more than a branch while there is no trace and no reader; holds a name unless a trace wants names.

use super::Inbox;
use crate::{
    dns::{self, Disposition},
    events::{
        What, answering,
        tap::{self, OfQuery, Tapped, Way},
    },
    ledger::{Disposal, turn_time},
    moment::Moment,
};

/// The event for a message that was read.
pub(super) fn query(message: &[u8], with_names: bool) -> What {
    let name = dns::asked_name(message);
    let qtype =
        name.and_then(|name| message.get(dns::HEADER_OCTETS + name.len()..)?.first_chunk::<2>().copied());
    What::Query {
        id: id_of(message),
        octets: message.len(),
        qtype: qtype.map(u16::from_be_bytes),
        name: name.filter(|_| with_names).map(dns::name_in_words),
        ids: None,
    }
}

/// The event for a response.
pub(super) fn response(message: &[u8], since: Option<Moment>, disposal: Disposal) -> What {
    let took = since.map(|since| turn_time::moment().nanoseconds_since(since) / 1000);
    let by = answering().filter(|_| matches!(disposal, Disposal::Forwarded));
    let (backend, tries) = by.map(|(name, tries)| (name.to_string(), tries)).unzip();
    What::Response {
        id: id_of(message),
        octets: message.len(),
        rcode: message.get(3).copied().unwrap_or_default() & 0x0f,
        by: disposal.name().to_owned(),
        took_us: took,
        backend,
        tries,
    }
}

fn id_of(message: &[u8]) -> u16 {
    message.first_chunk::<2>().copied().map(u16::from_be_bytes).unwrap_or_default()
}

impl Inbox {
    /// Reports an event, if there is a trace of the client.
    #[inline]
    pub(super) fn tell(&self, what: impl Fn(bool) -> What) {
        self.shared.events.trace.tell(self.client.source, Some(self.number.get()), what);
    }

    /// Copies a message that was read for a dnstap reader.
    #[inline]
    pub(super) fn tap_query(&self, disposition: &Disposition, message: &[u8]) {
        tap_query(disposition, message, || Way::from(&self.client));
    }

    /// Copies a response for a dnstap reader. `since`: when its query was read.
    #[inline]
    pub(super) fn tap_response(&self, since: Option<Moment>, response: &[u8]) {
        tap_response(since, response, || Way::from(&self.client));
    }
}

/// Copies a message that was read in this turn for a dnstap reader, unless it is not a query.
#[inline]
pub(super) fn tap_query(disposition: &Disposition, message: &[u8], way: impl FnOnce() -> Way) {
    if tap::is_on() && !matches!(disposition, Disposition::Drop(_) | Disposition::Close(_)) {
        let read = Some(turn_time::moment());
        tap::tell(Tapped::ClientQuery, OfQuery { id: id_of(message), read, began: read }, way, message);
    }
}

/// Copies a response to a client for a dnstap reader.
#[inline]
pub(super) fn tap_response(since: Option<Moment>, response: &[u8], way: impl FnOnce() -> Way) {
    if tap::is_on() {
        let query = OfQuery { id: id_of(response), read: since, began: since };
        tap::tell(Tapped::ClientResponse, query, way, response);
    }
}
