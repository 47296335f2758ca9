//! Finds the keys with the highest counts, with fewer counters than keys.
//!
//! Before: something is counted for a key. After: the keys with the highest counts; each count says by how much it
//! may be too high.
//! Holds: [`ENTRIES`] counts. A new key replaces the key with the lowest count and continues that count: so no count
//! is too low, and every key with more than one in [`ENTRIES`] of the total is present.
//! Never: grows; allocates for a key that is a number.
//!
//! Source: Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements in Data Streams (Space-Saving).

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// Counters of a sketch.
pub const ENTRIES: usize = 256;

/// A key's count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// The count. It is never too low, and too high by at most `excess`.
    pub count: u64,
    /// The most by which it may be too high.
    pub excess: u64,
}

/// The counts of one worker.
#[derive(Debug)]
pub struct Sketch<K> {
    places: HashMap<K, usize>,
    keys: Vec<K>,
    estimates: Vec<Estimate>,
}

impl<K: Clone + Eq + Hash> Default for Sketch<K> {
    fn default() -> Self {
        // Twice the room, because keys are inserted and removed.
        Self {
            places: HashMap::with_capacity(2 * ENTRIES),
            keys: Vec::with_capacity(ENTRIES),
            estimates: Vec::with_capacity(ENTRIES),
        }
    }
}

impl<K: Clone + Eq + Hash> Sketch<K> {
    /// Adds `count` to a key.
    pub fn add<Q>(&mut self, key: &Q, count: u64)
    where
        K: Borrow<Q> + for<'a> From<&'a Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(estimate) = self.places.get(key).and_then(|place| self.estimates.get_mut(*place)) {
            estimate.count = estimate.count.wrapping_add(count);
            return;
        }
        let key = K::from(key);
        if self.keys.len() < ENTRIES {
            self.places.insert(key.clone(), self.keys.len());
            self.keys.push(key);
            return self.estimates.push(Estimate { count, excess: 0 });
        }
        let lowest = self.estimates.iter().enumerate().min_by_key(|(_, estimate)| estimate.count);
        let Some((place, lowest)) = lowest.map(|(place, lowest)| (place, lowest.count)) else { return };
        if let (Some(held), Some(estimate)) = (self.keys.get_mut(place), self.estimates.get_mut(place)) {
            self.places.remove::<K>(held);
            *held = key.clone();
            *estimate = Estimate { count: lowest.wrapping_add(count), excess: lowest };
            self.places.insert(key, place);
        }
    }

    /// Every key with its count.
    pub fn rows(&self) -> impl Iterator<Item = (&K, Estimate)> {
        self.keys.iter().zip(self.estimates.iter().copied())
    }

    /// The most that a missing key may have.
    #[must_use]
    pub fn floor(&self) -> u64 {
        if self.keys.len() < ENTRIES {
            return 0;
        }
        self.estimates.iter().map(|estimate| estimate.count).min().unwrap_or_default()
    }
}

/// Merges the counts of several workers. Returns the highest `most` counts in order.
pub fn merge<K: Clone + Ord + Hash>(parts: &[(Vec<(K, Estimate)>, u64)], most: usize) -> Vec<(K, Estimate)> {
    let floors: u64 = parts.iter().map(|(_, floor)| floor).sum();
    let mut sums: HashMap<K, (Estimate, u64)> = HashMap::new();
    for (rows, floor) in parts {
        for (key, estimate) in rows {
            let (sum, known) = sums.entry(key.clone()).or_default();
            sum.count = sum.count.wrapping_add(estimate.count);
            sum.excess = sum.excess.wrapping_add(estimate.excess);
            *known += floor;
        }
    }
    // A worker that does not report a key may have counted up to its lowest count for it.
    let whole = sums.into_iter().map(|(key, (sum, known))| {
        let unknown = floors.saturating_sub(known);
        (key, Estimate { count: sum.count.wrapping_add(unknown), excess: sum.excess.wrapping_add(unknown) })
    });
    let mut rows: Vec<_> = whole.collect();
    rows.sort_unstable_by(|(one, a), (other, b)| b.count.cmp(&a.count).then_with(|| one.cmp(other)));
    rows.truncate(most);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that is equal to its borrowed form.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    struct Key(u32);
    impl From<&Key> for Key {
        fn from(key: &Key) -> Self {
            *key
        }
    }

    /// Goal: frequent keys are found among many rare ones, no count is too low, none is too high by more than it
    /// says, and memory does not grow. Method: three frequent keys between 100,000 that occur once; on two workers,
    /// merged.
    #[test]
    fn the_heavy_are_found() {
        let mut workers = [Sketch::default(), Sketch::default()];
        let mut true_counts = HashMap::new();
        for number in 0..100_000_u32 {
            let worker = &mut workers[number as usize % 2];
            for (key, every) in [(Key(1), 10), (Key(2), 50), (Key(3), 200), (Key(1000 + number), 1)] {
                if number % every == 0 {
                    worker.add(&key, 1);
                    *true_counts.entry(key).or_insert(0_u64) += 1;
                }
            }
        }
        let parts = workers.each_ref().map(|worker| {
            let rows: Vec<_> = worker.rows().map(|(key, estimate)| (*key, estimate)).collect();
            assert_eq!(
                (rows.len(), worker.places.len(), worker.keys.capacity()),
                (ENTRIES, ENTRIES, ENTRIES)
            );
            (rows, worker.floor())
        });
        let merged = merge(&parts, 10);
        assert_eq!([merged[0].0, merged[1].0], [Key(1), Key(2)], "{merged:?}");
        for (key, estimate) in &merged {
            let count = true_counts[key];
            assert!(
                estimate.count >= count && estimate.count - estimate.excess <= count,
                "{key:?} {estimate:?} {count}"
            );
        }
    }
}
