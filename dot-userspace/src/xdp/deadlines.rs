//! The entries of a bounded map, in the order in which they end.
//!
//! Before: `bans` writes an entry with its end. After: it knows which entries are over and, when the map is full, which
//! one to replace: the one that ends first.
//! Holds: only keys and ends. A pure function of its calls. Never: reads a clock, or calls the kernel.

use std::collections::{BTreeMap, BTreeSet};

use dot_common::{network::Network, settings::version_bit};

/// Keys with their ends, in nanoseconds of any one clock.
#[derive(Debug)]
pub(super) struct Deadlines {
    ends: BTreeMap<Network, u64>,
    by_end: BTreeSet<(u64, Network)>,
    entries_max: usize,
}

impl Deadlines {
    /// Room for this many entries, at least one.
    pub(super) fn new(entries_max: u32) -> Self {
        let entries_max = usize::try_from(entries_max).unwrap_or(usize::MAX).max(1);
        Self { ends: BTreeMap::new(), by_end: BTreeSet::new(), entries_max }
    }

    /// The entry that must be removed before `key` can be inserted, if the map is full.
    pub(super) fn in_the_way_of(&self, key: Network) -> Option<Network> {
        let is_full = self.ends.len() >= self.entries_max && !self.ends.contains_key(&key);
        self.by_end.first().filter(|_| is_full).map(|(_, nearest)| *nearest)
    }

    /// Notes an entry; replaces an older one with the same key.
    pub(super) fn insert(&mut self, key: Network, end_ns: u64) {
        if let Some(before) = self.ends.insert(key, end_ns) {
            self.by_end.remove(&(before, key));
        }
        self.by_end.insert((end_ns, key));
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, key: Network) {
        if let Some(end_ns) = self.ends.remove(&key) {
            self.by_end.remove(&(end_ns, key));
        }
    }

    /// The end of an entry.
    pub(super) fn end_of(&self, key: Network) -> Option<u64> {
        self.ends.get(&key).copied()
    }

    /// The entry that ends first, if it has ended at `now_ns`.
    pub(super) fn over(&self, now_ns: u64) -> Option<Network> {
        self.by_end.first().filter(|(end_ns, _)| *end_ns <= now_ns).map(|(_, key)| *key)
    }

    /// Every entry, by key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Network, u64)> {
        self.ends.iter().map(|(key, end_ns)| (*key, *end_ns))
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// IP versions with entries, in the form of the kernel half's settings. Keys begin with their version, so the first
    /// and the last one suffice.
    pub(super) fn versions(&self) -> u8 {
        let ends = [self.ends.first_key_value(), self.ends.last_key_value()];
        ends.into_iter().flatten().fold(0, |bits, (key, _)| bits | version_bit(key.is_v6()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(address: &str) -> Network {
        Network::of(address.parse().unwrap(), 32, 56)
    }

    /// Goal: when the map is full the entry that ends first is replaced, unless the new key is there already.
    #[test]
    fn nearest_end_gives_way() {
        let [a, b, c] = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(prefix);
        let mut ends = Deadlines::new(2);
        ends.insert(a, 30);
        ends.insert(b, 20);
        assert_eq!((ends.in_the_way_of(c), ends.in_the_way_of(b)), (Some(b), None));
        ends.insert(b, 40);
        assert_eq!(ends.in_the_way_of(c), Some(a), "the end moved");
        ends.remove(a);
        assert_eq!((ends.in_the_way_of(c), ends.versions()), (None, 1));
        ends.insert(c, 1);
        assert_eq!((ends.versions(), ends.over(0), ends.over(1)), (3, None, Some(c)));
        ends.remove(b);
        assert_eq!((ends.versions(), ends.len(), ends.end_of(c), ends.end_of(b)), (2, 1, Some(1), None));
    }

    proptest! {
        /// Goal: both orders hold the same entries after any sequence of calls, and never more than the capacity.
        #[test]
        fn orders_agree(steps in prop::collection::vec((0u32..8, 0u64..20, 0u8..3), 0..200)) {
            let mut ends = Deadlines::new(4);
            for (client, end, step) in steps {
                let key = Network::of(std::net::Ipv4Addr::from_bits(client).into(), 32, 64);
                match step {
                    0 => ends.remove(key),
                    1 => while let Some(over) = ends.over(end) { ends.remove(over) },
                    _ => {
                        if let Some(nearest) = ends.in_the_way_of(key) { ends.remove(nearest) }
                        ends.insert(key, end);
                    }
                }
                prop_assert!(ends.len() <= 4 && ends.by_end.len() == ends.len());
                prop_assert!(ends.iter().all(|(key, end)| ends.by_end.contains(&(end, key))));
            }
        }
    }
}
