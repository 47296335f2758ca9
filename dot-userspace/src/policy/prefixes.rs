//! A map from prefixes to numbers: the longest prefix that contains an address counts.
//!
//! Before: lists of the config or of a policy zone. After: one binary search for an address.
//! Holds: the address space divided where the result changes, so nested prefixes make no search slower.
//! Never: changes once it is built.

use std::net::IpAddr;

use ipnet::IpNet;

/// The number of a piece without a prefix.
const NOTHING: u32 = u32::MAX;

/// A map from prefixes to numbers below 2^32 - 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixMap {
    /// First address of each piece, in order, and the piece's number.
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u32)]>,
}

impl PrefixMap {
    /// Builds the map. Of two equal prefixes the first counts. IPv4-mapped prefixes count as IPv4.
    #[must_use]
    pub fn new(prefixes: impl IntoIterator<Item = (IpNet, u32)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, number) in prefixes {
            match (prefix.network().to_canonical(), prefix.broadcast().to_canonical()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits(), number)),
                (IpAddr::V6(first), IpAddr::V6(last)) => v6.push((first.to_bits(), last.to_bits(), number)),
                // A prefix that reaches beyond the mapped addresses is an IPv6 prefix.
                (first, last) => v6.push((bits(first), bits(last), number)),
            }
        }
        Self { v4: pieces(v4, |last| last.checked_add(1)), v6: pieces(v6, |last| last.checked_add(1)) }
    }

    /// The number of the longest prefix that contains `address`.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<u32> {
        let found = match address.to_canonical() {
            IpAddr::V4(address) => piece(&self.v4, address.to_bits()),
            IpAddr::V6(address) => piece(&self.v6, address.to_bits()),
        };
        found.filter(|number| *number != NOTHING)
    }

    /// Octets that it takes.
    #[must_use]
    pub fn octets(&self) -> usize {
        size_of_val(&*self.v4) + size_of_val(&*self.v6)
    }

    /// Whether it has no prefix.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn piece<T: Ord + Copy>(pieces: &[(T, u32)], address: T) -> Option<u32> {
    let behind = pieces.partition_point(|(first, _)| *first <= address);
    pieces.get(behind.checked_sub(1)?).map(|(_, number)| *number)
}

/// Divides ranges, of which any two are nested or disjoint, into disjoint pieces.
fn pieces<T: Ord + Copy>(mut ranges: Vec<(T, T, u32)>, next: impl Fn(T) -> Option<T>) -> Box<[(T, u32)]> {
    // Outer ranges come first; the sort is stable, so the first of equal ones stays first.
    ranges.sort_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)));
    ranges.dedup_by_key(|(first, last, _)| (*first, *last));
    let mut cuts = Vec::new();
    let mut open: Vec<(T, u32)> = Vec::new();
    for (first, last, number) in ranges {
        close(&mut open, &mut cuts, &next, |end| end < first);
        cut(&mut cuts, first, number);
        open.push((last, number));
    }
    close(&mut open, &mut cuts, &next, |_| true);
    cuts.into_boxed_slice()
}

/// Ends the ranges that are over; after each, the range around it continues.
fn close<T: Ord + Copy>(
    open: &mut Vec<(T, u32)>,
    cuts: &mut Vec<(T, u32)>,
    next: &impl Fn(T) -> Option<T>,
    is_over: impl Fn(T) -> bool,
) {
    while let Some((last, _)) = open.pop_if(|(last, _)| is_over(*last)) {
        if let Some(behind) = next(last) {
            cut(cuts, behind, open.last().map_or(NOTHING, |(_, outer)| *outer));
        }
    }
}

fn cut<T: Ord + Copy>(cuts: &mut Vec<(T, u32)>, first: T, number: u32) {
    match cuts.last_mut() {
        Some(last) if last.0 == first => last.1 = number,
        _ => cuts.push((first, number)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u32>(), 0..=32_u8).prop_map(|(bits, length)| {
            IpNet::new(std::net::Ipv4Addr::from(bits & 0xf0f0_00ff).into(), length)
        });
        let v6 = (any::<u128>(), 0..=128_u8).prop_map(|(bits, length)| {
            IpNet::new(std::net::Ipv6Addr::from(bits & !0 << 100 | bits & 3).into(), length)
        });
        prop_oneof![v4, v6].prop_map(|prefix| prefix.expect("a length that fits"))
    }

    proptest! {
        /// Goal: the longest prefix counts, and the first of two equal ones, also at the edges of each. Method: a
        /// search through the whole list, for both ends of each prefix and the addresses beside them.
        #[test]
        fn the_longest_prefix_counts(prefixes in prop::collection::vec(prefix(), 0..24)) {
            let map = PrefixMap::new((0..).zip(&prefixes).map(|(number, prefix)| (*prefix, number)));
            let is_mapped = |prefix: &IpNet| matches!(prefix.network(), IpAddr::V6(at) if at.to_ipv4_mapped().is_some());
            prop_assume!(!prefixes.iter().any(is_mapped));
            let beside = |address: IpAddr| match address {
                IpAddr::V4(at) => [at.to_bits().wrapping_add(1), at.to_bits().wrapping_sub(1)]
                    .map(|bits| IpAddr::from(std::net::Ipv4Addr::from(bits))),
                IpAddr::V6(at) => [at.to_bits().wrapping_add(1), at.to_bits().wrapping_sub(1)]
                    .map(|bits| IpAddr::from(std::net::Ipv6Addr::from(bits))),
            };
            for edge in prefixes.iter().flat_map(|prefix| [prefix.network(), prefix.broadcast()]) {
                for address in beside(edge).into_iter().chain([edge]).filter(|at| at.to_canonical() == *at) {
                    let holding = (0..).zip(&prefixes).filter(|(_, prefix)| prefix.contains(&address));
                    let longest = holding.max_by_key(|(number, prefix)| (prefix.prefix_len(), std::cmp::Reverse(*number)));
                    prop_assert_eq!(map.find(address), longest.map(|(number, _)| number), "{}", address);
                }
            }
        }
    }

    #[test]
    fn mapped_addresses_are_those_of_ipv4() {
        let map = PrefixMap::new([("::ffff:192.0.2.0/120".parse().unwrap(), 7)]);
        assert_eq!(map.find("192.0.2.9".parse().unwrap()), Some(7));
        assert_eq!(map.find("::ffff:192.0.2.9".parse().unwrap()), Some(7));
        assert_eq!(map.find("192.0.3.0".parse().unwrap()), None);
        assert!(!map.is_empty() && PrefixMap::default().is_empty());
    }
}
