//! A prefix of an address with its length, as one key: of banned clients, of clients that have spent a budget, of clients that proved their address.
//!
//! Before: an address of a packet or of an accepted connection. After: a key of the maps BANS, SPENT and PROVEN.
//! Holds: the lengths of the first of three levels: a whole IPv4 address, and 64 bits of an IPv6 address, which one link has
//! (RFC 4291 §2.5.4). The second is the client prefix, the third a wider prefix that many clients may share.
//! Never: keeps more than 64 bits.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{flow::FlowKey, prefix::ClientPrefix, settings::Settings};

/// Bits of an IPv4 address that are one host's.
pub const HOST_BITS_V4: u8 = 32;
/// Bits of an IPv6 address that are one host's.
pub const HOST_BITS_V6: u8 = 64;

/// A prefix. 16 octets, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    /// 4 or 6.
    pub version: u32,
    /// Its length.
    pub bits: u32,
    /// The first 64 bits of the address, zeros behind those of the prefix.
    pub aligned: u64,
}

const _: () = assert!(size_of::<Network>() == 16 && align_of::<Network>() == 8);

impl Network {
    #[inline(always)]
    const fn new(version: u32, aligned: u64, bits: u8) -> Self {
        let mask = if bits == 0 { 0 } else { u64::MAX << (64 - bits as u32) };
        Self { version, bits: bits as u32, aligned: aligned & mask }
    }

    /// The prefix of a packet's client.
    #[must_use]
    #[inline(always)]
    pub const fn of_flow(flow: &FlowKey, bits_v4: u8, bits_v6: u8) -> Self {
        let aligned = flow.client[0].swap_bytes();
        if flow.is_v6() {
            Self::new(6, aligned, if bits_v6 > HOST_BITS_V6 { HOST_BITS_V6 } else { bits_v6 })
        } else {
            Self::new(4, aligned, if bits_v4 > HOST_BITS_V4 { HOST_BITS_V4 } else { bits_v4 })
        }
    }

    /// The prefix of an address; an IPv4-mapped IPv6 address is an IPv4 address.
    #[must_use]
    pub fn of(address: IpAddr, bits_v4: u8, bits_v6: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                Self::new(4, u64::from(address.to_bits()) << 32, bits_v4.min(HOST_BITS_V4))
            }
            IpAddr::V6(address) => Self::new(6, (address.to_bits() >> 64) as u64, bits_v6.min(HOST_BITS_V6)),
        }
    }

    /// The host of an address: its first level.
    #[must_use]
    pub fn of_host(address: IpAddr) -> Self {
        Self::of(address, HOST_BITS_V4, HOST_BITS_V6)
    }

    /// The same with fewer bits.
    #[must_use]
    pub fn widened(self, bits_v4: u8, bits_v6: u8) -> Self {
        let bits = if self.is_v6() { bits_v6 } else { bits_v4 };
        Self::new(self.version, self.aligned, bits.min(u8::try_from(self.bits).unwrap_or(u8::MAX)))
    }

    /// Whether it is of IP version 6.
    #[must_use]
    #[inline(always)]
    pub const fn is_v6(self) -> bool {
        self.version == 6
    }

    /// Its first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        if self.is_v6() {
            IpAddr::V6(Ipv6Addr::from_bits(u128::from(self.aligned) << 64))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits((self.aligned >> 32) as u32))
        }
    }

    /// The client prefix of its first address.
    #[must_use]
    pub fn client(self, bits_v4: u8, bits_v6: u8) -> ClientPrefix {
        ClientPrefix::of(self.address(), bits_v4, bits_v6)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.bits)
    }
}

/// The three levels of a packet's client: host, client prefix, wider prefix. A level as long as the one before it is the
/// same network, and is not asked for twice.
#[must_use]
#[inline(always)]
pub const fn levels(settings: &Settings, flow: &FlowKey) -> [Network; 3] {
    [level(settings, flow, 0), level(settings, flow, 1), level(settings, flow, 2)]
}

/// One of the three levels of a packet's client, by its place among them.
#[must_use]
#[inline(always)]
pub const fn level(settings: &Settings, flow: &FlowKey, place: u32) -> Network {
    let (bits_v4, bits_v6) = match place {
        0 => (HOST_BITS_V4, HOST_BITS_V6),
        1 => (settings.prefix_v4, settings.prefix_v6),
        _ => (settings.wide_v4, settings.wide_v6),
    };
    Network::of_flow(flow, bits_v4, bits_v6)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    fn network(address: &str, bits_v4: u8, bits_v6: u8) -> Network {
        Network::of(address.parse().unwrap(), bits_v4, bits_v6)
    }

    /// Goal: prefixes of different lengths are different keys, also with the same first address; hosts of one /64 are one.
    #[test]
    fn a_length_is_part_of_the_key() {
        assert_ne!(network("192.0.2.0", 32, 64), network("192.0.2.0", 24, 64));
        assert_ne!(network("2001:db8::", 32, 64), network("2001:db8::", 32, 56));
        assert_eq!(network("2001:db8::1", 32, 64), network("2001:db8::2", 32, 64));
        assert_eq!(network("::ffff:192.0.2.7", 32, 64), network("192.0.2.7", 32, 64));
        assert_eq!(network("2001:db8:0:17::1", 32, 56).to_string(), "2001:db8::/56");
        assert_eq!(network("192.0.2.7", 24, 56).to_string(), "192.0.2.0/24");
        let host = network("2001:db8:1:2::3", 32, 64);
        assert_eq!(host.widened(24, 48), network("2001:db8:1:2::3", 24, 48));
        assert_eq!(host.widened(24, 99), host, "nothing becomes longer");
    }

    proptest! {
        /// Goal: the kernel half and the loader make one key of one address. Method: any address, any lengths.
        #[test]
        fn both_halves_make_the_same_key(v6: u128, v4: u32, bits_v4 in 0u8..40, bits_v6 in 0u8..80) {
            let words = [(v6 >> 96) as u32, (v6 >> 64) as u32, (v6 >> 32) as u32, v6 as u32];
            let flow = FlowKey::new(words, 5, [6; 4], 853, true);
            let address = Ipv6Addr::from_bits(v6);
            if address.to_ipv4_mapped().is_none() {
                prop_assert_eq!(
                    Network::of_flow(&flow, bits_v4, bits_v6),
                    Network::of(address.into(), bits_v4, bits_v6)
                );
            }
            let flow = FlowKey::new([v4, 0, 0, 0], 5, [6; 4], 853, false);
            let address = Ipv4Addr::from_bits(v4);
            prop_assert_eq!(
                Network::of_flow(&flow, bits_v4, bits_v6),
                Network::of(address.into(), bits_v4, bits_v6)
            );
        }
    }
}
