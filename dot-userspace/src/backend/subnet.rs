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
    let is_editable = !query.is_signed && query.opt.is_none_or(|opt| opt.is_last);
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
    /// Has the forwarded `query` say it; `opt_rdata` is what [`dns::forward`] returned of it, as is the result.
    pub fn write(self, opt_rdata: Option<usize>, query: &mut Vec<u8>) -> Option<usize> {
        match (self, opt_rdata) {
            (Self::Stripped, Some(opt_rdata)) => dns::strip_subnet(query, opt_rdata),
            (Self::Added(client), _) => return Some(dns::add_subnet(query, opt_rdata, client)),
            (Self::AsItCame | Self::Stripped, _) => {}
        }
        opt_rdata
    }
}
