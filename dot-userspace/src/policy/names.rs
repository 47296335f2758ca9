//! The names of a zone while it is read: each is found again by its octets, and has room for two rules.
//!
//! Before: `rpz` and `lists` have read a name. After: `index` lays the names out for lookups.
//! Holds: for each name two numbers and its octets, in one piece, and 8 to 24 octets of a hash table.
//! Never: is asked by a query; has a name without those above it, which always come first.

use std::hash::{BuildHasher as _, RandomState};

use super::name_hash::hash;

/// The position of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(u32);

/// The root.
const ROOT: NodeId = NodeId(0);

/// The names so far.
#[derive(Debug)]
pub struct Names {
    key: u64,
    /// One name after the other, from the root on: the rule of the name, that of the wildcard below it (0: there is
    /// none), and its octets without the root's, preceded by their number, in words.
    words: Vec<u32>,
    /// The number of names.
    count: usize,
    /// High half: high half of the hash. Low half: position of the name. 0: free, because the root is not in the
    /// table.
    table: Vec<u64>,
}

impl Default for Names {
    fn default() -> Self {
        let key = RandomState::new().hash_one(0);
        Self { key, words: vec![0, 0, 0], count: 1, table: vec![0; TABLE_PLACES_MIN] }
    }
}

impl Names {
    /// The node of a name, given without the root's octet; made if it does not exist, with those above it. `None`:
    /// there are more names than can be counted.
    pub fn insert(&mut self, octets: &[u8]) -> Option<NodeId> {
        let mut starts = [0; LABELS_MAX];
        let (mut node, mut hashed) = (ROOT, self.key);
        for start in starts_of(octets, &mut starts)?.iter().rev() {
            let name = octets.get(usize::from(*start)..)?;
            hashed = hash(self.key, hashed, name.get(..=usize::from(*name.first()?))?);
            node = match self.probe(hashed, name) {
                Some(found) => found,
                None => self.grow(name, hashed)?,
            };
        }
        Some(node)
    }

    /// The rule of a node, or of its wildcard, to be set; 0: there is none.
    pub fn rule(&mut self, id: NodeId, is_wildcard: bool) -> Option<&mut u32> {
        self.words.get_mut(id.0 as usize + usize::from(is_wildcard))
    }

    /// The number of names, with the root.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Passes each name, without the root's octet, and its two rules to `take`, in the order in which they came.
    pub fn each(&self, mut take: impl FnMut(&[u8], [u32; 2])) {
        let (mut at, mut name) = (0, Vec::with_capacity(usize::from(u8::MAX)));
        while let Some([rule, wildcard, words @ ..]) = self.words.get(at..) {
            name.clear();
            name.extend(octets_in(words));
            take(&name, [*rule, *wildcard]);
            at += RULES_WORDS + (1 + name.len()).div_ceil(size_of::<u32>());
        }
    }

    /// The node of the name with this hash.
    fn probe(&self, hash: u64, name: &[u8]) -> Option<NodeId> {
        let (mut place, mask) = (low(hash), self.table.len() - 1);
        loop {
            let edge = *self.table.get(place & mask).filter(|edge| **edge != 0)?;
            if edge >> 32 == hash >> 32 && self.is_name(edge as u32, name) {
                return Some(NodeId(edge as u32));
            }
            place += 1;
        }
    }

    /// Whether a node has this name.
    fn is_name(&self, id: u32, name: &[u8]) -> bool {
        let words = self.words.get(id as usize + RULES_WORDS..).unwrap_or_default();
        let Some((first, words)) = words.split_first() else { return false };
        let (front, rest) = name.split_at(name.len().min(3));
        let [length, own @ ..] = first.to_le_bytes();
        let (whole, end) = rest.as_chunks::<4>();
        usize::from(length) == name.len()
            && own.starts_with(front)
            && whole.iter().zip(words).all(|(octets, word)| u32::from_le_bytes(*octets) == *word)
            && words.get(whole.len()).copied().unwrap_or_default().to_le_bytes().starts_with(end)
    }

    fn grow(&mut self, name: &[u8], hash: u64) -> Option<NodeId> {
        let id = u32::try_from(self.words.len()).ok()?;
        let mut word = [u8::try_from(name.len()).ok()?, 0, 0, 0];
        if self.count >= self.table.len() / 3 * 2 {
            self.enlarge();
        }
        self.words.extend_from_slice(&[0, 0]);
        let mut at = 1;
        for octet in name {
            if at == word.len() {
                self.words.push(u32::from_le_bytes(std::mem::take(&mut word)));
                at = 0;
            }
            *word.get_mut(at)? = *octet;
            at += 1;
        }
        self.words.push(u32::from_le_bytes(word));
        self.count += 1;
        place(&mut self.table, hash, id);
        Some(NodeId(id))
    }

    fn enlarge(&mut self) {
        let mut table = vec![0; self.table.len() * 2];
        let (mut name, mut starts) = (Vec::with_capacity(usize::from(u8::MAX)), [0; LABELS_MAX]);
        for edge in self.table.iter().copied().filter(|edge| *edge != 0) {
            name.clear();
            name.extend(octets_in(self.words.get(edge as u32 as usize + RULES_WORDS..).unwrap_or_default()));
            let labels = labels_of(&name, &mut starts);
            place(
                &mut table,
                labels.fold(self.key, |parent, label| hash(self.key, parent, label)),
                edge as u32,
            );
        }
        self.table = table;
    }
}

/// Where each label of a name begins, the first one first. `None`: it has more labels than a name may have.
fn starts_of<'s>(octets: &[u8], starts: &'s mut [u8; LABELS_MAX]) -> Option<&'s [u8]> {
    let (mut count, mut at) = (0, 0);
    while let Some(length) = octets.get(at) {
        *starts.get_mut(count)? = u8::try_from(at).ok()?;
        (count, at) = (count + 1, at + 1 + usize::from(*length));
    }
    starts.get(..count)
}

/// The labels of a name with their length octets, the last one first.
pub(super) fn labels_of<'n>(
    name: &'n [u8],
    starts: &'n mut [u8; LABELS_MAX],
) -> impl Iterator<Item = &'n [u8]> {
    let starts = starts_of(name, starts).unwrap_or_default();
    starts.iter().rev().filter_map(|start| {
        let label = name.get(usize::from(*start)..)?;
        label.get(..=usize::from(*label.first()?))
    })
}

/// The octets that these words hold, preceded by their number.
fn octets_in(words: &[u32]) -> impl Iterator<Item = u8> {
    let length = words.first().map_or(0, |word| usize::from(word.to_le_bytes()[0]));
    words.iter().flat_map(|word| word.to_le_bytes()).skip(1).take(length)
}

/// Inserts a name at the next free position; there always is one.
fn place(table: &mut [u64], hash: u64, id: u32) {
    let (mut place, mask) = (low(hash), table.len() - 1);
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

/// Most labels of a name, without the root's.
pub(super) const LABELS_MAX: usize = 127;
const TABLE_PLACES_MIN: usize = 16;
/// Words of a name before its octets.
const RULES_WORDS: usize = 2;
