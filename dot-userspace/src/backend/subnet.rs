//! What a backend learns of a client's subnet (ECS): decided once for each query, as the config says.
//!
//! Before: the cache needs a key, or `pool` takes a query. After: the query's octets carry the subnet, for
//! whichever backend gets it.
//! Never: asks for the client while nothing is to be added.
//!
//! Source: RFC 7871 §7.1.2, §11.

use crate::{
    config::ClientSubnet,
    dns::{self, Query, Told},
    events::traceparent,
    proxy::Client,
};

const OPCODE_QUERY: u8 = 0;

/// Decides for `query`.
pub fn of(wish: ClientSubnet, query: &Query, client: impl FnOnce() -> Option<Client>) -> Told {
    // Only QUERY is answered by subnet. And an option that dotd added may have to be removed by asking again,
    // which must not happen to an UPDATE.
    let is_query = query.opcode == OPCODE_QUERY;
    let is_editable = !query.is_signed && query.opt.is_none_or(|opt| opt.may_resize);
    let says_itself = query.opt.is_some_and(|opt| opt.subnet);
    match wish {
        ClientSubnet::Pass => Told::AsItCame,
        ClientSubnet::Strip if is_editable && says_itself => Told::Stripped,
        ClientSubnet::Add if is_query && is_editable && !says_itself => {
            client().map_or(Told::AsItCame, |client| Told::Added(client.source.ip()))
        }
        ClientSubnet::Strip | ClientSubnet::Add => Told::AsItCame,
    }
}

/// Writes the query into `octets`, with ID 0, the subnet that `told` says, and the span of a traced query if its OPT may grow. Returns what [`dns::forward`]
/// returns.
pub fn forward(told: Told, message: &[u8], query: &Query, octets: &mut Vec<u8>) -> Option<usize> {
    let opt_rdata = dns::forward(message, query, 0, told != Told::Stripped, octets);
    let opt_rdata = match told {
        Told::Added(client) => Some(dns::add_subnet(octets, opt_rdata, client)),
        Told::AsItCame | Told::Stripped => opt_rdata,
    };
    if let (Some(option), Some(opt_rdata)) = (traceparent::option(), opt_rdata) {
        dns::add_option(octets, opt_rdata, &option);
    }
    opt_rdata
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an UPDATE or a NOTIFY reaches the backend as its client wrote it. Nothing is added, because a
    /// backend without EDNS would have to be asked again without it. Method: a message of each opcode, under each
    /// setting.
    #[test]
    fn only_a_query_is_told_of_a_subnet() {
        let client = || {
            let address = "192.0.2.1:853".parse().unwrap();
            Some(Client { source: address, destination: address, is_datagram: false, tls: None, tlvs: None })
        };
        let told = |opcode: u8, wish| {
            let message = [0, 7, opcode << 3, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 6, 0, 1];
            of(wish, &Query::parse_with(&message, |_| true).unwrap(), client)
        };
        for wish in [ClientSubnet::Pass, ClientSubnet::Strip, ClientSubnet::Add] {
            assert_eq!([4, 5].map(|opcode| told(opcode, wish)), [Told::AsItCame; 2]);
        }
        assert_eq!(told(0, ClientSubnet::Add), Told::Added(client().unwrap().source.ip()));
    }
}
