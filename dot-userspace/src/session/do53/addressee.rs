//! The addressee of a response by UDP: the destination of the datagram, and the client that a load balancer named.
//!
//! Before: a datagram was read, or its response is ready. After: the kernel has the response, and events name the
//! client.
//! Never: sends a datagram to an address that the content of a datagram named.

use std::net::SocketAddr;

use super::{Endpoint, Ends};
use crate::{events::tap::Way, proxy::Client};

/// Both ends of a datagram, and the client.
#[derive(Clone, Copy)]
pub(super) struct Addressee<'a> {
    /// Where the datagram goes.
    pub(super) ends: Ends,
    /// The client that a load balancer named. `None`: the datagram goes to the client.
    pub(super) named: Option<&'a Client>,
}

impl Addressee<'_> {
    /// The client's address.
    pub(super) fn source(&self) -> SocketAddr {
        self.named.map_or(self.ends.client, |client| client.source)
    }

    /// The two ends and the transport of the messages.
    pub(super) fn way(&self, endpoint: &Endpoint) -> Way {
        Way::from(&self.client(endpoint))
    }

    /// The client.
    pub(super) fn client(&self, endpoint: &Endpoint) -> Client {
        let Self { ends, named } = *self;
        let own = || {
            let host = ends.ours.map_or(endpoint.address.ip(), |(host, _)| host);
            let destination = SocketAddr::new(host, endpoint.address.port());
            Client { source: ends.client, destination, is_datagram: true, tls: None, tlvs: None }
        };
        named.cloned().unwrap_or_else(own)
    }
}
