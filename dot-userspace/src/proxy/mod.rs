//! Module `proxy`: the client's identity, and the header by which proxies pass it on (PROXY protocol, version 2).
//!
//! Before: a load balancer opens a connection to us or sends a datagram, or a query is sent to a backend that asks for
//! the header.
//! After: caps and backends see the client's own address.
//! The line: [`receive()`] → [`header::parse`] on the listening side; [`header::write`] towards backends.
//! Never: trusts a header from a sender that the operator did not name; allocates by a length from the wire.
//!
//! Source: "The PROXY protocol, versions 1 & 2", haproxy.org, sections 2.2 to 2.2.5.

pub mod header;
mod receive;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

pub use header::{Addresses, Tlvs};
pub use receive::{Refusal, receive};

/// Both ends of a client's connection, and how it was secured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The client's address.
    pub source: SocketAddr,
    /// The address that it connected to.
    pub destination: SocketAddr,
    /// Whether it asked by datagram; otherwise over a connection.
    pub is_datagram: bool,
    /// Its TLS; `None`: cleartext.
    pub tls: Option<ClientTls>,
    /// A load balancer's fields beside the addresses, for backends that get the header.
    pub tlvs: Option<Tlvs>,
}

/// The client behind a load balancer, as the header names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Both ends; `None`: the addresses of the connection are the client's (LOCAL).
    pub addresses: Option<Addresses>,
    /// The client asked by datagram.
    pub is_datagram: bool,
    /// The other fields.
    pub tlvs: Option<Tlvs>,
}

/// Senders whose headers are used. Clones share the list.
#[derive(Clone, Debug, Default)]
pub struct Trusted(Arc<[IpNet]>);

impl Trusted {
    /// A list of these prefixes.
    #[must_use]
    pub fn new(prefixes: Arc<[IpNet]>) -> Self {
        Self(prefixes)
    }

    /// Whether `sender` is on the list.
    #[must_use]
    pub fn has(&self, sender: IpAddr) -> bool {
        !self.0.is_empty() && is_trusted(&self.0, sender)
    }
}

/// The facts about a client's TLS for a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientTls {
    /// TLS 1.3; else 1.2.
    pub is_tls13: bool,
    /// ALPN `dot` was chosen.
    pub has_alpn: bool,
    /// The client showed a certificate, and it was verified.
    pub is_certified: bool,
}

/// Whether the header of `sender` is used.
#[must_use]
pub fn is_trusted(trusted: &[IpNet], sender: IpAddr) -> bool {
    let sender = sender.to_canonical();
    trusted.iter().any(|prefix| prefix.contains(&sender))
}

#[cfg(test)]
mod tests;
