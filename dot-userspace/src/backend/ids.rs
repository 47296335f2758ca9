//! The sixteen-bit message IDs of one socket: which are in use, and for which slot.
//!
//! Before: a socket towards a backend is opened. After: a response's ID leads to the query's slot.
//! Never: hands out an ID twice, or a predictable one; forgets an ID that is in use.
//!
//! Source: RFC 5452 §9.2 (random), RFC 7766 §7 (unique among the unanswered of a connection).

use std::cell::{Cell, RefCell};

use super::random::Random;

/// Draws of an ID before we say that none is free; at half occupancy all fail once in 2^32.
const DRAWS_MAX: usize = 32;

/// One socket's table.
pub struct Ids {
    /// ID → slot + 1; 0 is free.
    slots: RefCell<Box<[u16]>>,
    outstanding: Cell<usize>,
}

impl Default for Ids {
    fn default() -> Self {
        Self::below(usize::from(u16::MAX) + 1)
    }
}

impl Ids {
    /// A table of so many IDs (a power of two), from 0 up: less memory, for a connection, into which nobody
    /// can inject.
    pub fn below(count: usize) -> Self {
        let slots = vec![0; count.next_power_of_two()].into_boxed_slice();
        Self { slots: RefCell::new(slots), outstanding: Cell::new(0) }
    }

    /// Gives `slot` a free random ID.
    pub fn claim(&self, slot: u16, random: &Random) -> Option<u16> {
        let mut slots = self.slots.borrow_mut();
        let mask = u16::try_from(slots.len() - 1).unwrap_or(u16::MAX);
        for _ in 0..DRAWS_MAX {
            let id = random.u16()? & mask;
            if let Some(entry @ 0) = slots.get_mut(usize::from(id)) {
                *entry = slot.checked_add(1)?;
                self.outstanding.set(self.outstanding.get() + 1);
                return Some(id);
            }
        }
        None
    }

    /// The slot that waits for `id`.
    pub fn slot_of(&self, id: u16) -> Option<u16> {
        self.slots.borrow().get(usize::from(id)).and_then(|entry| entry.checked_sub(1))
    }

    /// Frees `id`.
    pub fn release(&self, id: u16) {
        let freed = self.slots.borrow_mut().get_mut(usize::from(id)).map(std::mem::take);
        if freed.is_some_and(|entry| entry != 0) {
            self.outstanding.set(self.outstanding.get().saturating_sub(1));
        }
    }

    /// IDs in use.
    pub fn outstanding(&self) -> usize {
        self.outstanding.get()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Goal: a small table hands out its own IDs alone, and says so when none is free.
    #[test]
    fn a_small_table_keeps_to_its_ids() {
        let (ids, random) = (Ids::below(8), Random::default());
        let drawn: HashSet<u16> = (0..100).filter_map(|slot| ids.claim(slot, &random)).collect();
        assert_eq!((drawn, ids.outstanding()), ((0..8).collect(), 8));
        assert_eq!(ids.slot_of(8), None);
    }

    /// Goal: half of the ID space can be in use at once on one socket, no ID twice, 0 and 65535 among what
    /// may be drawn, and freed IDs come back. Method: 32,768 claims, then each released and claimed anew
    /// until both edges were seen.
    #[test]
    fn half_of_all_ids_are_handed_out_once() {
        let (ids, random) = (Ids::default(), Random::default());
        let drawn: Vec<u16> = (0..32_768).map(|slot| ids.claim(slot, &random).expect("free")).collect();
        assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 32_768);
        for (slot, id) in drawn.iter().enumerate() {
            assert_eq!(ids.slot_of(*id).map(usize::from), Some(slot));
        }
        drawn.iter().for_each(|id| ids.release(*id));
        assert_eq!(ids.outstanding(), 0);
        let mut edges = HashSet::new();
        while edges.len() < 2 {
            let id = ids.claim(65_534, &random).expect("free");
            assert_eq!(ids.slot_of(id), Some(65_534));
            ids.release(id);
            assert_eq!(ids.slot_of(id), None);
            edges.extend([0, u16::MAX].contains(&id).then_some(id));
        }
    }
}
