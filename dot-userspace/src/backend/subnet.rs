//! What a backend is told of a client's subnet: decided once for each query, as the operator wants it.
//!
//! Before: the cache wants a key, or `fleet` takes a query. After: its octets, which may go to any backend, say that.
//! Never: asks who the client is while nothing is to be added.
//!
//! Source: RFC 7871 §7.1.2, §11.

use crate::{
    config::ClientSubnet,
    dns::{self, Query, Told},
    proxy::Client,
};

/// Decides about `query`.
pub fn of(wish: ClientSubnet, query: &Query, client: impl FnOnce() -> Option<Client>) -> Told {
    let is_editable = !query.is_signed && query.opt.is_none_or(|opt| opt.may_resize);
    let says_itself = query.opt.is_some_and(|opt| opt.subnet);
    match wish {
        ClientSubnet::Pass => Told::AsItCame,
        ClientSubnet::Strip if is_editable && says_itself => Told::Stripped,
        ClientSubnet::Add if is_editable && !says_itself => {
            client().map_or(Told::AsItCame, |client| Told::Added(client.source.ip()))
        }
        ClientSubnet::Strip | ClientSubnet::Add => Told::AsItCame,
    }
}

/// Writes the query into `octets`, with an ID of 0, so that it says what is `told`; returns what [`dns::forward`] does.
pub fn forward(told: Told, message: &[u8], query: &Query, octets: &mut Vec<u8>) -> Option<usize> {
    let opt_rdata = dns::forward(message, query, 0, told != Told::Stripped, octets);
    match told {
        Told::Added(client) => Some(dns::add_subnet(octets, opt_rdata, client)),
        Told::AsItCame | Told::Stripped => opt_rdata,
    }
}
