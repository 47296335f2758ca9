//! Second tries: when a backend takes longer than usual for a query, another backend gets it too.
//!
//! Before: `pool` gave a query to a backend. After: it answered in time; or two backends have the query, each
//! under an ID of its own, and the first answer counts. The other answer comes late, matches nothing, and is
//! counted as unmatched.
//! Holds: when each query is late, and how many second tries are left: at most `hedge_percent` of a hundred
//! queries, so slow backends never get twice the load.
//! Never: tries a third time, repeats a query that must not be repeated, takes a second backend's failure for an
//! answer while the first may still answer, or costs anything while it is off. Allocates nothing once warm.
//!
//! Source: Dean and Barroso, "The Tail at Scale" (2013), hedged requests.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{flights::FLIGHTS_MAX, latency::Latency, pool::Pool, worker_backend::Backend};
use crate::{
    dns::{self, Query, ResponseCode},
    ledger::Counter,
};

/// QUERY (RFC 1035 §4.1.1) may be asked twice. NOTIFY and UPDATE must not.
const OPCODE_QUERY: u8 = 0;
/// TKEY, TSIG, IXFR and AXFR: the answer is more than one message, or depends on one server's state.
const STATEFUL_TYPES: std::ops::RangeInclusive<u16> = 249..=252;
/// No query is late before this time. 5 ms: a shorter delay is not noticed, and may come from a busy machine.
const DELAY_MIN: Duration = Duration::from_millis(5);
/// A second try is late by at most this.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// One second try, in the budget's hundredths.
const ONE: u32 = 100;
/// Most second tries at once. 10: enough for the slowest of a burst, too few for all queries of a stalled
/// backend.
const BURST_MAX: u32 = 10 * ONE;

/// Whether `query` may be asked twice.
pub fn is_for(query: &Query) -> bool {
    query.opcode == OPCODE_QUERY && !STATEFUL_TYPES.contains(&query.qtype)
}

/// Whether a second backend's `response` is better than waiting for the first: NOERROR or NXDOMAIN. SERVFAIL and
/// REFUSED may be a problem of the second backend alone.
pub fn is_welcome(response: &[u8]) -> bool {
    matches!(dns::rcode_of(response), ResponseCode::NoError | ResponseCode::NXDomain)
}

/// The configured percentage, and the second tries that are left.
pub struct Hedging {
    percent: u8,
    budget: Budget,
    /// Wakes the watch.
    work: Notify,
}

/// The usual times of one backend, and its queries that may become late.
pub struct Pace {
    latency: Latency,
    /// Slots with queries at this backend and the time when each is late, roughly in that order.
    watched: RefCell<VecDeque<(u16, Instant)>>,
}

/// A token bucket of second tries; each query adds a part of one.
#[derive(Default)]
struct Budget(Cell<u32>);

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

impl Budget {
    fn earn(&self, percent: u8) {
        self.0.set((self.0.get() + u32::from(percent)).min(BURST_MAX));
    }

    fn spend(&self) -> bool {
        let left = self.0.get().checked_sub(ONE);
        left.is_some_and(|left| {
            self.0.set(left);
            true
        })
    }
}

impl Hedging {
    /// Allows up to `percent` second tries in a hundred queries; 0: hedging is off.
    pub fn new(percent: u8) -> Self {
        Self { percent, budget: Budget::default(), work: Notify::new() }
    }

    /// Whether hedging is on.
    pub fn is_on(&self) -> bool {
        self.percent > 0
    }

    /// Counts a new query.
    pub fn earn(&self) {
        self.budget.earn(self.percent);
    }

    /// `backend` has the query in `slot` from `now` on. Returns when it is late. `None`: fail-over comes first.
    pub fn watch(&self, slot: u16, backend: &Backend, now: Instant) -> Option<Instant> {
        let delay = backend.pace.latency.usual()?.max(DELAY_MIN);
        let mut watched = backend.pace.watched.borrow_mut();
        // With `on_tls_failure = "refuse"`, queries of a backend must not go elsewhere when TLS fails.
        if delay >= backend.patience() || watched.len() >= FLIGHTS_MAX || backend.refuses_without_tls() {
            return None;
        }
        if watched.is_empty() {
            self.work.notify_one();
        }
        let late_at = now + delay;
        watched.push_back((slot, late_at));
        Some(late_at)
    }
}

impl Pace {
    /// The state of a backend that has had no query yet.
    pub fn new(hedging: &Hedging) -> Self {
        Self { latency: Latency::new(hedging.percent), watched: RefCell::default() }
    }

    fn next_late(&self) -> Option<Instant> {
        self.watched.borrow().front().map(|(_, late_at)| *late_at)
    }

    fn take_late(&self, now: Instant) -> Option<(u16, Instant)> {
        self.watched.borrow_mut().pop_front_if(|(_, late_at)| *late_at <= now)
    }
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
        if !self.hedging.budget.spend() {
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
        self.backends.borrow().iter().filter_map(|backend| backend.pace.next_late()).min()
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
        for backend in pool.backends.borrow().iter() {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: second tries never exceed the percentage of all queries, however many queries are late and in
    /// whatever order. Method: every query is late; then none for long, followed by a burst of late ones.
    #[test]
    fn second_tries_are_bounded() {
        for percent in [1, 5, 20] {
            let budget = Budget::default();
            let ask = |queries: u32, late: bool| -> u32 {
                (0..queries)
                    .map(|_| {
                        budget.earn(percent);
                        u32::from(late && budget.spend())
                    })
                    .sum()
            };
            assert_eq!(ask(10_000, true), 100 * u32::from(percent));
            assert_eq!(ask(10_000, false), 0);
            let burst = (0..100).filter(|_| budget.spend()).count();
            assert_eq!(burst, 10, "at once");
        }
    }
}
