//! When a query is late at a backend, and how many second tries are left.
//!
//! Before: `pool` gave a query to a backend. After: `second_tries` knows when it is late, and whether another backend may
//! get it too.
//! Holds: the usual times of each backend, and a budget: at most `hedge_percent` second tries in a hundred queries, so
//! slow backends never get twice the load.
//! Never: repeats a query that must not be repeated, takes a second backend's failure for an answer while the first may
//! still answer, or costs anything while it is off. Allocates nothing once warm.
//!
//! Source: Dean and Barroso, "The Tail at Scale" (2013), hedged requests.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{flights::FLIGHTS_MAX, latency::Latency};
use crate::dns::{self, Query, ResponseCode};

/// QUERY (RFC 1035 §4.1.1) may be asked twice. NOTIFY and UPDATE must not.
const OPCODE_QUERY: u8 = 0;
/// TKEY, TSIG, IXFR and AXFR: the answer is more than one message, or depends on one server's state.
const STATEFUL_TYPES: std::ops::RangeInclusive<u16> = 249..=252;
/// No query is late before this time. 5 ms: a shorter delay is not noticed, and may come from a busy machine.
const DELAY_MIN: Duration = Duration::from_millis(5);
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
    pub work: Notify,
}

/// The usual times of one backend, and its queries that may become late.
pub struct Pace {
    /// How long it takes.
    pub latency: Latency,
    /// Slots with queries at this backend and the time when each is late, roughly in that order.
    watched: RefCell<VecDeque<(u16, Instant)>>,
}

/// A token bucket of second tries; each query adds a part of one.
#[derive(Default)]
struct Budget(Cell<u32>);

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

    /// Counts a second try. `false`: none is left.
    pub fn spend(&self) -> bool {
        self.budget.spend()
    }

    /// A backend with this `pace` has the query in `slot` from `now` on. Returns when it is late. `None`: fail-over comes
    /// first, because it comes after `patience`.
    pub fn watch(&self, slot: u16, pace: &Pace, now: Instant, patience: Duration) -> Option<Instant> {
        let delay = pace.latency.usual()?.max(DELAY_MIN);
        let mut watched = pace.watched.borrow_mut();
        if delay >= patience || watched.len() >= FLIGHTS_MAX {
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

    /// When the first of its queries is late.
    pub fn next_late(&self) -> Option<Instant> {
        self.watched.borrow().front().map(|(_, late_at)| *late_at)
    }

    /// Takes a query that is late.
    pub fn take_late(&self, now: Instant) -> Option<(u16, Instant)> {
        self.watched.borrow_mut().pop_front_if(|(_, late_at)| *late_at <= now)
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
