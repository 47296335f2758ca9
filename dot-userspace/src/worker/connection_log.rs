//! Logs how connections ended: a line for each if an operator wants that, and an event for each refusal.
//!
//! Before: a handshake has failed, or a session has ended. After: the log shows how long each part took.
//! Never: formats a line that is not written; contains a qname.

use std::net::SocketAddr;

use dot_common::charge::Charge;

use super::{acceptor::Acceptor, charges::of_failure, entry::Entry, open::Open};
use crate::{
    events::{Effort, What},
    ledger::Counter,
    session::{Ended, Guest},
    tls::{Handshake, HandshakeFailure, HandshakeKind},
};

impl Acceptor {
    /// A handshake has been completed.
    pub(super) fn note_handshake(&self, open: &Open, guest: &Guest, handshake: &Handshake) {
        let (client, events) = (guest.client.source, &self.shared().events);
        events.heavy.add(client.ip(), Effort::Handshakes, 1);
        let cost = Charge::handshake(handshake.kind.is_resumed).units;
        events.heavy.add(client.ip(), Effort::Cost, cost.into());
        events.trace.tell(client, None, |_| What::Handshake {
            tls: version(handshake.kind).to_owned(),
            resumed: handshake.kind.is_resumed,
            alpn: handshake.kind.has_alpn,
            server_name: handshake.server_name.as_deref().map(str::to_owned),
            offered: handshake.offer.as_ref().map(|offer| offer.versions.clone()),
            fingerprint: handshake.offer.as_ref().map(|offer| offer.fingerprint.clone()),
            hello_us: open.shaken.map_or(0, |shaken| shaken.hello_us),
            handshake_us: open.shaken.map_or(0, |shaken| shaken.handshake_us),
        });
    }

    /// Reports the end of a connection to traces.
    fn tell_end(&self, open: &Open, whose: (SocketAddr, Option<u64>), end: Counter, queries: u32) {
        self.shared().events.trace.tell(whose.0, whose.1, |_| What::Ended {
            end: end.label().to_owned(),
            queries,
            open_us: u64::try_from(open.began.elapsed().as_micros()).unwrap_or(u64::MAX),
        });
    }

    /// A connection was accepted, and its client is known.
    pub(super) fn note_accepted(&self, entry: Entry, open: &Open, client: SocketAddr) {
        self.shared().events.trace.tell(client, None, |_| What::Accepted {
            listener: entry.listener.map(|listener| listener.to_string()).unwrap_or_default(),
            syn_us: open.syn_us,
        });
    }

    /// A handshake has failed.
    pub(super) fn note_failure(&self, open: &Open, guest: &Guest, failure: HandshakeFailure) {
        let (client, counter) = (guest.client.source, failure.counter());
        self.shared().events.heavy.add(client.ip(), Effort::Cost, of_failure(failure).units.into());
        // A client that leaves without an octet is a load balancer's health check.
        if failure != HandshakeFailure::Probe {
            self.shared().events.refused_by(client, None, counter, failure.alert());
        }
        self.tell_end(open, (client, None), counter, 0);
        tracing::debug!(client = %self.redacted(client), cause = counter.label(), "a handshake has failed");
        self.log(open, (client, guest.listener), counter, None);
    }

    /// A session has ended.
    pub(super) fn note_end(&self, open: &Open, ended: Ended) {
        let (client, counter) = (ended.client, ended.end.counter());
        if ended.end.is_refusal() {
            self.shared().events.refused_by(client, Some(ended.session), counter, None);
        }
        self.tell_end(open, (client, Some(ended.session)), counter, ended.queries);
        tracing::debug!(client = %self.redacted(client), end = counter.label(), "a session has ended");
        self.log(open, (client, ended.listener), counter, Some(ended));
    }

    /// A session continues in the next engine, which logs its end.
    pub(super) fn note_moved(&self, open: &Open, so_far: Ended) {
        self.tell_end(open, (so_far.client, Some(so_far.session)), Counter::EndMoved, so_far.queries);
    }

    /// Writes the line of a connection between these `ends`, client and listen address.
    fn log(
        &self,
        open: &Open,
        (client, listener): (SocketAddr, Option<SocketAddr>),
        end: Counter,
        ended: Option<Ended>,
    ) {
        if !self.shared().events.logs_connections() {
            return;
        }
        let kind = open.shaken.map(|shaken| shaken.kind);
        let microseconds = u64::try_from(open.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::info!(
            client = %self.redacted(client),
            listener = listener.map(tracing::field::display),
            tls = kind.map(version),
            resumed = kind.map(|kind| kind.is_resumed),
            alpn = kind.map(|kind| kind.has_alpn),
            syn_us = open.syn_us,
            hello_us = open.shaken.map(|shaken| shaken.hello_us),
            handshake_us = open.shaken.map(|shaken| shaken.handshake_us),
            open_us = microseconds,
            queries = ended.map(|ended| ended.queries),
            octets_taken = ended.map(|ended| ended.octets_taken),
            end = end.label(),
            "a connection has ended"
        );
    }
}

fn version(kind: HandshakeKind) -> &'static str {
    if kind.is_tls13 { "1.3" } else { "1.2" }
}
