//! Shortens a client's address for log lines, by `log.client_address`.
//!
//! Before: a connection begins, is refused or ends. After: a line at level debug shows that much of the client's
//! address.
//! Never: formats anything for a line that is not written.
//!
//! Source: RFC 8932 §5.1.1 (minimise what is logged), RFC 7871 §11.1 (24 and 56 bits identify a network, not a person).

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::config::ClientAddress;

/// Bits of an address that are kept, IPv4 and IPv6.
const NETWORK_BITS: (u8, u8) = (24, 56);

/// A client's address as a line may show it.
pub struct RedactedAddress(pub ClientAddress, pub IpAddr);

impl fmt::Display for RedactedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(how, address) = self;
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { NETWORK_BITS.0 } else { NETWORK_BITS.1 };
        match (how, IpNet::new(address, bits)) {
            (ClientAddress::Full, _) => write!(f, "{address}"),
            (ClientAddress::Prefix, Ok(network)) => write!(f, "{}", network.trunc()),
            _ => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Covers: C-73.
    #[test]
    fn shows_as_much_as_it_may() {
        let redacted = |how, address: &str| RedactedAddress(how, address.parse().unwrap()).to_string();
        for (address, prefix) in [
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("2001:db8:1:2345::6", "2001:db8:1:2300::/56"),
        ] {
            assert_eq!(redacted(ClientAddress::None, address), "-");
            assert_eq!(redacted(ClientAddress::Prefix, address), prefix);
        }
        assert_eq!(redacted(ClientAddress::Full, "2001:db8::6"), "2001:db8::6");
    }
}
