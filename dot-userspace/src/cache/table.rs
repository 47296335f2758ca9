//! Entries in slots, and the choice of the entries to evict: S3-FIFO.
//!
//! Before: a response may be cached. After: it has a slot, and entries that were seldom used were evicted for it.
//! Holds: a small queue for new entries, a main queue for entries that were used again while they were new, and the
//! hashes of those that were not: an entry that comes back soon enters the main queue. So a flood of names that are
//! asked once uses a tenth of the memory.
//! Never: allocates for more than was configured, or checks more than [`LOOKS_MAX`] entries to free one.
//!
//! Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, §4.

use std::collections::VecDeque;

use super::{
    entry::{Entry, Freshness, Tick},
    index::Index,
};

/// The small queue has one entry in this many.
const SMALL_PART: usize = 10;
/// Hits that an entry in the small queue needs to enter the main queue.
const HITS_TO_STAY: u8 = 2;
/// Most hits that an entry counts.
const HITS_MAX: u8 = 3;
/// Most entries that one eviction skips; then it evicts the next one, whatever its hits.
const LOOKS_MAX: usize = 64;

/// A place for an entry.
struct Slot {
    entry: Entry,
    hash: u32,
    hits: u8,
    is_taken: bool,
}

/// The table. A slot's number is its index.
pub struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: Index,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    /// Hashes of new entries that were evicted, each at a position given by its own bits.
    ghosts: Box<[u32]>,
    entries_max: usize,
    octets_max: usize,
    entries: usize,
    octets: usize,
}

impl Table {
    /// An empty table. Its memory is reserved now; the kernel provides a page when it is first used.
    pub fn new(entries_max: usize, octets_max: usize) -> Self {
        Self {
            slots: Vec::with_capacity(entries_max),
            free: Vec::new(),
            index: Index::new(entries_max),
            small: VecDeque::with_capacity(entries_max),
            main: VecDeque::with_capacity(entries_max),
            ghosts: vec![0; entries_max.next_power_of_two()].into_boxed_slice(),
            entries_max,
            octets_max,
            entries: 0,
            octets: 0,
        }
    }

    /// Number of entries.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Octets of all entries, overhead included.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// The slot under `hash` whose entry satisfies `is_it`.
    pub fn find(&self, hash: u32, is_it: impl Fn(&Entry) -> bool) -> Option<u32> {
        self.index.find(hash, |slot| self.entry(slot).is_some_and(&is_it))
    }

    /// The entry in `slot`.
    pub fn entry(&self, slot: u32) -> Option<&Entry> {
        self.slots.get(slot as usize).filter(|slot| slot.is_taken).map(|slot| &slot.entry)
    }

    /// The entry in `slot`, mutable.
    pub fn entry_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.slots.get_mut(slot as usize).filter(|slot| slot.is_taken).map(|slot| &mut slot.entry)
    }

    /// Counts a hit of `slot`. Returns the hits before it, as far as they are counted.
    pub fn hit(&mut self, slot: u32) -> u8 {
        let Some(slot) = self.slots.get_mut(slot as usize) else { return 0 };
        let before = slot.hits;
        if before < HITS_MAX {
            slot.hits = before + 1;
        }
        before
    }

    /// Inserts `entry` under `hash`, replacing the entry in slot `old` if there is one. Returns how many others were
    /// evicted. `None`: it needs more than an eighth of the memory, and is not cached.
    pub fn put(&mut self, hash: u32, old: Option<u32>, entry: Entry, now: Tick) -> Option<u64> {
        if entry.cost() > self.octets_max / 8 {
            return None;
        }
        let mut evicted = 0;
        let added = entry.cost();
        while self.octets + added > self.octets_max || (old.is_none() && self.entries >= self.entries_max) {
            if !self.evict(now) {
                break;
            }
            evicted += 1;
        }
        // The old entry may be among those that were evicted.
        match old.and_then(|slot| self.slots.get_mut(slot as usize)).filter(|slot| slot.is_taken) {
            Some(slot) => {
                self.octets = (self.octets + added).saturating_sub(slot.entry.cost());
                slot.entry = entry;
            }
            None => self.place(hash, entry),
        }
        Some(evicted)
    }

    fn place(&mut self, hash: u32, entry: Entry) {
        self.octets += entry.cost();
        self.entries += 1;
        let taken = Slot { entry, hash, hits: 0, is_taken: true };
        let slot = match self.free.pop() {
            Some(number) => {
                if let Some(slot) = self.slots.get_mut(number as usize) {
                    *slot = taken;
                }
                number
            }
            None => {
                self.slots.push(taken);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.index.insert(hash, slot);
        if self.take_ghost(hash) { self.main.push_back(slot) } else { self.small.push_back(slot) }
    }

    /// Evicts one entry. `false`: there is no entry.
    fn evict(&mut self, now: Tick) -> bool {
        let small_max = (self.entries_max / SMALL_PART).max(1);
        for looks in 0.. {
            let is_patient = looks < LOOKS_MAX;
            if self.small.len() >= small_max || self.main.is_empty() {
                let Some(slot) = self.small.pop_front() else { return false };
                match self.standing(slot, now) {
                    Some(hits) if hits >= HITS_TO_STAY && is_patient => {
                        self.set_hits(slot, 0);
                        self.main.push_back(slot);
                    }
                    standing => return self.leave_small(slot, standing.is_some()),
                }
            } else {
                let Some(slot) = self.main.pop_front() else { return false };
                match self.standing(slot, now) {
                    Some(hits) if hits > 0 && is_patient => {
                        self.set_hits(slot, hits - 1);
                        self.main.push_back(slot);
                    }
                    _ => return self.empty(slot),
                }
            }
        }
        false
    }

    /// The hits of an entry that is still usable.
    fn standing(&self, slot: u32, now: Tick) -> Option<u8> {
        let slot = self.slots.get(slot as usize).filter(|slot| slot.is_taken)?;
        (slot.entry.freshness(now) != Freshness::Over).then_some(slot.hits)
    }

    fn set_hits(&mut self, slot: u32, hits: u8) {
        if let Some(slot) = self.slots.get_mut(slot as usize) {
            slot.hits = hits;
        }
    }

    fn leave_small(&mut self, slot: u32, is_remembered: bool) -> bool {
        if let Some(hash) = self.slots.get(slot as usize).map(|slot| slot.hash).filter(|_| is_remembered) {
            let place = self.ghost_place(hash);
            if let Some(ghost) = self.ghosts.get_mut(place) {
                *ghost = hash;
            }
        }
        self.empty(slot)
    }

    /// Whether the entry of `hash` was evicted recently; its ghost is removed.
    fn take_ghost(&mut self, hash: u32) -> bool {
        let place = self.ghost_place(hash);
        self.ghosts.get_mut(place).is_some_and(|ghost| {
            let is_it = *ghost == hash && hash != 0;
            if is_it {
                *ghost = 0;
            }
            is_it
        })
    }

    fn ghost_place(&self, hash: u32) -> usize {
        hash as usize & (self.ghosts.len() - 1)
    }

    /// Frees `slot`, which is in no queue any more.
    fn empty(&mut self, slot: u32) -> bool {
        let Some(place) = self.slots.get_mut(slot as usize) else { return false };
        place.is_taken = false;
        let (entry, hash) = (std::mem::take(&mut place.entry), place.hash);
        self.octets = self.octets.saturating_sub(entry.cost());
        self.entries = self.entries.saturating_sub(1);
        self.index.remove(hash, slot);
        self.free.push(slot);
        true
    }

    /// Removes any `count` entries of a table that is no longer used. Returns how many there were.
    pub fn dismantle(&mut self, count: usize) -> usize {
        let mut gone = 0;
        while gone < count {
            let Some(slot) = self.small.pop_front().or_else(|| self.main.pop_front()) else { break };
            gone += usize::from(self.empty(slot));
        }
        gone
    }

    /// Ends the lifetime of the entries that satisfy `is_meant` among `count` slots from `start` on: they are not
    /// used any more, and are evicted in their turn. Returns the slot to continue with.
    pub fn expire(&mut self, start: usize, count: usize, is_meant: impl Fn(&Entry) -> bool) -> Option<usize> {
        let end = start + count;
        for slot in self.slots.iter_mut().take(end).skip(start) {
            if slot.is_taken && is_meant(&slot.entry) {
                slot.entry.end();
            }
        }
        (end < self.slots.len()).then_some(end)
    }
}
