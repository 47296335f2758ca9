//! Refuses clients that may not ask.
//!
//! Before: `accept` knows a client's address, or the names in its handshake. After: its connection is closed, or its
//! session answers REFUSED; each refusal is counted by its reason.
//! Never: judges by itself: the lists are in `policy`.

use std::net::SocketAddr;

use super::{
    acceptor::Acceptor,
    entry::{Entry, Transport},
};
use crate::{
    ledger::Counter,
    policy::{Denial, Identity},
    proxy::{Client, Tlvs},
    session::Guest,
    tls::Handshake,
};

impl Acceptor {
    /// Whether the service is switched off, so that a connection for it must be closed; counts the connection.
    pub(super) fn is_off(&self, entry: Entry) -> bool {
        let is_off = entry.transport == Transport::Dot && self.shared().is_off();
        if is_off {
            self.shared().counters.add(Counter::RefusedOff, 1);
        }
        is_off
    }

    /// Whether a client may not ask and gets no response: its connection must be closed; the refusal is counted.
    pub(super) fn closes_at(&self, entry: Entry, client: SocketAddr) -> bool {
        match self.by_address(entry.listener, client).filter(|denial| denial.is_silent) {
            Some(denial) => {
                self.shared().counters.add(Counter::RefusedAccess, 1);
                self.note(denial, client);
                true
            }
            None => false,
        }
    }

    /// The client of a session with the judgement about its address.
    pub(super) fn guest(&self, entry: Entry, client: Client) -> Guest {
        let by_address = self.by_address(entry.listener, client.source);
        by_address.inspect(|denial| self.note(*denial, client.source));
        let member = self.shared().member_of(entry.listener, client.source.ip(), None);
        Guest { listener: entry.listener, by_address, member, ..Guest::from(client) }
    }

    /// Keeps the names in a handshake for backends, if one of them learns who asks.
    pub(super) fn name(&self, client: &mut Client, handshake: &Handshake) {
        if self.shared().learn_clients() {
            let Handshake { server_name, common_name, .. } = handshake;
            client.tlvs = Tlvs::named(client.tlvs.take(), server_name.as_deref(), common_name.as_deref());
        }
    }

    /// Judges a client at the end of its handshake: by the names in it, and again by its address, because a reload may have come since
    /// it connected.
    pub(super) fn recognise(
        &self,
        guest: &mut Guest,
        server_name: Option<Box<str>>,
        client_names: Vec<String>,
    ) {
        let before = guest.by_address;
        guest.by_address = self.by_address(guest.listener, guest.client.source);
        guest
            .by_address
            .filter(|_| before.is_none())
            .inspect(|denial| self.note(*denial, guest.client.source));
        let identity = Identity { server_name, client_names };
        if let (Some(access), Some(listener)) = (self.shared().access(), guest.listener) {
            guest.by_names = access.denies_names(listener, &identity);
            guest.by_names.inspect(|denial| self.note(*denial, guest.client.source));
        }
        self.keep(guest, self.shared().keeps_names().then(|| Box::new(identity.kept())));
    }

    /// Keeps the names in its handshake with a client, if a tenant is recognised by names, and chooses its tenant.
    pub(super) fn keep(&self, guest: &mut Guest, identity: Option<Box<Identity>>) {
        let client = guest.client.source.ip();
        guest.member = self.shared().member_of(guest.listener, client, identity.as_deref());
        guest.identity = identity;
    }

    fn by_address(&self, listener: Option<SocketAddr>, client: SocketAddr) -> Option<Denial> {
        self.shared().denies(listener?, client.ip())
    }

    fn note(&self, denial: Denial, client: SocketAddr) {
        let cause = denial.reason.counter().label();
        self.shared().counters.add(denial.reason.counter(), 1);
        self.shared().events.refused(client, denial.reason.counter());
        tracing::debug!(client = %self.redacted(client), cause, "a client may not ask");
    }
}
