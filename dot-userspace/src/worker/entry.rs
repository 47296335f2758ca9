//! A listener of a worker, as its connections know it.
//!
//! Before: `start` bound it. After: `accept` and `sessions` know its protocol, and the address in the config.
//! Never: holds the socket.

use std::net::SocketAddr;

/// The protocol of a listener's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// DNS over TLS.
    Dot,
    /// DNS in clear.
    Do53,
}

/// The listener of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) transport: Transport,
    /// The index of the listen address, the same in every worker.
    pub(super) number: usize,
    /// The listen address in the config.
    pub(super) listener: Option<SocketAddr>,
}
