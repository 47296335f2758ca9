//! What one worker has learned about how a backend treats connections, and the limits that follow from it.
//!
//! Before: a connection ended, or `silence` found that one slow query delayed others. After: `streams` opens more
//! connections, and each carries fewer queries.
//! Holds: two findings. Each is forgotten after a while, and learned again if it is still true.
//! Never: allocates, or reads a clock except when `silence` does.
//!
//! Source: RFC 7766 §7 (answers may be in order), §6.2.3 (servers close connections as they like).

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

use super::connection::IN_FLIGHT_MAX;

/// How long a finding is kept.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// This many connections in a row must close after the same number of answers, with queries unanswered, to make a
/// rule.
const CLOSES_MIN: u32 = 2;
/// Unanswered queries on a connection that answers in order: few wait behind a slow one, and the backend always
/// has the next query at hand.
const IN_ORDER_DEPTH: usize = 8;
/// Connections that are opened at the same time if each carries few queries.
const OPENING_MAX: usize = 8;

/// The findings.
#[derive(Default)]
pub struct ConnectionLimits {
    /// The number of answers after which the last connections closed, and how many connections in a row did so.
    closes: Cell<(u32, u32)>,
    /// The most answers over one connection.
    most_answers: Finding<u32>,
    quota: Finding<u32>,
    in_order: Finding<()>,
    /// An answer came before the answer to an earlier query.
    reorders: Finding<()>,
}

/// A fact that is kept for a while.
struct Finding<T>(Cell<Option<(T, Instant)>>);

impl<T> Default for Finding<T> {
    fn default() -> Self {
        Self(Cell::new(None))
    }
}

impl<T: Copy> Finding<T> {
    fn learn(&self, what: T, now: Instant) {
        self.0.set(Some((what, now + REMEMBERED_FOR)));
    }

    fn get(&self) -> Option<T> {
        self.0.get().map(|(what, _)| what)
    }

    fn forget(&self, now: Instant) {
        self.0.set(self.0.get().filter(|(_, until)| now < *until));
    }
}

impl ConnectionLimits {
    /// A connection was closed after this many answers, with queries unanswered.
    pub fn note_close(&self, answers: u32, now: Instant) {
        let (last, in_a_row) = self.closes.get();
        let in_a_row = if answers == last { in_a_row.saturating_add(1) } else { 1 };
        self.closes.set((answers, in_a_row));
        self.note_answers(answers, now);
        let is_most = self.most_answers.get().is_none_or(|most| answers >= most);
        if answers > 0 && in_a_row >= CLOSES_MIN && is_most {
            self.quota.learn(answers, now);
        }
    }

    /// A connection has given this many answers. If another one gave more, a close after fewer answers is no
    /// rule: some query may have caused it.
    pub fn note_answers(&self, answers: u32, now: Instant) {
        if self.most_answers.get().is_none_or(|most| answers >= most) && answers > 0 {
            self.most_answers.learn(answers, now);
        }
    }

    /// A connection was not closed after its full number of answers: forgets the rule.
    pub fn forget_quota(&self) {
        self.quota.0.set(None);
    }

    /// Queries waited long on a connection behind an unanswered one.
    pub fn note_stall(&self, now: Instant) {
        if self.reorders.get().is_none() {
            self.in_order.learn((), now);
        }
    }

    /// An answer came before the answer to an earlier query.
    pub fn note_reordering(&self, now: Instant) {
        self.reorders.learn((), now);
        self.in_order.0.set(None);
    }

    /// Forgets old findings.
    pub fn look(&self, now: Instant) {
        self.most_answers.forget(now);
        self.quota.forget(now);
        self.in_order.forget(now);
        self.reorders.forget(now);
    }

    /// Whether the backend answers the queries of a connection in order, so that slow ones delay others.
    pub fn is_in_order(&self) -> bool {
        self.in_order.get().is_some()
    }

    /// Most unanswered queries on a connection.
    pub fn depth(&self) -> usize {
        if self.is_in_order() { IN_ORDER_DEPTH } else { IN_FLIGHT_MAX }
    }

    /// Most queries that a connection carries in all.
    pub fn quota(&self) -> u32 {
        self.quota.get().unwrap_or(u32::MAX)
    }

    /// How many connections may be opening at the same time while `waiting` queries wait.
    pub fn opening_max(&self, waiting: usize) -> usize {
        match (self.quota.get(), self.is_in_order()) {
            (Some(quota), _) => {
                waiting.div_ceil(usize::try_from(quota).unwrap_or(usize::MAX).max(1)).clamp(1, OPENING_MAX)
            }
            (None, true) => waiting.div_ceil(IN_ORDER_DEPTH).clamp(1, OPENING_MAX),
            (None, false) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a backend that closes after the same number of answers each time gets no more queries per
    /// connection, until the rule is forgotten; a backend that closes at random has no rule. Method: closes in a
    /// row, with a moved clock.
    #[test]
    fn a_rule_is_learned_and_forgotten() {
        let (limits, now) = (ConnectionLimits::default(), Instant::now());
        [3, 7, 1, 0, 0, 0, 1, 1, 1].into_iter().for_each(|answers| limits.note_close(answers, now));
        assert_eq!((limits.quota(), limits.opening_max(100)), (u32::MAX, 1), "one answered seven");
        let limits = ConnectionLimits::default();
        [0, 1, 1].into_iter().for_each(|answers| limits.note_close(answers, now));
        assert_eq!((limits.quota(), limits.opening_max(3), limits.opening_max(100)), (1, 3, 8));
        limits.look(now + REMEMBERED_FOR);
        assert_eq!(limits.quota(), u32::MAX);
    }

    /// Goal: a backend that was seen to answer out of order does not count as one that answers in order. Covers:
    ///
    #[test]
    fn reordering_counts_more_than_a_stall() {
        let (limits, now) = (ConnectionLimits::default(), Instant::now());
        limits.note_stall(now);
        assert_eq!((limits.is_in_order(), limits.depth()), (true, IN_ORDER_DEPTH));
        limits.note_reordering(now);
        limits.note_stall(now);
        assert_eq!((limits.is_in_order(), limits.depth()), (false, IN_FLIGHT_MAX));
    }
}
