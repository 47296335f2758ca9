//! Second tries: when a backend takes longer than usual for a query, another backend gets it too.
//!
//! Before: `pool` gave a query to a backend. After: it answered in time; or two backends have the query, each
//! under an ID of its own, and the first answer counts. The other answer comes late, matches nothing, and is
//! counted as unmatched.
//! Never: tries a third time, or more often than `hedge` allows.

use std::{rc::Rc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::pool::Pool;
use crate::ledger::Counter;

/// A second try is late by at most this.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// The outcome for a late query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Another backend has it too.
    Hedged,
    /// No second try is left.
    OverBudget,
    /// No other backend is awake that has not had the query, or every slot is taken.
    NobodyElse,
}

impl Pool {
    /// The query in `slot` has its answer: notes its time. Returns the slot of its other try.
    pub fn note_answer(&self, slot: u16) -> Option<u16> {
        let flights = self.flights.borrow();
        let flight = flights.get(slot)?;
        let (other, is_second) = (flight.other, flight.is_second);
        flight.sent.iter().for_each(|(ids, _)| ids.note_order(flight.history.order));
        if !self.hedging.is_on() {
            // The other try used another connection of the same backend.
            return other;
        }
        let now = Instant::now();
        self.note_time(flight.backend, now - flight.given_at);
        let loser = other.and_then(|other| flights.get(other));
        let lost = loser.map(|loser| (loser.backend, loser.is_second, now - loser.given_at));
        drop(flights);
        // The first backend would have taken longer than this; for a second backend this says nothing.
        if let Some((backend, false, took)) = lost {
            self.note_time(backend, took);
        }
        self.counters.add(Counter::BackendHedgeWon, u64::from(is_second));
        other
    }

    fn note_time(&self, backend: usize, took: Duration) {
        if let Some(backend) = self.backend(backend) {
            backend.pace.latency.note(took);
        }
    }

    /// Gives the query in `slot` to another backend too.
    fn hedge(&self, slot: u16, now: Instant) -> Verdict {
        let next = {
            let flights = self.flights.borrow();
            flights.get(slot).and_then(|flight| self.choose(flight.affinity(), flight.tried))
        };
        let Some(next) = next else { return Verdict::NobodyElse };
        if !self.hedging.spend() {
            return Verdict::OverBudget;
        }
        let Some(second) = self.flights.borrow_mut().split(slot) else { return Verdict::NobodyElse };
        self.give_to(second, &next, now);
        Verdict::Hedged
    }

    fn is_late(&self, slot: u16, late_at: Instant) -> bool {
        self.flights.borrow().get(slot).is_some_and(|flight| flight.late_at == Some(late_at))
    }

    fn next_late(&self) -> Option<Instant> {
        self.roster.borrow().asked().iter().filter_map(|backend| backend.pace.next_late()).min()
    }
}

/// Finds queries as they become late.
pub async fn watch(pool: Rc<Pool>) {
    loop {
        match pool.next_late() {
            None => pool.hedging.work.notified().await,
            // A query that arrives meanwhile may be late sooner, at another backend.
            Some(late_at) => sleep_until(late_at.min(Instant::now() + LOOK_INTERVAL)).await,
        }
        let now = Instant::now();
        for backend in pool.roster.borrow().asked() {
            while let Some((slot, late_at)) = backend.pace.take_late(now) {
                // Most of these queries have their answer by then, and their slot may hold another query.
                if !pool.is_late(slot, late_at) {
                    continue;
                }
                match pool.hedge(slot, now) {
                    Verdict::Hedged => pool.counters.add(Counter::BackendHedged, 1),
                    Verdict::OverBudget => pool.counters.add(Counter::BackendHedgeOverBudget, 1),
                    Verdict::NobodyElse => {}
                }
            }
        }
    }
}
