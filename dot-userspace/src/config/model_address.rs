//! The shape of `backend.address` in `dotd.toml`.
//!
//! Before: `config::parse` has the key's text. After: `start` makes targets of it.
//! Never: looks a name up.

use std::{fmt, net::SocketAddr};

/// A name and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// A domain name without its last dot.
    pub name: String,
    /// The port at each of its addresses.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(form, "{}:{}", self.name, self.port)
    }
}

/// `backend.address`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendAddress {
    /// The zone inside dotd, for a first run.
    Embedded,
    /// A DNS server.
    Socket(SocketAddr),
    /// DNS servers by the name of their addresses, which `balance.bootstrap` knows.
    Named(Host),
}
