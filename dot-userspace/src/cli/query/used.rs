//! The sockets that a query has used, by their addresses as the server sees them.
//!
//! Before: `wire` or `datagrams` has connected one. After: `traced` finds the events of each.
//! Never: holds a socket.

use std::{cell::RefCell, net::SocketAddr};

/// A socket that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    /// Our end, as the server sees it.
    pub(super) client: SocketAddr,
    pub(super) is_stream: bool,
}

/// All of them.
pub(super) type AllUsed = RefCell<Vec<Used>>;

/// An IPv4 address that a socket of both families shows as an IPv6 address.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
