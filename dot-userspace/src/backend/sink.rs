//! Where a query's outcome goes: the session that asked, through a trait so that no backend knows sessions.
//!
//! Before: a backend has matched a response, or given up. After: `session::inbox` queues it for its client.
//! Never: waits: it takes an outcome at once, or its client is gone.

use std::net::IpAddr;

use crate::{dns::Asked, proxy::Client};

/// Takes the outcome of a query: exactly one for each query that `Backends::submit` accepted.
pub trait Sink {
    /// The client, for backends that learn it from a PROXY header. `None`: dotd itself asks.
    fn client(&self) -> Option<Client> {
        None
    }

    /// The client's address, for dotd's own tables; no backend learns it. `None`: dotd itself asks.
    fn asker(&self) -> Option<IpAddr> {
        self.client().map(|client| client.source.ip())
    }

    /// Takes a response that matches the query. `Err`: its records are broken; the true response is still
    /// awaited.
    ///
    /// # Errors
    /// [`Broken`] when the response cannot be passed on.
    fn response(&self, asked: Asked, response: &[u8]) -> Result<(), Broken>;

    /// Takes a failure: no response will come. `query`: the octets sent to the backend (with another ID than the
    /// client's).
    fn failure(&self, asked: Asked, query: &[u8], failure: Failure);
}

/// The records of the response do not fit into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Why a backend gave no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No answer came in time.
    Silent,
    /// No server answered: connection refused, or the network says so.
    Unreachable,
    /// The server has no TLS, or another name or key.
    NotSecure,
    /// Every slot for queries in flight is taken.
    Full,
    /// The backend closes its connections when it gets this query.
    Harmful,
}

impl Failure {
    /// Whether the backend had the query, or should have had it, and gave no answer.
    pub fn is_a_loss(self) -> bool {
        matches!(self, Self::Silent | Self::Unreachable | Self::NotSecure)
    }
}
