//! The outcomes of all queries and connections, counted by each thread and added up at the end.
//!
//! Before: `connection` saw it happen. After: `report` prints it. Never: loses a query: every one sent is
//! answered, wrong in one way, or lost.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use super::{
    population::{POPULATIONS, Population},
    queries::Wrong,
};

/// The longest time that a histogram can hold.
const LONGEST: Duration = Duration::from_secs(600);
/// Two digits would blur p50; four cost megabytes.
const SIGNIFICANT_DIGITS: u8 = 3;

/// The counts of a thread, or of all.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Queries written.
    pub sent: u64,
    /// Responses that answer their query with an rcode that was expected.
    pub answered: u64,
    /// Responses that answer their query with another rcode.
    pub unexpected: u64,
    /// Responses too broken to be one.
    pub malformed: u64,
    /// Responses to another question.
    pub other_question: u64,
    /// Responses with TC=1.
    pub truncated: u64,
    /// Responses whose ID no query has; their query, if any, counts as lost.
    pub unknown_id: u64,
    /// Queries without a response when their connection ended.
    pub lost: u64,
    /// Rcodes of the responses that answer their query.
    pub rcodes: BTreeMap<u8, u64>,
    /// Handshakes by kind.
    pub handshakes_full: u64,
    /// Handshakes that a ticket made short.
    pub handshakes_resumed: u64,
    /// Connections that the server closed first.
    pub closed_by_server: u64,
    /// Other ends of connections, by the system's error text.
    pub errors: BTreeMap<String, u64>,
    /// From writing a query to reading its response, in nanoseconds.
    pub latency: Histogram<u64>,
    /// The same by population, in the order of [`POPULATIONS`].
    pub by_population: [Histogram<u64>; 3],
    /// From connect to the end of the handshake, in nanoseconds.
    pub handshake: Histogram<u64>,
    /// Open loop: the delay between a query being due and being sent, in nanoseconds.
    pub lag: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let longest = nanoseconds(LONGEST);
        let histogram = || {
            // Constants within what hdrhistogram allows: it fails on no machine or on all.
            Histogram::new_with_bounds(1, longest, SIGNIFICANT_DIGITS)
                .expect("bounds that hdrhistogram takes")
        };
        Self {
            sent: 0,
            answered: 0,
            unexpected: 0,
            malformed: 0,
            other_question: 0,
            truncated: 0,
            unknown_id: 0,
            lost: 0,
            rcodes: BTreeMap::new(),
            handshakes_full: 0,
            handshakes_resumed: 0,
            closed_by_server: 0,
            errors: BTreeMap::new(),
            latency: histogram(),
            by_population: POPULATIONS.map(|_| histogram()),
            handshake: histogram(),
            lag: histogram(),
        }
    }
}

impl Tally {
    /// Counts a response that has its query.
    pub fn response(
        &mut self,
        population: Population,
        checked: Result<u8, Wrong>,
        is_expected: impl Fn(u8) -> bool,
        latency: Duration,
    ) {
        self.latency.saturating_record(nanoseconds(latency));
        self.by_population[population as usize].saturating_record(nanoseconds(latency));
        match checked {
            Ok(rcode) => {
                *self.rcodes.entry(rcode).or_default() += 1;
                if is_expected(rcode) {
                    self.answered += 1;
                } else {
                    self.unexpected += 1;
                }
            }
            Err(Wrong::Malformed) => self.malformed += 1,
            Err(Wrong::Question) => self.other_question += 1,
            Err(Wrong::Truncated) => self.truncated += 1,
        }
    }

    /// Counts a handshake that was done.
    pub fn handshake(&mut self, is_resumed: bool, time: Duration) {
        self.handshake.saturating_record(nanoseconds(time));
        if is_resumed {
            self.handshakes_resumed += 1;
        } else {
            self.handshakes_full += 1;
        }
    }

    /// Notes how late a query was taken up after it was due.
    pub fn lag(&mut self, lag: Duration) {
        self.lag.saturating_record(nanoseconds(lag));
    }

    /// Counts what ended a connection, or kept it from being.
    pub fn error(&mut self, what: String) {
        *self.errors.entry(what).or_default() += 1;
    }

    /// Adds another thread's counts.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.unexpected += other.unexpected;
        self.malformed += other.malformed;
        self.other_question += other.other_question;
        self.truncated += other.truncated;
        self.unknown_id += other.unknown_id;
        self.lost += other.lost;
        self.handshakes_full += other.handshakes_full;
        self.handshakes_resumed += other.handshakes_resumed;
        self.closed_by_server += other.closed_by_server;
        for (rcode, count) in &other.rcodes {
            *self.rcodes.entry(*rcode).or_default() += count;
        }
        for (what, count) in &other.errors {
            *self.errors.entry(what.clone()).or_default() += count;
        }
        // The same bounds everywhere: adding cannot fail.
        let _ = self.latency.add(&other.latency);
        for (sum, other) in self.by_population.iter_mut().zip(&other.by_population) {
            let _ = sum.add(other);
        }
        let _ = self.handshake.add(&other.handshake);
        let _ = self.lag.add(&other.lag);
    }

    /// Whether there was a query, and every query was answered as expected.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.sent > 0 && self.answered == self.sent && self.unknown_id == 0
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: adding threads loses nothing. Method: two tallies with every kind of end, added.
    #[test]
    fn adds_every_count() {
        let mut one = Tally { sent: 4, lost: 1, ..Tally::default() };
        one.response(Population::Chatty, Ok(0), |rcode| rcode == 0, Duration::from_millis(1));
        one.response(Population::Idle, Ok(2), |rcode| rcode == 0, Duration::from_millis(2));
        one.response(Population::Idle, Err(Wrong::Question), |_| true, Duration::from_millis(3));
        one.error("reset".into());
        let mut sum = one.clone();
        sum.add(&one);
        assert_eq!((sum.sent, sum.answered, sum.unexpected, sum.other_question, sum.lost), (8, 2, 2, 2, 2));
        assert_eq!((sum.rcodes[&0], sum.rcodes[&2], sum.errors["reset"], sum.latency.len()), (2, 2, 2, 6));
        assert_eq!(sum.by_population.map(|latency| latency.len()), [2, 4, 0]);
    }

    /// Goal: a run is clean only when all is well. Method: each single fault in turn.
    #[test]
    fn is_clean_only_without_fault() {
        let clean = Tally { sent: 1, answered: 1, ..Tally::default() };
        assert!(clean.is_clean());
        for fault in [
            Tally::default(),
            Tally { sent: 2, lost: 1, ..clean.clone() },
            Tally { sent: 2, unexpected: 1, ..clean.clone() },
            Tally { unknown_id: 1, ..clean.clone() },
        ] {
            assert!(!fault.is_clean(), "{fault:?}");
        }
    }
}
