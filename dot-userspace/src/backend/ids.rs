//! The sixteen-bit message IDs of one socket: which are in use, and for which slot.
//!
//! Before: a socket towards a backend is opened. After: a response's ID leads to the query's slot.
//! Never: hands out an ID twice, or a predictable one; forgets an ID that is in use.
//!
//! Source: RFC 5452 §9.2 (random), RFC 7766 §7 (unique among the unanswered of a connection).

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
};

use super::random::Random;

/// Draws of an ID before the table counts as full; with half of the IDs in use, all draws fail once in 2^32.
const DRAWS_MAX: usize = 32;
/// Entries of a new table: a page, enough for 512 queries in flight over one socket.
const PLACES_MIN: usize = 1024;

/// One socket's table: open addressing, at most half full, so its size follows the number of queries in flight.
/// An ID is its own hash, because it was drawn at random.
pub struct Ids {
    places: RefCell<Box<[Entry]>>,
    outstanding: Cell<usize>,
    /// The latest answered query, by its number in the sequence on the connection.
    newest: Cell<u32>,
    has_reordered: Cell<bool>,
    /// The socket's own address, once it is known.
    local: Cell<Option<SocketAddr>>,
}

/// An ID in use.
#[derive(Clone, Copy, Default)]
struct Entry {
    id: u16,
    /// Slot + 1. 0: the entry is free.
    holder: u16,
}

impl Default for Ids {
    fn default() -> Self {
        let places = vec![Entry::default(); PLACES_MIN].into_boxed_slice();
        Self {
            places: RefCell::new(places),
            outstanding: Cell::new(0),
            newest: Cell::new(0),
            has_reordered: Cell::new(false),
            local: Cell::new(None),
        }
    }
}

impl Ids {
    /// Gives `slot` a free random ID.
    pub fn claim(&self, slot: u16, random: &Random) -> Option<u16> {
        let holder = slot.checked_add(1)?;
        let mut places = self.places.borrow_mut();
        if self.outstanding.get() >= places.len() / 2 {
            *places = grown(&places);
        }
        for _ in 0..DRAWS_MAX {
            let id = random.u16()?;
            let place = find(&places, id);
            let entry = places.get_mut(place)?;
            if entry.holder == 0 {
                *entry = Entry { id, holder };
                self.outstanding.set(self.outstanding.get() + 1);
                return Some(id);
            }
        }
        None
    }

    /// The slot that waits for `id`.
    pub fn slot_of(&self, id: u16) -> Option<u16> {
        let places = self.places.borrow();
        places.get(find(&places, id))?.holder.checked_sub(1)
    }

    /// Frees `id`.
    pub fn release(&self, id: u16) {
        let mut places = self.places.borrow_mut();
        let mut hole = find(&places, id);
        if places.get(hole).is_none_or(|entry| entry.holder == 0) {
            return;
        }
        self.outstanding.set(self.outstanding.get().saturating_sub(1));
        // An entry that was pushed past the hole moves into it, so that no search ends early.
        let mask = places.len() - 1;
        let mut next = (hole + 1) & mask;
        while let Some(entry) = places.get(next).copied().filter(|entry| entry.holder != 0) {
            let home = usize::from(entry.id) & mask;
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(hole) & mask) {
                put(&mut places, hole, entry);
                hole = next;
            }
            next = (next + 1) & mask;
        }
        put(&mut places, hole, Entry::default());
    }

    /// The query with this number in the sequence on its connection was answered.
    pub fn note_order(&self, order: u32) {
        if order < self.newest.get() {
            self.has_reordered.set(true);
        } else {
            self.newest.set(order);
        }
    }

    /// Whether a query was answered before an earlier one; `sent`: queries sent so far.
    pub fn has_reordered(&self, sent: u32) -> bool {
        let over = usize::try_from(sent).unwrap_or(usize::MAX).saturating_sub(self.outstanding.get());
        let newest = usize::try_from(self.newest.get()).unwrap_or(usize::MAX);
        // More queries were sent before the newest answered one than are over: one of those still waits.
        if newest > 0 && newest >= over {
            self.has_reordered.set(true);
        }
        self.has_reordered.get()
    }

    /// Notes the socket's own address.
    pub fn note_local(&self, local: Option<SocketAddr>) {
        self.local.set(local);
    }

    /// The socket's own address, if it is known.
    pub fn local(&self) -> Option<SocketAddr> {
        self.local.get()
    }

    /// IDs in use.
    pub fn outstanding(&self) -> usize {
        self.outstanding.get()
    }
}

/// The index of `id`, or of the free entry where it would be. The search ends, because half of the entries are
/// free.
fn find(places: &[Entry], id: u16) -> usize {
    let mask = places.len() - 1;
    let mut place = usize::from(id) & mask;
    while places.get(place).is_some_and(|entry| entry.holder != 0 && entry.id != id) {
        place = (place + 1) & mask;
    }
    place
}

fn put(places: &mut [Entry], place: usize, entry: Entry) {
    if let Some(room) = places.get_mut(place) {
        *room = entry;
    }
}

/// The same IDs in a table twice as large.
fn grown(places: &[Entry]) -> Box<[Entry]> {
    let mut larger = vec![Entry::default(); places.len() * 2].into_boxed_slice();
    for entry in places.iter().filter(|entry| entry.holder != 0) {
        let place = find(&larger, entry.id);
        put(&mut larger, place, *entry);
    }
    larger
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Goal: the table is a map, for any order of claims and releases. Method: 200,000 steps in which the number
    /// of IDs in use grows and shrinks, against a HashMap.
    #[test]
    fn it_is_a_map_in_any_order() {
        let (ids, random) = (Ids::default(), Random::default());
        let mut model: Vec<(u16, u16)> = Vec::new();
        for step in 0..200_000_usize {
            let target = (step / 7) % 900;
            let draw = usize::from(random.u16().expect("a number"));
            if model.len() <= target {
                let slot = draw.to_le_bytes()[0].into();
                model.push((ids.claim(slot, &random).expect("free"), slot));
            } else {
                let (id, slot) = model.swap_remove(draw % model.len());
                assert_eq!(ids.slot_of(id), Some(slot));
                ids.release(id);
                assert_eq!(ids.slot_of(id), None);
            }
            if step % 1000 == 0 {
                assert!(model.iter().all(|(id, slot)| ids.slot_of(*id) == Some(*slot)));
            }
            assert_eq!(ids.outstanding(), model.len());
        }
    }

    /// Goal: half of the ID space can be in use at once on one socket, each ID once, 0 and 65535 among those that
    /// may be drawn, and released IDs are drawn again. Method: 32,768 claims, then each released and claimed
    /// again until both edges were seen.
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
