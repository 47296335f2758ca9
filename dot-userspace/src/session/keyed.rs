//! Maps a client prefix to an unpredictable number, for tables of fixed size.
//!
//! Before: a client's address. After: the row of its prefix in `clients`, or its places in `rates`.
//! Holds: two random numbers. Never: allocates, or lets a client choose whose row it shares.
//!
//! Source: wyhash, whose step is used here: a product of 128 bits, folded.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
};

use dot_common::prefix::ClientPrefix;

/// The hash key.
#[derive(Debug)]
pub(super) struct Keyed([u64; 2]);

impl Default for Keyed {
    fn default() -> Self {
        let random = RandomState::new();
        Self([random.hash_one(0), random.hash_one(1)])
    }
}

impl Keyed {
    /// The number of a client; `bits` are the prefix lengths for IPv4 and IPv6.
    pub(super) fn number(&self, client: IpAddr, bits: (u8, u8)) -> u64 {
        let Self([first, second]) = self;
        let key = ClientPrefix::of(client, bits.0, bits.1).key();
        fold(fold(key ^ first, second | 1) ^ second, first | 1)
    }
}

/// Both halves of a product, combined by XOR.
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    let [high, low] = [product >> u64::BITS, product & u128::from(u64::MAX)];
    u64::try_from(high ^ low).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, net::Ipv4Addr};

    use super::*;

    const BITS: (u8, u8) = (32, 56);

    /// Goal: the addresses of a prefix are one client; prefixes spread by the first and by the last bits of their
    /// numbers, whichever bits differ. Method: a /56; 8,192 neighbours, by their last bits and by their first, with
    /// many keys.
    ///
    #[test]
    fn prefixes_spread() {
        for _ in 0..20 {
            let keyed = Keyed::default();
            let number = |client: &str| keyed.number(client.parse().unwrap(), BITS);
            assert_eq!(number("2001:db8:0:100::1"), number("2001:db8:0:1ff::2"));
            assert_eq!(number("192.0.2.1"), number("::ffff:192.0.2.1"));
            for shift in [0, 8, 19] {
                let [mut first, mut last] = [HashMap::<u64, u32>::new(), HashMap::new()];
                for client in 0..8192_u32 {
                    let address = Ipv4Addr::from_bits(0x0a00_0000 ^ client.rotate_left(shift));
                    let number = keyed.number(address.into(), BITS);
                    *first.entry(number >> 51).or_default() += 1;
                    *last.entry(number & 0x1fff).or_default() += 1;
                }
                // Of 8,192 random numbers 63 % are distinct, and none occurs more than a dozen times.
                for rows in [first, last] {
                    let most = rows.values().max().unwrap();
                    assert!(rows.len() > 4500 && *most < 24, "{} rows, {most} in one", rows.len());
                }
            }
        }
    }
}
