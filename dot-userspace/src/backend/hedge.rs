//! Second tries: a query whose backend takes longer than it usually does is asked of another one too.
//!
//! Before: `pool` gave a query to a backend. After: that was in time; or two backends have it, each under an ID of its
//! own, and the first answer counts. The other's comes late, matches nothing, and is counted as that.
//! Holds: when each query is late, and how many second tries are left: at most `hedge_percent` of a hundred queries, so
//! that slow backends never get twice the load.
//! Never: tries a third time, does what must not be done twice, prefers a second backend's failure to waiting for the
//! first, or costs anything while it is off. Allocates nothing once warm.
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

/// QUERY (RFC 1035 §4.1.1): it may be asked twice. NOTIFY and UPDATE may not.
const OPCODE_QUERY: u8 = 0;
/// TKEY, TSIG, IXFR and AXFR: what is more than one message, or holds for one server.
const STATEFUL_TYPES: std::ops::RangeInclusive<u16> = 249..=252;
/// No query is late sooner. 5 ms: below that nobody notices, and a busy machine's hiccup is no slow backend.
const DELAY_MIN: Duration = Duration::from_millis(5);
/// A second try is late by at most this.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// One second try, in the budget's hundredths.
const ONE: u32 = 100;
/// Most second tries at once. 10: those of a burst's slowest, not of a backend that stalls with all it has.
const BURST_MAX: u32 = 10 * ONE;

/// Whether `query` may be asked twice.
pub fn is_for(query: &Query) -> bool {
    query.opcode == OPCODE_QUERY && !STATEFUL_TYPES.contains(&query.qtype)
}

/// Whether a second backend's `response` is worth more than waiting for the first one's: it says what there is, or that
/// there is nothing. SERVFAIL and REFUSED may be what that one backend alone has to say.
pub fn is_welcome(response: &[u8]) -> bool {
    matches!(dns::rcode_of(response), ResponseCode::NoError | ResponseCode::NXDomain)
}

/// What one worker may do, and has left.
pub struct Hedging {
    percent: u8,
    budget: Budget,
    /// Wakes the watch.
    work: Notify,
}

/// How one backend keeps time.
pub struct Pace {
    latency: Latency,
    /// Slots whose queries it has, and when each is late, about in that order.
    watched: RefCell<VecDeque<(u16, Instant)>>,
}

/// Second tries that may be made: a bucket that each query fills a little.
#[derive(Default)]
struct Budget(Cell<u32>);

/// What became of a late query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Another backend has it too.
    Hedged,
    /// As many second tries as may be were made.
    OverBudget,
    /// No other backend is awake and has not had it, or every slot is taken.
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
    /// Up to `percent` second tries in a hundred queries; 0: none.
    pub fn new(percent: u8) -> Self {
        Self { percent, budget: Budget::default(), work: Notify::new() }
    }

    /// Whether there are any.
    pub fn is_on(&self) -> bool {
        self.percent > 0
    }

    /// A query more was taken.
    pub fn earn(&self) {
        self.budget.earn(self.percent);
    }

    /// The query in `slot` is at `backend` from `now` on. Returns when it is late; `None`: not before fail-over.
    pub fn watch(&self, slot: u16, backend: &Backend, now: Instant) -> Option<Instant> {
        let delay = backend.pace.latency.usual()?.max(DELAY_MIN);
        let mut watched = backend.pace.watched.borrow_mut();
        // Where TLS fails, queries of a backend that says "refuse" go nowhere else.
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
    /// Of a backend that nobody has asked yet.
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
    /// The query in `slot` has its answer: its backend is known a little better, and its other try is forgotten.
    pub fn note_answer(&self, slot: u16) {
        let flights = self.flights.borrow();
        let Some(flight) = flights.get(slot) else { return };
        let (other, is_second) = (flight.other, flight.is_second);
        flight.sent.iter().for_each(|(ids, _)| ids.note_order(flight.history.order));
        if !self.hedging.is_on() {
            // Another try over another connection of the same backend.
            drop(flights);
            return other.into_iter().for_each(|other| drop(self.leave(other)));
        }
        let now = Instant::now();
        self.note_time(flight.backend, now - flight.given_at);
        let loser = other.and_then(|other| flights.get(other));
        let lost = loser.map(|loser| (loser.backend, loser.is_second, now - loser.given_at));
        drop(flights);
        // How long the first backend would have taken is not known: longer. Of the second not even that it is slow.
        if let Some((backend, false, took)) = lost {
            self.note_time(backend, took);
        }
        self.counters.add(Counter::BackendHedgeWon, u64::from(is_second));
        other.into_iter().for_each(|other| drop(self.leave(other)));
    }

    fn note_time(&self, backend: usize, took: Duration) {
        if let Some(backend) = self.backend(backend) {
            backend.pace.latency.note(took);
        }
    }

    /// Has another backend asked too.
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

/// Finds the queries that are late, as they become it.
pub async fn watch(pool: Rc<Pool>) {
    loop {
        match pool.next_late() {
            None => pool.hedging.work.notified().await,
            // What comes meanwhile may be late sooner, at another backend.
            Some(late_at) => sleep_until(late_at.min(Instant::now() + LOOK_INTERVAL)).await,
        }
        let now = Instant::now();
        for backend in pool.backends.borrow().iter() {
            while let Some((slot, late_at)) = backend.pace.take_late(now) {
                // Most have their answer by then, and their slot may have another query.
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

    /// Goal: however many queries are late, second tries are at most the percentage of all, whatever the order. Method:
    /// every query late; then none for long, and a burst of late ones.
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
