//! Module `proxy`: who a client is, and the header by which proxies tell each other (PROXY protocol, version 2).
//!
//! Before: a load balancer opens a connection to us or sends a datagram, or a query leaves for a backend that wants to know.
//! After: caps and backends see the client's own address.
//! The line: [`receive()`] → [`header::parse`] on the listening side; [`header::write`] towards backends.
//! Never: believes a header from whom the operator did not name; allocates by a length from the wire.
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
    /// Where the client is.
    pub source: SocketAddr,
    /// What it connected to.
    pub destination: SocketAddr,
    /// It asked by datagram; else over a connection.
    pub is_datagram: bool,
    /// Its TLS; `None`: cleartext.
    pub tls: Option<ClientTls>,
    /// What a load balancer said of it beside its addresses, for backends that are told who it is.
    pub tlvs: Option<Tlvs>,
}

/// Who connects through a load balancer, as that says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Both ends; `None`: the connection's own are the client's (LOCAL).
    pub addresses: Option<Addresses>,
    /// The client asked by datagram.
    pub is_datagram: bool,
    /// What else it says.
    pub tlvs: Option<Tlvs>,
}

/// Senders whose headers count. Cloning shares the list.
#[derive(Clone, Debug, Default)]
pub struct Trusted(Arc<[IpNet]>);

impl Trusted {
    /// These prefixes.
    #[must_use]
    pub fn new(prefixes: Arc<[IpNet]>) -> Self {
        Self(prefixes)
    }

    /// Whether `sender` is one of those.
    #[must_use]
    pub fn has(&self, sender: IpAddr) -> bool {
        !self.0.is_empty() && is_trusted(&self.0, sender)
    }
}

/// What a backend may learn of a client's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientTls {
    /// TLS 1.3; else 1.2.
    pub is_tls13: bool,
    /// ALPN `dot` was chosen.
    pub has_alpn: bool,
    /// The client showed a certificate, and it was verified.
    pub is_certified: bool,
}

/// Whether `sender` is one of those whose header counts.
#[must_use]
pub fn is_trusted(trusted: &[IpNet], sender: IpAddr) -> bool {
    let sender = sender.to_canonical();
    trusted.iter().any(|prefix| prefix.contains(&sender))
}

#[cfg(test)]
mod tests;
