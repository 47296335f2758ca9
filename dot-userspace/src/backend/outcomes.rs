//! The part of its queries that a backend answered lately, as one worker sees it, and whether other backends do
//! much better.
//!
//! Before: a query has its answer, or its backend lost it. After: new queries go elsewhere for a while if another
//! backend answers what this one does not; `health` adds up the counts of all workers, for status.
//! Why besides the checks: a backend may answer `. NS`, over a separate connection, and not what clients ask.
//! Never: judges an rcode; sets a backend aside that is no worse than the others: then the cause is the queries,
//! which a client may have chosen; costs more than an addition for a query.
//!
//! Source: outlier detection in Envoy and Finagle: success ratio in a window, compared with the others.

use std::cell::Cell;

/// Outcomes that are needed for a percentage.
const OUTCOMES_MIN: u32 = 16;
/// Runs of the sweeper after which each count is halved: a second.
const LOOKS: u32 = 20;

/// The window of one backend.
#[derive(Default)]
pub struct Outcomes {
    answered: Cell<u32>,
    lost: Cell<u32>,
    /// Those of them that `health` does not have yet.
    unreported: Cell<(u32, u32)>,
    looks: Cell<u32>,
}

impl Outcomes {
    /// A query has its answer.
    pub fn note_answer(&self) {
        self.answered.set(self.answered.get().saturating_add(1));
        let (answered, lost) = self.unreported.get();
        self.unreported.set((answered.saturating_add(1), lost));
    }

    /// A query went elsewhere, or failed, because no answer came.
    pub fn note_loss(&self) {
        self.lost.set(self.lost.get().saturating_add(1));
        let (answered, lost) = self.unreported.get();
        self.unreported.set((answered, lost.saturating_add(1)));
    }

    /// Percentage of answered queries. `None`: too few are over.
    pub fn percent(&self) -> Option<u32> {
        percent(self.answered.get().into(), self.lost.get().into())
    }

    /// Begins again without counts.
    pub fn forget(&self) {
        self.answered.set(0);
        self.lost.set(0);
    }

    /// Notes a run of the sweeper. Once a second it returns the counts that were not reported yet.
    pub fn look(&self) -> Option<(u32, u32)> {
        let looks = self.looks.get() + 1;
        self.looks.set(looks % LOOKS);
        (looks == LOOKS).then(|| {
            self.answered.set(self.answered.get() / 2);
            self.lost.set(self.lost.get() / 2);
            self.unreported.take()
        })
    }
}

/// Percentage of answered queries. `None`: too few are over.
pub fn percent(answered: u64, lost: u64) -> Option<u32> {
    let all = answered.saturating_add(lost);
    let percent = answered.saturating_mul(100).checked_div(all)?;
    u32::try_from(percent).ok().filter(|_| all >= u64::from(OUTCOMES_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: few queries give no percentage, the percentage follows changes within seconds, and each outcome is
    /// reported once. Method: answers, then losses, with runs of the sweeper between.
    #[test]
    fn a_share_follows_what_happens() {
        let outcomes = Outcomes::default();
        (0..15).for_each(|_| outcomes.note_answer());
        assert_eq!(outcomes.percent(), None);
        (0..85).for_each(|_| outcomes.note_answer());
        (0..100).for_each(|_| outcomes.note_loss());
        assert_eq!(outcomes.percent(), Some(50));
        let reports: Vec<_> = (0..2 * LOOKS).filter_map(|_| outcomes.look()).collect();
        assert_eq!(reports, [(100, 100), (0, 0)]);
        (0..100).for_each(|_| outcomes.note_loss());
        assert_eq!(outcomes.percent(), Some(16));
    }
}
