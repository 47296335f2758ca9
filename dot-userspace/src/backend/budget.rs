//! What may be sent a second time: a share of what is sent for the first time, and a little more.
//!
//! Before: a query was sent, or time went by. After: a query that is unanswered may be sent again, or waits for its turn.
//! Why: a backend that is slow would otherwise get several times the load that made it slow.
//! Never: allocates, looks at a clock, or says how many first tries there may be.

use std::cell::Cell;

/// First tries that earn a second one. 5: a slow backend gets a fifth more, not several times as much.
const FIRST_TRIES: u32 = 5;
/// Second tries that may be saved up: a burst's worth, of a backend that loses a whole one.
const SAVED_MAX: u32 = 2048;
/// Second tries that a quiet backend may have at once, however few first ones there were: one page of a stub resolver.
const FLOOR: u32 = 32;
/// How many of them come back each time the sweeper looks: 320 a second.
const FLOOR_EACH: u32 = 16;

/// A bucket that first tries fill a little.
pub struct Budget(Cell<u32>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(FLOOR * FIRST_TRIES))
    }
}

impl Budget {
    /// So many queries were sent for the first time.
    pub fn earn(&self, first_tries: usize) {
        let earned = u32::try_from(first_tries).unwrap_or(u32::MAX);
        self.0.set(self.0.get().saturating_add(earned).min(SAVED_MAX * FIRST_TRIES));
    }

    /// Time went by, by one look of the sweeper.
    pub fn refill(&self) {
        if self.0.get() < FLOOR * FIRST_TRIES {
            self.earn((FLOOR_EACH * FIRST_TRIES) as usize);
        }
    }

    /// One query is sent again. `false`: it may not be, now.
    pub fn spend(&self) -> bool {
        let left = self.0.get().checked_sub(FIRST_TRIES);
        left.is_some_and(|left| {
            self.0.set(left);
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: however many queries are unanswered, a fifth of what was sent goes out again, and the floor. Method: 15,360
    /// first tries at once, all of which would be sent again three times; forty looks.
    #[test]
    fn second_tries_are_a_share_of_first_ones() {
        let budget = Budget::default();
        budget.earn(15_360);
        let again = (0..3 * 15_360).filter(|_| budget.spend()).count();
        assert_eq!(again, SAVED_MAX as usize, "at once");
        let mut later = 0;
        for _ in 0..40 {
            budget.refill();
            later += (0..15_360).filter(|_| budget.spend()).count();
        }
        assert_eq!(later, 40 * FLOOR_EACH as usize);
        (0..100).for_each(|_| budget.refill());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), FLOOR as usize);
    }
}
