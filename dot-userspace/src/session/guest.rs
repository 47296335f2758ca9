//! The client of a session, and whether it may ask.
//!
//! Before: `worker` judged a client by its address and by its handshake. After: the session serves it, answers REFUSED,
//! or ends.
//! Holds: the listener of the client, so that a reload's lists can judge it again.
//! Never: judges names again: a reload's lists of names apply to new connections only.

use std::{cell::Cell, net::SocketAddr};

use super::SessionEnd;
use crate::{
    ledger::Counter,
    policy::{Access, Denial, Identity, Member},
    proxy::Client,
};

/// A client and the judgement about it.
#[derive(Debug)]
pub struct Guest {
    /// Both ends, and its TLS.
    pub client: Client,
    /// The configured listen address at which it came in. `None`: no listener has a list for it.
    pub listener: Option<SocketAddr>,
    /// Why its address may not ask.
    pub by_address: Option<Denial>,
    /// Why the names in its handshake may not ask.
    pub by_names: Option<Denial>,
    /// Its tenant.
    pub member: Member,
    /// The names in its handshake, if a tenant is recognised by names.
    pub identity: Option<Box<Identity>>,
}

impl From<Client> for Guest {
    fn from(client: Client) -> Self {
        Self {
            client,
            listener: None,
            by_address: None,
            by_names: None,
            member: Member::default(),
            identity: None,
        }
    }
}

/// Whether a session's client may ask.
#[derive(Debug)]
pub(super) struct Standing {
    listener: Option<SocketAddr>,
    by_address: Cell<Option<Denial>>,
    by_names: Option<Denial>,
    is_banned: Cell<bool>,
    misuse_end: Cell<Option<SessionEnd>>,
    identity: Option<Box<Identity>>,
}

impl Standing {
    pub(super) fn of(guest: &mut Guest) -> Self {
        Self {
            listener: guest.listener,
            by_address: Cell::new(guest.by_address),
            by_names: guest.by_names,
            is_banned: Cell::new(false),
            misuse_end: Cell::new(None),
            identity: guest.identity.take(),
        }
    }

    /// An operator banned the client. `true`: it was not banned before.
    pub(super) fn ban(&self) -> bool {
        !self.is_banned.replace(true)
    }

    /// The names in the client's handshake, if they are kept.
    pub(super) fn identity(&self) -> Option<Box<Identity>> {
        self.identity.clone()
    }

    /// The listener at which the client came in, and the names in its handshake if they are kept.
    pub(super) fn origin(&self) -> (Option<SocketAddr>, Option<&Identity>) {
        (self.listener, self.identity.as_deref())
    }

    /// The session must end so.
    pub(super) fn end_by(&self, end: SessionEnd) {
        self.misuse_end.set(Some(end));
    }

    /// How the session must end because of what its client asks.
    pub(super) fn misuse_end(&self) -> Option<SessionEnd> {
        self.misuse_end.get()
    }

    /// Whether an operator banned the client.
    pub(super) fn is_banned(&self) -> bool {
        self.is_banned.get()
    }

    /// Judges the address again, by the current lists. `true`: the client may not ask any more, or is refused in
    /// another way.
    pub(super) fn judge(&self, access: Option<&Access>, client: SocketAddr) -> bool {
        let listener = self.listener.unwrap_or(client);
        let denial = access.and_then(|access| access.denies_address(listener, client.ip()));
        self.by_address.replace(denial) != denial && denial.is_some()
    }

    /// Whether each query is answered REFUSED.
    pub(super) fn is_refused(&self) -> bool {
        self.by_address.get().or(self.by_names).is_some()
    }

    /// The counter for its denial.
    pub(super) fn reason(&self) -> Option<Counter> {
        self.by_address.get().or(self.by_names).map(|denial| denial.reason.counter())
    }

    /// Why the names in its handshake may not ask.
    pub(super) fn by_names(&self) -> Option<Denial> {
        self.by_names
    }

    /// Whether the session ends.
    pub(super) fn is_denied(&self) -> bool {
        [self.by_address.get(), self.by_names].into_iter().flatten().any(|denial| denial.is_silent)
    }
}
