//! Logs how connections ended: a line for each if an operator wants that, and an event for each refusal.
//!
//! Before: a handshake has failed, or a session is over. After: the log shows how long each part took.
//! Never: formats a line that is not written; holds a name that was asked for.

use std::net::SocketAddr;

use super::{accept::Acceptor, open::Open};
use crate::{
    ledger::Counter,
    session::{Ended, Guest},
    tls::HandshakeFailure,
};

impl Acceptor {
    /// A handshake has failed.
    pub(super) fn note_failure(&self, open: &Open, guest: &Guest, failure: HandshakeFailure) {
        let (client, counter) = (guest.client.source, failure.counter());
        // A client that leaves without an octet is a load balancer's health check.
        if failure != HandshakeFailure::Probe {
            self.shared().events.refused_by(client.ip(), counter, failure.alert());
        }
        tracing::debug!(client = %self.redacted(client), cause = counter.label(), "a handshake has failed");
        self.log(open, (client, guest.listener), counter, None);
    }

    /// A session is over.
    pub(super) fn note_end(&self, open: &Open, ends: (SocketAddr, Option<SocketAddr>), ended: Ended) {
        let (client, counter) = (ends.0, ended.end.counter());
        if ended.end.is_refusal() {
            self.shared().events.refused(client.ip(), counter);
        }
        tracing::debug!(client = %self.redacted(client), end = counter.label(), "a session has ended");
        self.log(open, ends, counter, Some(ended));
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
            tls = kind.map(|kind| if kind.is_tls13 { "1.3" } else { "1.2" }),
            resumed = kind.map(|kind| kind.is_resumed),
            alpn = kind.map(|kind| kind.has_alpn),
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
