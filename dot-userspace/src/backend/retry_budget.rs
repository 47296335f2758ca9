//! How many queries may be sent a second time: a share of the first tries, and a few more.
//!
//! Before: a query was sent, or time passed. After: an unanswered query may be sent again, or waits.
//! Why: otherwise a slow backend would get several times the load that made it slow. A backend that lost a burst,
//! and answers second tries at once, is not slow: all of that burst is sent again.
//! Never: allocates, reads a clock, or limits first tries.

use std::cell::Cell;

/// First tries that earn a second one. 5: a slow backend gets a fifth more queries, not several times as many.
const FIRST_TRIES: u32 = 5;
/// Most saved second tries: enough for a burst that was lost whole.
const SAVED_MAX: u32 = 2048;
/// Second tries that a quiet backend may have at once, with however few first tries: one page of a stub resolver.
const FLOOR: u32 = 32;
/// This many of them come back with each run of the sweeper: 320 a second.
const FLOOR_EACH: u32 = 16;

/// Runs of the sweeper in which half of the needed second tries are forgotten, roughly: a second, in which
/// another answer would have come.
const NEEDED_PARTS: u32 = 32;

/// A token bucket that first tries fill.
pub struct RetryBudget {
    /// Fifths of second tries. Negative if refunded tries turned out to be needless.
    left: Cell<i32>,
    /// Second tries that were refunded lately.
    needed: Cell<u32>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { left: Cell::new((FLOOR * FIRST_TRIES).cast_signed()), needed: Cell::new(0) }
    }
}

impl RetryBudget {
    /// Counts queries that were sent for the first time.
    pub fn earn(&self, first_tries: usize) {
        let earned = i32::try_from(first_tries).unwrap_or(i32::MAX);
        let left = self.left.get().saturating_add(earned);
        self.left.set(left.min((SAVED_MAX * FIRST_TRIES).cast_signed()));
    }

    /// Notes a run of the sweeper.
    pub fn refill(&self) {
        if self.left.get() < (FLOOR * FIRST_TRIES).cast_signed() {
            self.earn((FLOOR_EACH * FIRST_TRIES) as usize);
        }
        let needed = self.needed.get();
        self.needed.set(needed - needed.div_ceil(NEEDED_PARTS));
    }

    /// Takes one second try. `false`: none is left now.
    pub fn spend(&self) -> bool {
        let left = self.left.get().checked_sub(FIRST_TRIES.cast_signed()).filter(|left| *left >= 0);
        left.is_some_and(|left| {
            self.left.set(left);
            true
        })
    }

    /// A query was answered as soon as it was sent again: the first try was lost, and the second one is refunded.
    pub fn was_needed(&self) {
        self.earn(FIRST_TRIES as usize);
        self.needed.set((self.needed.get() + 1).min(SAVED_MAX));
    }

    /// An answer came that matches no query. If second tries were refunded, it may answer one of them, whose
    /// first try was slow and not lost.
    pub fn was_needless(&self) {
        if let Some(needed) = self.needed.get().checked_sub(1) {
            self.needed.set(needed);
            self.left.set(self.left.get() - FIRST_TRIES.cast_signed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: for any number of unanswered queries, a fifth of the first tries is sent again, plus the minimum.
    /// Method: 15,360 first tries at once, each of which would be sent again three times; forty runs of the
    /// sweeper.
    #[test]
    fn second_tries_are_a_share_of_first_ones() {
        let budget = RetryBudget::default();
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

    /// Goal: all of a lost burst may be sent again, if second tries are answered at once. Method: 6,000 first
    /// tries, all lost; in each run 128 are sent again and answered.
    #[test]
    fn what_was_lost_is_sent_again_whole() {
        let budget = RetryBudget::default();
        budget.earn(6000);
        for _ in 0..6000 / 125 {
            budget.refill();
            assert!((0..125).all(|_| budget.spend()));
            (0..125).for_each(|_| budget.was_needed());
        }
    }

    /// Goal: a backend that is merely slow gets a fifth more, also if its first answer comes right after the
    /// second try. Method: 200 queries a run; each second try is refunded at once, and charged ten runs later,
    /// when its own answer comes; unmatched answers without second tries cost nothing.
    #[test]
    fn what_was_slow_is_paid_in_the_end() {
        const LOOKS: usize = 400;
        let budget = RetryBudget::default();
        let mut again = [0; LOOKS];
        for look in 0..LOOKS {
            budget.refill();
            budget.earn(200);
            again[look] = (0..200).filter(|_| budget.spend()).count();
            (0..again[look]).for_each(|_| budget.was_needed());
            (0..again[look.saturating_sub(10)]).for_each(|_| budget.was_needless());
        }
        let (all, fair) = (again.iter().sum::<usize>(), LOOKS * (200 / FIRST_TRIES + FLOOR_EACH) as usize);
        assert!(all < fair * 2 && all < LOOKS * 200 / 2, "{all} of {}, and {fair} are a fifth", LOOKS * 200);
        let quiet = RetryBudget::default();
        (0..1000).for_each(|_| quiet.was_needless());
        assert_eq!((0..100).filter(|_| quiet.spend()).count(), FLOOR as usize);
    }
}
