//! The clients whose packets the kernel half drops: those that no list of the config lets ask.
//!
//! Before: a checked config. After: `xdp` puts the prefixes into its deny list.
//! Holds: `xdp.deny`, `access.deny`, and what lies outside `access.allow`.
//! Never: has a client that the engine would answer, or a balancer that speaks for clients; has the lists of single
//! listeners and of names, which no packet's source decides.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::{Config, Denied, limit};

/// The deny list of the kernel half, as many prefixes as it has room for; the engine checks all of them.
pub(super) fn denied(config: &Config) -> Vec<IpNet> {
    let (access, mut deny) = (&config.access, config.xdp.deny.clone());
    if access.denied == Denied::Refuse {
        return deny;
    }
    deny.extend(access.deny.iter().filter(|prefix| !config.xdp.deny.contains(prefix)));
    deny.truncate(limit::LISTED_MAX);
    if !access.allow.is_empty() {
        // The source of a balancer's packets is no client.
        let heard: Vec<IpNet> =
            access.allow.iter().chain(&config.listen.proxy_protocol_from).map(IpNet::trunc).collect();
        let mut outside = Vec::new();
        let room = limit::LISTED_MAX - deny.len();
        let is_whole = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]
            .into_iter()
            .all(|every| split(every, &heard, room, &mut outside));
        if is_whole {
            outside.retain(|prefix| !deny.contains(prefix));
            deny.append(&mut outside);
        }
    }
    deny
}

/// Appends the largest prefixes within `net` that hold no address of `heard`. `false`: there is no room.
fn split(net: IpNet, heard: &[IpNet], room: usize, out: &mut Vec<IpNet>) -> bool {
    if heard.iter().any(|prefix| prefix.contains(&net)) {
        return true;
    }
    let within: Vec<IpNet> = heard.iter().filter(|prefix| net.contains(*prefix)).copied().collect();
    if within.is_empty() {
        out.push(net);
        return out.len() <= room;
    }
    // A prefix that holds a longer one can be halved.
    let halves = net.subnets(net.prefix_len() + 1);
    halves.into_iter().flatten().all(|half| split(half, &within, room, out))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::Access;

    fn config(text: &str) -> Config {
        crate::config::parse(text, "test").unwrap()
    }

    /// Goal: the kernel half drops the clients outside the allow list, never a balancer, and none if they shall be told.
    /// Method: an allow list of one prefix; with a balancer; with `denied = "refuse"`; without room for all.
    #[test]
    fn clients_outside_the_allow_list_are_denied() {
        let own = |text: &str| denied(&config(text)).iter().map(IpNet::to_string).collect::<Vec<_>>();
        assert!(own("").is_empty());
        assert_eq!(own("[access]\nallow = [\"128.0.0.0/2\"]"), ["0.0.0.0/1", "192.0.0.0/2", "::/0"]);
        assert_eq!(
            own("[access]\nallow = [\"128.0.0.0/2\", \"::/1\"]\ndeny = [\"8000::/1\"]"),
            ["8000::/1", "0.0.0.0/1", "192.0.0.0/2"]
        );
        let behind = "[listen]\nproxy_protocol_from = [\"192.0.0.0/2\"]\n[xdp]\ncleartext_853 = \"count\"\n\
                      [access]\nallow = [\"128.0.0.0/2\"]";
        assert_eq!(own(behind), ["0.0.0.0/1", "::/0"]);
        assert!(own("[access]\nallow = [\"128.0.0.0/2\"]\ndenied = \"refuse\"").is_empty());
        let far: Vec<_> = (0..1000_u32).map(|net| format!("\"2001:db8:{net:x}::1/128\"")).collect();
        let text = format!("[access]\nallow = [{}]", far.join(", "));
        assert!(own(&text).is_empty(), "more prefixes than the map has room for");
    }

    proptest! {
        /// Goal: what the kernel half drops the engine would not have answered, and the other way round. Method: random
        /// allow and deny lists, and addresses near them; compared with the engine's lists.
        #[test]
        fn both_halves_agree(
            allow in prop::collection::vec((any::<u32>(), 0_u8..=32), 1..6),
            deny in prop::collection::vec((any::<u32>(), 8_u8..=32), 0..4),
            others in prop::collection::vec(any::<u32>(), 0..20),
        ) {
            let net = |(address, length): &(u32, u8)| {
                IpNet::V4(Ipv4Net::new((*address).into(), *length).unwrap().trunc())
            };
            let mut config = Config::default();
            config.access.allow = allow.iter().map(net).collect();
            config.access.deny = deny.iter().map(net).collect();
            let dropped = denied(&config);
            let access = Access::new(&config.access, &[]).unwrap();
            let edges = config.access.allow.iter().chain(&config.access.deny).flat_map(|prefix| {
                let bits = |address| match address {
                    IpAddr::V4(address) => address.to_bits(),
                    IpAddr::V6(_) => 0,
                };
                let (first, last) = (bits(prefix.network()), bits(prefix.broadcast()));
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
            });
            for address in edges.chain(others) {
                let address = IpAddr::from(address.to_be_bytes());
                let is_dropped = dropped.iter().any(|prefix| prefix.contains(&address));
                let listener = ([192, 0, 2, 1], 853).into();
                prop_assert_eq!(is_dropped, access.denies_address(listener, address).is_some(), "{}", address);
            }
        }
    }
}
