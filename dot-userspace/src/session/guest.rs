//! Whom a session is for, and whether it may ask.
//!
//! Before: `worker` judged a client by its address and by what its handshake showed. After: the session serves it, answers
//! REFUSED, or ends.
//! Holds: where the client came in, so that new lists of a reload judge it again.
//! Never: judges names again: a reload's lists of names hold for new connections.

use std::{cell::Cell, net::SocketAddr};

use crate::{
    ledger::Counter,
    policy::{Access, Denial},
    proxy::Client,
};

/// Whom a session is for.
#[derive(Debug)]
pub struct Guest {
    /// Both ends, and its TLS.
    pub client: Client,
    /// The listen address at which it came in, as the config has it; `None`: no list of a listener is for it.
    pub listener: Option<SocketAddr>,
    /// Why it may not ask, by its address.
    pub by_address: Option<Denial>,
    /// The same by what its handshake showed.
    pub by_names: Option<Denial>,
}

impl From<Client> for Guest {
    fn from(client: Client) -> Self {
        Self { client, listener: None, by_address: None, by_names: None }
    }
}

/// Whether a session's client may ask.
#[derive(Debug)]
pub(super) struct Standing {
    listener: Option<SocketAddr>,
    by_address: Cell<Option<Denial>>,
    by_names: Option<Denial>,
}

impl Standing {
    pub(super) fn of(guest: &Guest) -> Self {
        Self { listener: guest.listener, by_address: Cell::new(guest.by_address), by_names: guest.by_names }
    }

    /// Judges the address again, by the lists of now. `true`: it may not ask any more, or in another way than before.
    pub(super) fn judge(&self, access: Option<&Access>, client: SocketAddr) -> bool {
        let listener = self.listener.unwrap_or(client);
        let denial = access.and_then(|access| access.denies_address(listener, client.ip()));
        self.by_address.replace(denial) != denial && denial.is_some()
    }

    /// Each query is REFUSED.
    pub(super) fn is_refused(&self) -> bool {
        self.by_address.get().or(self.by_names).is_some()
    }

    /// Why, as it is counted.
    pub(super) fn reason(&self) -> Option<Counter> {
        self.by_address.get().or(self.by_names).map(|denial| denial.reason.counter())
    }

    /// The session ends.
    pub(super) fn is_denied(&self) -> bool {
        [self.by_address.get(), self.by_names].into_iter().flatten().any(|denial| denial.is_silent)
    }
}
