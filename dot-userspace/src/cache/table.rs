//! Entries in slots, and which of them goes when room is needed: S3-FIFO.
//!
//! Before: a response may be kept. After: it has a slot; what was asked least made room.
//! Holds: a small queue that newcomers enter, a main queue for those that were asked again while in it, and the
//! hashes of those that were not: an entry that comes back soon enters the main queue. So a flood of names that are asked
//! once passes through a tenth of the memory.
//! Never: allocates for more than was configured, or looks at more than [`LOOKS_MAX`] entries to free one.
//!
//! Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, §4.

use std::collections::VecDeque;

use super::{
    entry::{Entry, Freshness, Tick},
    index::Index,
};

/// Part of the entries that may be newcomers.
const SMALL_PART: usize = 10;
/// Hits while a newcomer that make it stay.
const HITS_TO_STAY: u8 = 2;
/// Hits that are remembered.
const HITS_MAX: u8 = 3;
/// Entries that one eviction may pass over before it takes the next one whatever it is.
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
    /// Hashes of newcomers that went, each at the place that its own bits give it.
    ghosts: Box<[u32]>,
    entries_max: usize,
    octets_max: usize,
    entries: usize,
    octets: usize,
}

impl Table {
    /// An empty one. Memory is reserved now, and touched as it is used.
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

    /// Entries now.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Octets now, what entries cost beside their own included.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// The slot under `hash` whose entry `is_it` takes.
    pub fn find(&self, hash: u32, is_it: impl Fn(&Entry) -> bool) -> Option<u32> {
        self.index.find(hash, |slot| self.entry(slot).is_some_and(&is_it))
    }

    /// The entry in `slot`.
    pub fn entry(&self, slot: u32) -> Option<&Entry> {
        self.slots.get(slot as usize).filter(|slot| slot.is_taken).map(|slot| &slot.entry)
    }

    /// The entry in `slot`, to change.
    pub fn entry_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.slots.get_mut(slot as usize).filter(|slot| slot.is_taken).map(|slot| &mut slot.entry)
    }

    /// Remembers that `slot` was asked for. Returns how often it was before, as far as that is remembered.
    pub fn hit(&mut self, slot: u32) -> u8 {
        let Some(slot) = self.slots.get_mut(slot as usize) else { return 0 };
        let before = slot.hits;
        if before < HITS_MAX {
            slot.hits = before + 1;
        }
        before
    }

    /// Puts `entry` under `hash`, in the place of the one in `old` if there is one. Returns how many others went
    /// for it. `None`: it alone is more than an eighth of the room, and is not kept.
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
        // Among those that went may be the old one.
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

    /// Frees one entry's place. `false`: there is no entry.
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

    /// The hits of an entry that is still of use.
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

    /// Whether `hash` went not long ago; it is forgotten now.
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

    /// Forgets the entry in `slot`, which no queue holds any more.
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

    /// Forgets up to `count` entries, whichever; for a table that is no longer used. Returns how many.
    pub fn dismantle(&mut self, count: usize) -> usize {
        let mut gone = 0;
        while gone < count {
            let Some(slot) = self.small.pop_front().or_else(|| self.main.pop_front()) else { break };
            gone += usize::from(self.empty(slot));
        }
        gone
    }

    /// Ends the life of those entries among `count` slots from `start` on that `is_meant` takes: nobody gets them
    /// any more, and their places are free as their turn comes. Returns where to go on.
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
