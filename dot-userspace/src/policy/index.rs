//! The names of a zone for lookups: a tree in one hash table, walked a label at a time from the root to the last name
//! that exists.
//!
//! Before: `names` has all names of a file. After: `rules` finds the rule of a name: its own, or that of the wildcard
//! at the closest encloser (RFC 4592 §2.2.1).
//! Holds: for each name 43 octets: a slot that has the position of the name above it, its own last label and its two
//! rules, in half a line of the processor's caches; and 2 octets of the filter. Labels of more than 19 octets have
//! their ends elsewhere.
//! Never: changes after it was built; allocates at a lookup; relies on a hash alone: the label of each name on the way
//! is compared, and the position of the name above it.
//!
//! The hash of a name continues that of its parent without reading it: so the slots of all names of a lookup are read
//! at once, and a lookup waits for memory once, however many labels there are. The filter is a twentieth of the table
//! and fits into a processor's own caches; it ends most lookups of other names before they read the table.

use std::hash::{BuildHasher as _, RandomState};

use super::{
    name_hash::{hash, is_equal},
    names::{LABELS_MAX, Names, labels_of},
};
use crate::dns::Labels;

/// The rule that matches a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Never 0.
    pub rule: u32,
    /// Whether it is a wildcard's rule.
    pub is_wildcard: bool,
}

/// The names of a zone.
#[derive(Debug)]
pub struct Index {
    key: u64,
    /// The rules of the root.
    root: [u32; 2],
    /// Free ones have the parent [`FREE`]; there always is one.
    slots: Vec<Slot>,
    /// A name has set two bits of one word.
    filter: Vec<u64>,
    /// The ends of long labels.
    ends: Vec<u8>,
}

/// A name: the slot of the name above it, its rule and that of the wildcard below it (0: there is none), and its last
/// label, preceded by its length. A long label has its first 15 octets here, then the position of the rest.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
struct Slot {
    parent: u32,
    rules: [u32; 2],
    label: [u8; LABEL_OCTETS],
}

impl Default for Index {
    fn default() -> Self {
        Self::new(&Names::default())
    }
}

impl Index {
    /// Lays out these names.
    #[must_use]
    pub fn new(names: &Names) -> Self {
        // A third more slots than names: at that load a name is two or three slots behind its own position.
        let slots = names.count().saturating_mul(4) / 3 + 2;
        let mut index = Self {
            key: RandomState::new().hash_one(0),
            root: [0, 0],
            slots: vec![Slot { parent: FREE, rules: [0, 0], label: [0; LABEL_OCTETS] }; slots],
            filter: vec![0; (names.count() * FILTER_BITS).div_ceil(u64::BITS as usize)],
            ends: Vec::new(),
        };
        let mut starts = [0; LABELS_MAX];
        names.each(|name, rules| index.insert(labels_of(name, &mut starts), rules));
        index.ends.shrink_to_fit();
        index
    }

    /// Adds a name whose parents are there already.
    fn insert<'n>(&mut self, labels: impl Iterator<Item = &'n [u8]>, rules: [u32; 2]) {
        let (mut hashed, mut node) = (self.key, ROOT);
        for label in labels {
            hashed = hash(self.key, hashed, label);
            let place = self.place(hashed);
            match self.probe(place, self.parent_at(place), node, label) {
                Ok((found, _)) => node = found,
                Err(free) => {
                    let own = self.own_label(label);
                    if let Some(slot) = self.slots.get_mut(free) {
                        *slot = Slot { parent: node, rules, label: own };
                    }
                    let word = self.word(hashed);
                    self.filter.get_mut(word).into_iter().for_each(|word| *word |= bits(hashed));
                    node = free as u32;
                }
            }
        }
        if node == ROOT {
            self.root = rules;
        }
    }

    /// A label as its slot has it.
    fn own_label(&mut self, label: &[u8]) -> [u8; LABEL_OCTETS] {
        let mut own = [0; LABEL_OCTETS];
        let (front, rest) =
            label.split_at(if label.len() <= LABEL_OCTETS { label.len() } else { FRONT_OCTETS });
        own.iter_mut().zip(front).for_each(|(own, octet)| *own = *octet);
        if !rest.is_empty() {
            // Unreachable: 16 million rules have fewer octets; then the label would be found nowhere.
            let start = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
            own.iter_mut().skip(FRONT_OCTETS).zip(start.to_le_bytes()).for_each(|(own, octet)| *own = octet);
            self.ends.extend_from_slice(rest);
        }
        own
    }

    /// The rule for `name`.
    #[must_use]
    pub fn find(&self, name: &Labels) -> Option<Match> {
        let (mut places, mut parents) = ([0; LEVELS_AT_ONCE], [FREE; LEVELS_AT_ONCE]);
        let (mut hashed, mut levels) = (self.key, 0);
        for ((label, place), parent) in name.labels().zip(&mut places).zip(&mut parents) {
            hashed = hash(self.key, hashed, label);
            if !self.may_have(hashed) {
                break;
            }
            *place = self.place(hashed);
            *parent = self.parent_at(*place);
            levels += 1;
        }
        let (mut node, mut rules, mut depth) = (ROOT, self.root, 0);
        for label in name.labels() {
            let (place, parent) = match (places.get(depth), parents.get(depth)) {
                (Some(place), Some(parent)) if depth < levels => (*place, *parent),
                (Some(_), _) => break,
                _ => {
                    hashed = hash(self.key, hashed, label);
                    let place = self.place(hashed);
                    (place, self.parent_at(place))
                }
            };
            let Ok((found, its)) = self.probe(place, parent, node, label) else { break };
            (node, rules, depth) = (found, its, depth + 1);
        }
        let is_wildcard = depth < name.count();
        let [own, wildcard] = rules;
        let rule = if is_wildcard { wildcard } else { own };
        (rule != 0).then_some(Match { rule, is_wildcard })
    }

    /// The slot of the name with this label below `node`, and its rules; else the free slot in which the search ended.
    /// `parent` is that of the slot at `place`, which was read before.
    #[inline]
    fn probe(&self, place: usize, parent: u32, node: u32, label: &[u8]) -> Result<(u32, [u32; 2]), usize> {
        let (mut place, mut parent) = (place, parent);
        loop {
            if parent == node
                && let Some(slot) = self.slots.get(place).filter(|slot| self.has_label(slot, label))
            {
                return Ok((place as u32, slot.rules));
            }
            if parent == FREE {
                return Err(place);
            }
            place = if place + 1 < self.slots.len() { place + 1 } else { 0 };
            parent = self.parent_at(place);
        }
    }

    fn has_label(&self, slot: &Slot, label: &[u8]) -> bool {
        if let Some(own) = slot.label.get(..label.len()) {
            return is_equal(own, label);
        }
        let (own, start) = slot.label.split_at(FRONT_OCTETS);
        let start = start.first_chunk().map_or(u32::MAX, |start| u32::from_le_bytes(*start)) as usize;
        label.split_at_checked(FRONT_OCTETS).is_some_and(|(front, rest)| {
            own == front && self.ends.get(start..).is_some_and(|ends| ends.starts_with(rest))
        })
    }

    /// Whether a name with this hash may be in the table.
    fn may_have(&self, hash: u64) -> bool {
        self.filter.get(self.word(hash)).is_some_and(|word| word & bits(hash) == bits(hash))
    }

    fn parent_at(&self, place: usize) -> u32 {
        self.slots.get(place).map_or(FREE, |slot| slot.parent)
    }

    /// The slot for a hash: its low half, as a part of all.
    fn place(&self, hash: u64) -> usize {
        (((hash & u64::from(u32::MAX)) * self.slots.len() as u64) >> 32) as usize
    }

    /// The filter's word for a hash: its high half, as a part of all.
    fn word(&self, hash: u64) -> usize {
        (((hash >> 32) * self.filter.len() as u64) >> 32) as usize
    }

    /// Octets of memory.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
            + self.filter.capacity() * size_of::<u64>()
            + self.ends.capacity()
    }
}

/// The parent of a free slot.
const FREE: u32 = u32::MAX;
/// The parent of a name of one label. No slot has this number: there are fewer.
const ROOT: u32 = u32::MAX - 1;
/// Octets of a label in its slot, with its length.
const LABEL_OCTETS: usize = 20;
/// Those of a longer one.
const FRONT_OCTETS: usize = 16;
/// Bits of the filter for each name: two of them set, so that about one name in sixty that is not there passes.
const FILTER_BITS: usize = 16;
/// Levels whose slots are read before the first is compared. Names in queries usually have two to five labels.
const LEVELS_AT_ONCE: usize = 6;

/// Two bits of a word of the filter.
fn bits(hash: u64) -> u64 {
    1 << (hash & 63) | 1 << ((hash >> 6) & 63)
}

#[cfg(test)]
mod tests;
