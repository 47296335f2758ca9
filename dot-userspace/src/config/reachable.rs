//! Listening addresses that `bind` would refuse, alone or beside another one. Pure.
//!
//! Before: addresses from the file. After: `consistency` notes the mistakes that would make a start fail.
//! Never: asks the system: `dotd check` finds whether an address is this machine's.
//!
//! Source: ipv6(7) (scope, IPV6_V6ONLY), ip(7).

use std::net::{IpAddr, SocketAddr};

/// The reason why no machine can listen there.
pub(super) fn fault(address: SocketAddr) -> Option<String> {
    let port = address.port();
    match address {
        SocketAddr::V6(v6) => {
            if let Some(v4) = v6.ip().to_ipv4_mapped() {
                return Some(format!("{address} is an IPv4 address in IPv6 form; write \"{v4}:{port}\""));
            }
            if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 {
                let ip = v6.ip();
                return Some(format!(
                    "{address} needs its interface: write \"[{ip}%2]:{port}\" with the number that `ip link` shows"
                ));
            }
        }
        SocketAddr::V4(v4) if v4.ip().is_broadcast() => return Some(not_a_hosts(address)),
        SocketAddr::V4(_) => {}
    }
    address.ip().is_multicast().then(|| not_a_hosts(address))
}

fn not_a_hosts(address: SocketAddr) -> String {
    format!("{address} is not the address of a host; use an address of this machine")
}

/// Whether the second cannot be bound once the first listens: a wildcard uses every address of its family.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_wide = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && (is_wide || one == other)
}

/// The same for `control.http`, whose `[::]` uses the addresses of both families.
pub(super) fn http_overlaps(http: SocketAddr, listener: SocketAddr) -> bool {
    let is_of_both = matches!(http.ip(), IpAddr::V6(ip) if ip.is_unspecified());
    overlap(http, listener) || (is_of_both && http.port() == listener.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Goal: addresses that no `bind` accepts are reported before. Method: addresses of each kind.
    #[test]
    fn addresses_that_nobody_can_listen_on() {
        for fine in ["0.0.0.0:853", "[::]:853", "127.0.0.1:853", "[fe80::1%2]:853", "[2001:db8::1]:853"] {
            assert_eq!(fault(at(fine)), None, "{fine}");
        }
        for (wrong, part) in [
            ("[::ffff:127.0.0.1]:853", "write \"127.0.0.1:853\""),
            ("[fe80::1]:853", "write \"[fe80::1%2]:853\""),
            ("224.0.0.1:853", "not the address of a host"),
            ("[ff02::1]:853", "not the address of a host"),
            ("255.255.255.255:853", "not the address of a host"),
        ] {
            assert!(fault(at(wrong)).is_some_and(|message| message.contains(part)), "{wrong}");
        }
    }

    /// Goal: listeners that exclude each other are reported before. Method: pairs in both orders.
    #[test]
    fn listeners_that_exclude_each_other() {
        for (one, other, does) in [
            ("0.0.0.0:853", "127.0.0.1:853", true),
            ("[::]:853", "[::1]:853", true),
            ("0.0.0.0:853", "[::]:853", false),
            ("0.0.0.0:853", "127.0.0.1:8853", false),
            ("127.0.0.1:853", "127.0.0.2:853", false),
        ] {
            assert!(
                overlap(at(one), at(other)) == does && overlap(at(other), at(one)) == does,
                "{one} {other}"
            );
        }
        assert!(http_overlaps(at("[::]:853"), at("127.0.0.1:853")));
        assert!(!http_overlaps(at("[::1]:853"), at("127.0.0.1:853")));
    }
}
