//! Where a query's outcome goes: the session that asked, through a trait so that no backend knows sessions.
//!
//! Before: a backend has matched a response, or given up. After: `session::inbox` queues it for its client.
//! Never: waits; an outcome is taken at once or its client is gone.

use std::net::IpAddr;

use crate::{dns::Asked, proxy::Client};

/// Takes the outcome of queries, exactly one for each query that was accepted by `Backends::submit`.
pub trait Sink {
    /// Who asked; asked only for backends that are to know. `None`: nobody whom a backend should hear of.
    fn client(&self) -> Option<Client> {
        None
    }

    /// Who asked, for what is remembered here of clients; no backend is told. `None`: nobody in particular.
    fn asker(&self) -> Option<IpAddr> {
        self.client().map(|client| client.source.ip())
    }

    /// A response that matches its query. `Err`: its records are broken; keep waiting for a true one.
    ///
    /// # Errors
    /// [`Broken`] when the response cannot be passed on.
    fn response(&self, asked: Asked, response: &[u8]) -> Result<(), Broken>;

    /// No response will come. `query` is what the backend was sent (its ID is not the client's).
    fn failure(&self, asked: Asked, query: &[u8], failure: Failure);
}

/// The response's records do not fit into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Why a backend gave no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing came in time.
    Silent,
    /// Nobody is there: connection refused, or the network says so.
    Unreachable,
    /// Somebody is there, without TLS or under another name or key.
    NotSecure,
    /// Every slot for queries in flight is taken.
    Full,
    /// The backend closes its connections upon this query.
    Harmful,
}

impl Failure {
    /// The backend had the query, or should have had it, and gave no answer.
    pub fn is_a_loss(self) -> bool {
        matches!(self, Self::Silent | Self::Unreachable | Self::NotSecure)
    }
}
