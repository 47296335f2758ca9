//! Events of traced clients become spans: one for each connection, with its handshake within, and one for each query.
//!
//! Before: workers and the kernel half report events of traced clients. After: `otlp::json` writes the spans for a collector.
//! Holds: connections that are open, and queries that wait for their response: at most [`CONNECTIONS_MAX`] and
//! [`QUERIES_MAX`] of each. Never: waits; what has no room is counted.
//!
//! A query has a trace of its own, because a connection may last for hours; it is linked to its connection.
//!
//! Source: OpenTelemetry, trace API and semantic conventions (client, network, tls, dns).

use std::collections::{HashMap, VecDeque};

use crate::events::{SpanIds, TraceEvent, What};

/// Most clients (address and port) at the same time.
const CONNECTIONS_MAX: usize = 4096;
/// Most waiting queries of one client.
const QUERIES_MAX: usize = 256;
/// A client without events for this time is forgotten when another one comes: its end was lost.
const FORGOTTEN_US: u64 = 300_000_000;

/// Most events of a span; further ones are counted in it. As many as OpenTelemetry's SDKs keep.
const SPAN_EVENTS_MAX: usize = 128;

/// SPAN_KIND_INTERNAL and SPAN_KIND_SERVER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Internal = 1,
    Server = 2,
}

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
    Flag(bool),
}

/// Names and values.
pub(super) type Attributes = Vec<(&'static str, Value)>;

/// One span.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) ids: SpanIds,
    pub(super) parent: Option<u64>,
    pub(super) link: Option<SpanIds>,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) start_us: u64,
    pub(super) end_us: u64,
    pub(super) attributes: Attributes,
    /// Its events: time, name and attributes.
    pub(super) events: Vec<(u64, &'static str, Attributes)>,
    /// Further events, for which there was no room.
    pub(super) events_dropped: u32,
    pub(super) is_error: bool,
}

impl Span {
    /// Notes an event.
    fn note(&mut self, at_us: u64, name: &'static str, attributes: Attributes) {
        if self.events.len() < SPAN_EVENTS_MAX {
            self.events.push((at_us, name, attributes));
        } else {
            self.events_dropped = self.events_dropped.saturating_add(1);
        }
    }
}

/// A query in a bucket of a histogram.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) transport: &'static str,
    pub(super) disposition: String,
    pub(super) trace: u128,
    pub(super) took_us: u64,
    pub(super) at_us: u64,
}

/// The clients that are followed.
#[derive(Default)]
pub(super) struct Spans {
    clients: HashMap<String, Client>,
    pub(super) done: Vec<Span>,
    pub(super) seen: Vec<Seen>,
    /// Spans for which there was no room.
    pub(super) lost: u64,
}

/// A client's address and port.
struct Client {
    connection: Option<Span>,
    /// It has a connection, which may be older than the trace.
    is_session: bool,
    is_encrypted: bool,
    queries: VecDeque<(u16, Span)>,
    heard_us: u64,
}

impl Spans {
    /// Takes an event.
    pub(super) fn take(&mut self, event: TraceEvent) {
        let TraceEvent { at_us, client, session, what, .. } = event;
        match what {
            What::Lost { .. } => {}
            What::Packet { to, verdict, reason, key, .. } => {
                self.packet(at_us, client, (to, verdict, reason, key))
            }
            What::Accepted { listener, syn_us } => {
                let start_us = at_us.saturating_sub(syn_us.unwrap_or_default().into());
                if let Some(entry) = self.client(client.clone(), at_us) {
                    let connection = entry.connection.get_or_insert_with(|| connection(start_us, &client));
                    // A connection whose end was lost may be accepted again.
                    connection.attributes.retain(|(name, _)| *name != "server.address");
                    connection.attributes.push(("server.address", Value::Text(listener)));
                    connection.note(at_us, "accepted", Vec::new());
                }
            }
            What::Query { id, octets, qtype, name, ids } => {
                let link = self.clients.get(&client).and_then(|entry| Some(entry.connection.as_ref()?.ids));
                let mut attributes = vec![("client.address", Value::Text(address_of(&client).to_owned()))];
                let is_session = session.is_some();
                let session = session.map(|session| ("dotd.session", Value::Text(session)));
                let number = ("dns.question.type", qtype.map(|qtype| Value::Number(qtype.into())));
                attributes.extend(session);
                attributes.extend(number.1.map(|value| (number.0, value)));
                attributes.extend(name.map(|name| ("dns.question.name", Value::Text(name))));
                attributes.push(("dotd.query.octets", Value::Number(octets as u64)));
                let ids = ids.unwrap_or_else(SpanIds::draw);
                let span = Span { link, ..span(ids, "query", Kind::Server, at_us, attributes) };
                let Some(entry) = self.client(client, at_us) else { return };
                entry.is_session |= is_session;
                if entry.queries.len() < QUERIES_MAX {
                    entry.queries.push_back((id, span));
                } else {
                    self.lost += 1;
                }
            }
            what => self.of_known(at_us, &client, what),
        }
    }

    /// Handles an event of a followed client.
    fn of_known(&mut self, at_us: u64, client: &str, what: What) {
        let Some(entry) = self.clients.get_mut(client) else { return };
        entry.heard_us = at_us;
        match what {
            What::Handshake {
                tls, resumed, alpn, server_name, offered, fingerprint, handshake_us, ..
            } => {
                entry.is_encrypted = true;
                let Some(connection) = &entry.connection else { return };
                let mut attributes = vec![
                    ("tls.protocol.version", Value::Text(tls)),
                    ("tls.resumed", Value::Flag(resumed)),
                    ("dotd.alpn", Value::Flag(alpn)),
                ];
                let texts = [
                    ("tls.client.server_name", server_name),
                    ("dotd.tls.offered", offered),
                    ("tls.client.ja4", fingerprint),
                ];
                attributes
                    .extend(texts.into_iter().filter_map(|(name, text)| Some((name, Value::Text(text?)))));
                let ids = SpanIds { trace: connection.ids.trace, ..SpanIds::draw() };
                let start_us = at_us.saturating_sub(handshake_us.into());
                let span = span(ids, "tls handshake", Kind::Internal, start_us, attributes);
                self.done.push(Span { parent: Some(connection.ids.span), end_us: at_us, ..span });
            }
            What::Response { .. } => self.response(at_us, client, what),
            What::Refused { reason, key, .. } => {
                let Some(connection) = &mut entry.connection else { return };
                let mut attributes = vec![("dotd.reason", Value::Text(reason))];
                attributes.extend(key.map(|key| ("dotd.key", Value::Text(key))));
                connection.note(at_us, "refused", attributes);
                connection.is_error = true;
            }
            What::Ended { end, queries, .. } => {
                let Some(entry) = self.clients.remove(client) else { return };
                self.lost += entry.queries.len() as u64;
                let Some(mut connection) = entry.connection else { return };
                connection.end_us = at_us;
                connection.attributes.push(("dotd.end", Value::Text(end)));
                connection.attributes.push(("dotd.queries", Value::Number(queries.into())));
                self.done.push(connection);
            }
            _ => {}
        }
    }

    /// A response to a query that waits.
    fn response(&mut self, at_us: u64, client: &str, what: What) {
        let What::Response { id, octets, rcode, by, took_us, backend, tries } = what else { return };
        let Some(entry) = self.clients.get_mut(client) else { return };
        let is_datagram = entry.connection.is_none() && !entry.is_session;
        let Some(place) = entry.queries.iter().position(|(waiting, _)| *waiting == id) else { return };
        let Some((_, mut span)) = entry.queries.remove(place) else { return };
        span.end_us = at_us;
        span.is_error = by == "failed";
        let transport = match (is_datagram, entry.is_encrypted) {
            (true, _) => Some("do53-udp"),
            (false, true) => Some("dot"),
            (false, false) if entry.connection.is_some() => Some("do53-tcp"),
            // The handshake came before the trace, or there was none.
            (false, false) => None,
        };
        let texts = [
            ("dotd.transport", transport.map(str::to_owned)),
            ("dotd.disposition", Some(by.clone())),
            ("dotd.backend", backend),
        ];
        span.attributes.extend(texts.into_iter().filter_map(|(name, text)| Some((name, Value::Text(text?)))));
        let numbers = [
            ("dns.response_code", Some(u64::from(rcode))),
            ("dotd.response.octets", Some(octets as u64)),
            ("dotd.tries", tries.map(u64::from)),
        ];
        span.attributes
            .extend(numbers.into_iter().filter_map(|(name, one)| Some((name, Value::Number(one?)))));
        let trace = span.ids.trace;
        if let (Some(transport), Some(took_us)) = (transport, took_us) {
            self.seen.push(Seen { transport, disposition: by, trace, took_us, at_us });
        }
        self.done.push(span);
        if is_datagram && entry.queries.is_empty() {
            self.clients.remove(client);
        }
    }

    /// A packet that begins a connection, or that was refused.
    fn packet(
        &mut self,
        at_us: u64,
        client: String,
        (to, verdict, reason, key): (String, String, String, Option<String>),
    ) {
        let is_refused = verdict != "pass";
        let mut attributes =
            vec![("dotd.verdict", Value::Text(verdict)), ("dotd.reason", Value::Text(reason))];
        attributes.extend(key.map(|key| ("dotd.key", Value::Text(key))));
        if is_refused {
            attributes.push(("client.address", Value::Text(address_of(&client).to_owned())));
            attributes.push(("server.address", Value::Text(to)));
            let refused = span(SpanIds::draw(), "packet refused", Kind::Server, at_us, attributes);
            self.done.push(Span { is_error: true, ..refused });
        } else if let Some(entry) = self.client(client.clone(), at_us) {
            let connection = entry.connection.get_or_insert_with(|| connection(at_us, &client));
            connection.note(at_us, "syn", attributes);
        }
    }

    /// The entry of a client. `None`: there is no room, which is counted.
    fn client(&mut self, client: String, now_us: u64) -> Option<&mut Client> {
        if self.clients.len() >= CONNECTIONS_MAX && !self.clients.contains_key(&client) {
            self.clients.retain(|_, entry| now_us.saturating_sub(entry.heard_us) < FORGOTTEN_US);
        }
        if self.clients.len() >= CONNECTIONS_MAX && !self.clients.contains_key(&client) {
            self.lost += 1;
            return None;
        }
        let fresh = || Client {
            connection: None,
            is_session: false,
            is_encrypted: false,
            queries: VecDeque::new(),
            heard_us: now_us,
        };
        let entry = self.clients.entry(client).or_insert_with(fresh);
        entry.heard_us = now_us;
        Some(entry)
    }
}

fn connection(start_us: u64, client: &str) -> Span {
    let attributes = vec![
        ("client.address", Value::Text(address_of(client).to_owned())),
        ("network.transport", Value::Text("tcp".to_owned())),
    ];
    span(SpanIds::draw(), "connection", Kind::Server, start_us, attributes)
}

fn span(ids: SpanIds, name: &'static str, kind: Kind, at_us: u64, attributes: Attributes) -> Span {
    Span {
        ids,
        parent: None,
        link: None,
        name,
        kind,
        start_us: at_us,
        end_us: at_us,
        attributes,
        events: Vec::new(),
        events_dropped: 0,
        is_error: false,
    }
}

/// The address of an address and port.
fn address_of(client: &str) -> &str {
    client.rsplit_once(':').map_or(client, |(address, _)| address)
}

#[cfg(test)]
mod tests;
