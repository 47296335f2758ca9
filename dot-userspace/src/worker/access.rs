//! Turns clients away that may not ask.
//!
//! Before: `accept` knows a client's address, or what its handshake showed. After: its connection is closed, or its session
//! knows that it is refused; each is counted by its reason.
//! Never: judges by itself: the lists of `policy` do.

use std::net::SocketAddr;

use super::accept::Acceptor;
use crate::{
    ledger::Counter,
    policy::{Denial, Identity},
    proxy::Client,
    session::Guest,
};

/// What is spoken on a listener's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// DNS over TLS.
    Dot,
    /// DNS in clear.
    Do53,
}

/// Where a connection comes in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) transport: Transport,
    /// The place of the listen address among all, the same in every worker.
    pub(super) number: usize,
    /// The listen address, as the config has it.
    pub(super) listener: Option<SocketAddr>,
}

impl Acceptor {
    /// Whether a client may not ask, and hears nothing: its connection is to be closed, and was counted as such.
    pub(super) fn closes_at(&self, entry: Entry, client: SocketAddr) -> bool {
        match self.by_address(entry, client).filter(|denial| denial.is_silent) {
            Some(denial) => {
                self.shared().counters.add(Counter::RefusedAccess, 1);
                self.note(denial, client);
                true
            }
            None => false,
        }
    }

    /// Whom a session will be for, as far as its address says.
    pub(super) fn guest(&self, entry: Entry, client: Client) -> Guest {
        let by_address = self.by_address(entry, client.source);
        by_address.inspect(|denial| self.note(*denial, client.source));
        Guest { listener: entry.listener, by_address, ..Guest::from(client) }
    }

    /// Notes whether a guest may not ask because of the names that its handshake showed.
    pub(super) fn recognise(
        &self,
        guest: &mut Guest,
        server_name: Option<Box<str>>,
        client_names: Vec<String>,
    ) {
        let (Some(access), Some(listener)) = (self.shared().access(), guest.listener) else { return };
        guest.by_names = access.denies_names(listener, &Identity { server_name, client_names });
        guest.by_names.inspect(|denial| self.note(*denial, guest.client.source));
    }

    fn by_address(&self, entry: Entry, client: SocketAddr) -> Option<Denial> {
        self.shared().denies(entry.listener?, client.ip())
    }

    fn note(&self, denial: Denial, client: SocketAddr) {
        let cause = denial.reason.counter().label();
        self.shared().counters.add(denial.reason.counter(), 1);
        self.shared().events.refused(client.ip(), denial.reason.counter());
        tracing::debug!(client = %self.redacted(client), cause, "a client may not ask");
    }
}
