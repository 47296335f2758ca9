//! Which addresses count as one client: an address without its last bits, as one number.
//!
//! Before: an address of a packet or of an accepted connection. After: the key of everything that is kept per client.
//! Holds: the layout `[version: 8 bits][prefix: 56 bits, left-aligned]`, the same for both versions.
//! Never: keeps more than 56 bits of an IPv6 address: a client can use all of its /56 (RFC 6177).

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Most bits of an address that a prefix keeps.
pub const PREFIX_BITS_MAX: u8 = 56;

/// An address prefix.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientPrefix(u64);

impl ClientPrefix {
    const VERSION_SHIFT: u32 = 56;

    /// The first `bits` (at most 32) of an IPv4 address in host order.
    #[must_use]
    #[inline(always)]
    pub const fn v4(address: u32, bits: u8) -> Self {
        Self::new(4, (address as u64) << 32, if bits > 32 { 32 } else { bits })
    }

    /// The first `bits` (at most [`PREFIX_BITS_MAX`]) of an IPv6 address, given its first two words.
    #[must_use]
    #[inline(always)]
    pub const fn v6(first: u32, second: u32, bits: u8) -> Self {
        Self::new(6, (first as u64) << 32 | second as u64, bits)
    }

    /// The prefix of an address; an IPv4-mapped IPv6 address is an IPv4 address.
    #[must_use]
    pub fn of(address: IpAddr, bits_v4: u8, bits_v6: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::v4(address.to_bits(), bits_v4),
            IpAddr::V6(address) => {
                let high = address.to_bits() >> 64;
                Self::v6((high >> 32) as u32, (high & 0xffff_ffff) as u32, bits_v6)
            }
        }
    }

    /// The key, as maps hold it.
    #[must_use]
    #[inline(always)]
    pub const fn key(self) -> u64 {
        self.0
    }

    /// The prefix of a key.
    #[must_use]
    #[inline(always)]
    pub const fn from_key(key: u64) -> Self {
        Self(key)
    }

    /// Whether it is of IP version 6.
    #[must_use]
    #[inline(always)]
    pub const fn is_v6(self) -> bool {
        self.0 >> Self::VERSION_SHIFT == 6
    }

    /// The prefix's first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        let aligned = self.0 << 8;
        if self.0 >> Self::VERSION_SHIFT == 4 {
            IpAddr::V4(Ipv4Addr::from_bits((aligned >> 32) as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(u128::from(aligned) << 64))
        }
    }

    /// The first `bits` of an address whose first 64 bits, zeros behind an IPv4 address, are `aligned`.
    #[inline(always)]
    pub(crate) const fn new(version: u64, aligned: u64, bits: u8) -> Self {
        let bits = if bits > PREFIX_BITS_MAX { PREFIX_BITS_MAX } else { bits };
        let mask = if bits == 0 { 0 } else { u64::MAX << (64 - bits as u32) };
        Self(version << Self::VERSION_SHIFT | (aligned & mask) >> 8)
    }
}

impl fmt::Display for ClientPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    fn prefix(address: &str, bits_v4: u8, bits_v6: u8) -> ClientPrefix {
        ClientPrefix::of(address.parse().unwrap(), bits_v4, bits_v6)
    }

    /// Goal: addresses of one prefix are one client, others are not, and versions never meet.
    #[test]
    fn same_prefix_same_client() {
        assert_eq!(prefix("192.0.2.7", 24, 56), prefix("192.0.2.200", 24, 56));
        assert_ne!(prefix("192.0.2.7", 32, 56), prefix("192.0.2.8", 32, 56));
        assert_eq!(prefix("2001:db8:0:17::1", 32, 56), prefix("2001:db8:0:1f::9", 32, 56));
        assert_ne!(prefix("2001:db8:0:17::1", 32, 56), prefix("2001:db8:0:117::1", 32, 56));
        assert_eq!(prefix("::ffff:192.0.2.7", 32, 56), prefix("192.0.2.7", 32, 56));
        assert_ne!(prefix("0.0.0.0", 0, 0), prefix("::", 0, 0));
    }

    /// Goal: a prefix reads as the network it is.
    #[test]
    fn displays_its_network() {
        assert_eq!(prefix("192.0.2.7", 24, 56).to_string(), "192.0.2.0");
        assert_eq!(prefix("192.0.2.7", 32, 56).to_string(), "192.0.2.7");
        assert_eq!(prefix("2001:db8:0:17::1", 32, 48).to_string(), "2001:db8::");
    }

    proptest! {
        /// Goal: the key is the masked address, for any address and any number of bits. Method: masks the
        /// address as a whole and compares.
        #[test]
        fn key_is_the_masked_address(v6: u128, v4: u32, bits: u8) {
            let kept = bits.min(PREFIX_BITS_MAX);
            let mask = u128::MAX.checked_shl(128 - u32::from(kept)).unwrap_or(0);
            let found = ClientPrefix::of(Ipv6Addr::from_bits(v6).into(), 32, bits);
            if Ipv6Addr::from_bits(v6).to_ipv4_mapped().is_none() {
                prop_assert_eq!(found.address(), IpAddr::V6(Ipv6Addr::from_bits(v6 & mask)));
            }
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            let found = ClientPrefix::of(Ipv4Addr::from_bits(v4).into(), bits, 56);
            prop_assert_eq!(found.address(), IpAddr::V4(Ipv4Addr::from_bits(v4 & mask)));
        }
    }
}
