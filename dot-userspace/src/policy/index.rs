//! The names of a zone as a tree in one hash table: a lookup takes a label at a time from the root, and ends at the
//! first name without a rule at or below it.
//!
//! Before: `builder` adds names. After: `rules` finds the rule of a name: its own, or that of the wildcard at the
//! closest encloser (RFC 4592 §2.2.1).
//! Holds: for each name two numbers and its octets, in one piece, 8 to 24 octets of the table, and 1 to 3 of the filter.
//! Never: changes after it was built; allocates at a lookup; relies on a hash alone: a name that is found is
//! compared.
//!
//! The hash of a name continues that of its parent without reading it: so the table entries of all names of a lookup
//! are read at once, and a lookup waits for memory twice, however many labels there are. The filter is an eighth of the
//! table and fits into a processor's own cache; it ends most lookups of other names before they read the table.

use std::hash::{BuildHasher as _, RandomState};

use crate::dns::Labels;

/// The position of a name in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(u32);

/// The root.
const ROOT: NodeId = NodeId(0);

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
    /// One name after the other: the rule of the name, that of the wildcard below it (0: there is none), and its
    /// octets without the root's, preceded by their number, in words.
    names: Vec<u32>,
    /// The number of names.
    count: usize,
    /// High half: high half of the hash. Low half: position of the name. 0: free, because the root is not in the
    /// table.
    table: Vec<u64>,
    /// For each position of the table eight bits: a name with a hash of this position has set one of them.
    filter: Vec<u8>,
}

impl Default for Index {
    fn default() -> Self {
        let key = RandomState::new().hash_one(0);
        let (table, filter) = (vec![0; TABLE_PLACES_MIN], vec![0; TABLE_PLACES_MIN]);
        Self { key, names: vec![0, 0, 0], count: 1, table, filter }
    }
}

impl Index {
    /// The rule for `name`.
    #[must_use]
    pub fn find(&self, name: &Labels) -> Option<Match> {
        let (mut hashes, mut first) = ([0; LEVELS_AT_ONCE], [0; LEVELS_AT_ONCE]);
        let (mut hash, mut levels) = (self.key, 0);
        for ((label, kept), edge) in name.labels().zip(&mut hashes).zip(&mut first) {
            hash = self.hash(hash, label);
            if !self.may_have(hash) {
                break;
            }
            *kept = hash;
            *edge = self.table.get(low(hash) & self.mask()).copied().unwrap_or_default();
            levels += 1;
        }
        let (mut node, mut depth) = (ROOT, 0);
        for (level, label) in name.labels().enumerate() {
            hash = match hashes.get(level) {
                Some(known) if level < levels => *known,
                Some(_) => break,
                None => self.hash(hash, label),
            };
            match self.probe(hash, first.get(level).copied(), |_| true) {
                Some(found) => (node, depth) = (found, level + 1),
                None => break,
            }
        }
        if !self.is_name(node, name.last(depth)) {
            (node, depth) = self.find_slowly(name, depth);
        }
        self.matched(node, depth < name.count())
    }

    /// The deepest existing name among `name` and those above it, with each name compared: two hashes were equal.
    #[cold]
    fn find_slowly(&self, name: &Labels, depth: usize) -> (NodeId, usize) {
        for depth in (1..=depth).rev() {
            let hash = name.labels().take(depth).fold(self.key, |hash, label| self.hash(hash, label));
            let is_it = |node| self.is_name(node, name.last(depth));
            if let Some(node) = self.probe(hash, None, is_it) {
                return (node, depth);
            }
        }
        (ROOT, 0)
    }

    /// Whether a name with this hash may be in the table.
    fn may_have(&self, hash: u64) -> bool {
        self.filter.get(low(hash) & self.mask()).is_some_and(|bits| bits & bit(hash) != 0)
    }

    fn matched(&self, node: NodeId, is_wildcard: bool) -> Option<Match> {
        let rule = *self.names.get(node.0 as usize + usize::from(is_wildcard))?;
        (rule != 0).then_some(Match { rule, is_wildcard })
    }

    /// The node with this hash that satisfies `is_it`; `first` is the entry at the hash's own position, if that was
    /// read.
    fn probe(&self, hash: u64, first: Option<u64>, is_it: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let (mut place, mask) = (low(hash), self.mask());
        let mut edge = match first {
            Some(edge) => edge,
            None => *self.table.get(place & mask)?,
        };
        while edge != 0 {
            if edge >> 32 == hash >> 32 && is_it(NodeId(edge as u32)) {
                return Some(NodeId(edge as u32));
            }
            place += 1;
            edge = *self.table.get(place & mask)?;
        }
        None
    }

    /// Whether a node has this name, given without the root's octet.
    fn is_name(&self, node: NodeId, name: &[u8]) -> bool {
        let words = self.names.get(node.0 as usize + RULES_WORDS..).unwrap_or_default();
        let Some((first, words)) = words.split_first() else { return false };
        let (front, rest) = name.split_at(name.len().min(3));
        let [length, own @ ..] = first.to_le_bytes();
        usize::from(length) == name.len()
            && own.starts_with(front)
            && rest.len() <= words.len() * 4
            && is_in(rest, words)
    }

    /// The octets of a name, without the root's.
    fn octets_of(&self, node: NodeId) -> impl Iterator<Item = u8> {
        let words = self.names.get(node.0 as usize + RULES_WORDS..).unwrap_or_default();
        let length = words.first().map_or(0, |word| usize::from(word.to_le_bytes()[0]));
        words.iter().flat_map(|word| word.to_le_bytes()).skip(1).take(length)
    }

    /// The node of a name, given without the root's octet; made if it does not exist, with those above it. `None`:
    /// there are more names than can be counted.
    pub fn insert(&mut self, octets: &[u8]) -> Option<NodeId> {
        let mut starts = [0; u8::MAX as usize];
        let (mut count, mut at) = (0, 0);
        while let Some(length) = octets.get(at) {
            *starts.get_mut(count)? = at;
            (count, at) = (count + 1, at + 1 + usize::from(*length));
        }
        let (mut node, mut hash) = (ROOT, self.key);
        for start in starts.get(..count)?.iter().rev() {
            let name = octets.get(*start..)?;
            let label = name.get(..=usize::from(*name.first()?))?;
            hash = self.hash(hash, label);
            let found = self.probe(hash, None, |node| self.is_name(node, name));
            node = match found {
                Some(found) => found,
                None => self.grow(name, hash)?,
            };
        }
        Some(node)
    }

    fn grow(&mut self, name: &[u8], hash: u64) -> Option<NodeId> {
        let id = u32::try_from(self.names.len()).ok()?;
        let mut word = [u8::try_from(name.len()).ok()?, 0, 0, 0];
        if self.count >= self.table.len() / 3 * 2 {
            self.enlarge();
        }
        self.names.extend_from_slice(&[0, 0]);
        let mut at = 1;
        for octet in name {
            if at == word.len() {
                self.names.push(u32::from_le_bytes(std::mem::take(&mut word)));
                at = 0;
            }
            *word.get_mut(at)? = *octet;
            at += 1;
        }
        self.names.push(u32::from_le_bytes(word));
        self.count += 1;
        place((&mut self.table, &mut self.filter), hash, id);
        Some(NodeId(id))
    }

    fn enlarge(&mut self) {
        let places = self.table.len() * 2;
        let (mut table, mut filter) = (vec![0; places], vec![0; places]);
        for edge in self.table.iter().copied().filter(|edge| *edge != 0) {
            let name: Vec<u8> = self.octets_of(NodeId(edge as u32)).collect();
            let mut octets = [0; 256];
            octets.iter_mut().zip(&name).for_each(|(place, octet)| *place = *octet);
            // Unreachable: every name in the index is valid.
            let Some(labels) = Labels::read(octets.get(..=name.len()).unwrap_or_default(), 0) else {
                continue;
            };
            let hash = labels.labels().fold(self.key, |hash, label| self.hash(hash, label));
            place((&mut table, &mut filter), hash, edge as u32);
        }
        (self.table, self.filter) = (table, filter);
    }

    /// The rule of a node, or of its wildcard, to be set; 0: there is none.
    pub fn rule(&mut self, id: NodeId, is_wildcard: bool) -> Option<&mut u32> {
        self.names.get_mut(id.0 as usize + usize::from(is_wildcard))
    }

    /// Frees reserved memory.
    pub fn shrink(&mut self) {
        self.names.shrink_to_fit();
    }

    /// Octets of memory.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.names.capacity() * size_of::<u32>()
            + self.table.capacity() * size_of::<u64>()
            + self.filter.capacity()
    }

    /// The step of wyhash, a product of 128 bits folded, over eight octets at a time. The key is random: a client
    /// cannot find names that are adjacent in the table.
    fn hash(&self, parent: u64, label: &[u8]) -> u64 {
        let mut hash = parent;
        let (whole, rest) = label.as_chunks::<8>();
        for chunk in whole {
            hash = fold(hash ^ u64::from_le_bytes(*chunk), self.key | 1);
        }
        if !rest.is_empty() {
            hash = fold(hash ^ few(rest), self.key | 1);
        }
        fold(hash, MULTIPLIER)
    }

    fn mask(&self) -> usize {
        self.table.len() - 1
    }
}

/// wyhash's first secret number.
const MULTIPLIER: u64 = 0xa076_1d64_78bd_642f;
const TABLE_PLACES_MIN: usize = 16;
/// Levels whose entries are read before the first is compared. Names in queries usually have two to five labels.
const LEVELS_AT_ONCE: usize = 6;
/// Words of a name before its octets.
const RULES_WORDS: usize = 2;

/// Inserts a name at the next free position; there always is one.
fn place((table, filter): (&mut [u64], &mut [u8]), hash: u64, id: u32) {
    let (mut place, mask) = (low(hash), table.len() - 1);
    filter.get_mut(place & mask).into_iter().for_each(|bits| *bits |= bit(hash));
    while let Some(edge) = table.get_mut(place & mask) {
        if *edge == 0 {
            *edge = hash >> 32 << 32 | u64::from(id);
            return;
        }
        place += 1;
    }
}

/// The half of a hash that chooses the position; the other half distinguishes names.
fn low(hash: u64) -> usize {
    hash as u32 as usize
}

/// The bit of the filter at the hash's position.
fn bit(hash: u64) -> u8 {
    1 << (hash >> 61)
}

/// One to seven octets as a number, in two reads that may overlap. Two labels of one length have different numbers, and the first octet
/// of a label is its length.
fn few(octets: &[u8]) -> u64 {
    if let (Some(front), Some(back)) = (octets.first_chunk::<4>(), octets.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*front)) | u64::from(u32::from_le_bytes(*back)) << 32;
    }
    octets.iter().fold(0, |number, octet| number << 8 | u64::from(*octet))
}

/// Whether the words begin with these octets.
fn is_in(octets: &[u8], words: &[u32]) -> bool {
    let (whole, rest) = octets.as_chunks::<4>();
    let last = words.get(whole.len()).copied().unwrap_or_default().to_le_bytes();
    whole.iter().zip(words).all(|(octets, word)| u32::from_le_bytes(*octets) == *word)
        && last.starts_with(rest)
}

fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests;
