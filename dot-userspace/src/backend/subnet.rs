//! What a backend is told of a client's subnet: decided once for each query, as the operator wants it.
//!
//! Before: `fleet` takes a query. After: its octets, which may go to any backend, say that.
//! Never: asks who the client is while nothing is to be added.
//!
//! Source: RFC 7871 §7.1.2, §11.

use std::net::IpAddr;

use super::sink::Sink;
use crate::{
    config::ClientSubnet,
    dns::{self, Query},
};

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// What the client says itself.
    AsItCame,
    /// Nothing.
    Stripped,
    /// The subnet of this address.
    Added(IpAddr),
}

/// Decides about `query`.
pub fn of(wish: ClientSubnet, query: &Query, sink: &dyn Sink) -> Told {
    let is_editable = !query.is_signed && query.opt.is_none_or(|opt| opt.may_resize);
    let says_itself = query.opt.is_some_and(|opt| opt.subnet);
    match wish {
        ClientSubnet::Pass => Told::AsItCame,
        ClientSubnet::Strip if is_editable && says_itself => Told::Stripped,
        ClientSubnet::Add if is_editable && !says_itself => {
            sink.client().map_or(Told::AsItCame, |client| Told::Added(client.source.ip()))
        }
        ClientSubnet::Strip | ClientSubnet::Add => Told::AsItCame,
    }
}

impl Told {
    /// Writes the query into `octets`, with an ID of 0, so that it says that; returns what [`dns::forward`] does.
    pub fn forward(self, message: &[u8], query: &Query, octets: &mut Vec<u8>) -> Option<usize> {
        let opt_rdata = dns::forward(message, query, 0, self != Self::Stripped, octets);
        match self {
            Self::Added(client) => Some(dns::add_subnet(octets, opt_rdata, client)),
            Self::AsItCame | Self::Stripped => opt_rdata,
        }
    }
}
