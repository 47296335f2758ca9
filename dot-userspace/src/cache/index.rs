//! Maps a hash to a slot: open addressing in one block of memory that never grows.
//!
//! Before: a key was hashed with a secret. After: the caller has checked the slots that may contain it.
//! Holds: 32 bits of each hash beside its slot, so that the slot of another key is rarely read.
//! Never: moves more cells than the run after a freed cell: the table is never resized, so there is no pause for
//! that.

/// The hash in the upper half, the slot number plus one in the lower; zero is an empty cell.
type Cell = u64;

/// The table. It has twice to three times as many cells as slots, rounded up to a power of two.
pub struct Index {
    cells: Box<[Cell]>,
    mask: usize,
}

impl Index {
    /// An empty table for this many slots. The kernel provides a page of its memory when it is first used.
    pub fn new(slots: usize) -> Self {
        let cells = (slots + slots / 2 + 1).next_power_of_two();
        Self { cells: vec![0; cells].into_boxed_slice(), mask: cells - 1 }
    }

    /// The slot under `hash` for which `is_it` is true.
    pub fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut place = self.home(hash);
        loop {
            let cell = *self.cells.get(place)?;
            if cell == 0 {
                return None;
            }
            let slot = slot_of(cell);
            if hash_of(cell) == hash && is_it(slot) {
                return Some(slot);
            }
            place = self.next(place);
        }
    }

    /// Inserts `slot` under `hash`. There are always more cells than slots.
    pub fn insert(&mut self, hash: u32, slot: u32) {
        let mut place = self.home(hash);
        while self.cells.get(place).is_some_and(|cell| *cell != 0) {
            place = self.next(place);
        }
        if let Some(cell) = self.cells.get_mut(place) {
            *cell = Cell::from(hash) << 32 | (Cell::from(slot) + 1);
        }
    }

    /// Removes `slot` from under `hash`, and moves back the cells that it had displaced.
    pub fn remove(&mut self, hash: u32, slot: u32) {
        let mut hole = self.home(hash);
        loop {
            match self.cells.get(hole) {
                None | Some(0) => return,
                Some(cell) if slot_of(*cell) == slot => break,
                Some(_) => hole = self.next(hole),
            }
        }
        let mut place = self.next(hole);
        while let Some(cell) = self.cells.get(place).copied().filter(|cell| *cell != 0) {
            // A cell may move back unless its home lies between the hole and the cell.
            let from_home = place.wrapping_sub(self.home(hash_of(cell))) & self.mask;
            if from_home >= place.wrapping_sub(hole) & self.mask {
                self.set(hole, cell);
                hole = place;
            }
            place = self.next(place);
        }
        self.set(hole, 0);
    }

    fn set(&mut self, place: usize, value: Cell) {
        if let Some(cell) = self.cells.get_mut(place) {
            *cell = value;
        }
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & self.mask
    }

    fn next(&self, place: usize) -> usize {
        (place + 1) & self.mask
    }
}

fn hash_of(cell: Cell) -> u32 {
    (cell >> 32) as u32
}

fn slot_of(cell: Cell) -> u32 {
    (cell as u32).wrapping_sub(1)
}
