//! Octets of responses in dotd's memory that clients have not taken, by session, client prefix and worker.
//!
//! Before: `inbox` has a response, or `writer` knows what the client has not taken. After: the response is kept or
//! refused; if a worker holds too much, the session with the most octets is named.
//! Holds: one sum for the worker, one for each client prefix with sessions, and the sessions whose clients take
//! nothing, ordered by their octets. A response that its client takes at once changes three numbers and no order.
//! Never: refuses the first answer to a session without waiting octets before its prefix holds twice its limit.
//!
//! Source: dynamic thresholds (Choudhury and Hahne, 1998): each queue may have as much as is free.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    rc::Rc,
};

use dot_common::prefix::ClientPrefix;

use super::WorkerShared;
use crate::ledger::{Counter, WorkerCounters};

/// A response up to this length is kept beyond the budgets of prefix and worker: it takes less memory than a refusal.
const SMALL_OCTETS: usize = 1232;
/// The assumed length of a session's first answer.
const EXPECTED_OCTETS: usize = 512;

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwedLimits {
    /// Octets of one session.
    pub session: usize,
    /// Octets of the sessions of one client prefix.
    pub client: usize,
    /// Octets of all sessions of a worker.
    pub worker: usize,
}

/// The current sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Owed {
    session: usize,
    client: usize,
    worker: usize,
}

impl OwedLimits {
    /// Whether a response of this length is kept.
    fn admits(&self, owed: Owed, octets: usize) -> bool {
        let session = owed.session + octets;
        let is_first = owed.session == 0 && owed.client < self.client.saturating_mul(2);
        session <= self.session && (session <= self.free(owed) || session <= SMALL_OCTETS || is_first)
    }

    /// The most octets that one session may have, given the sums: as many as are free.
    fn free(&self, owed: Owed) -> usize {
        self.session.min(self.client.saturating_sub(owed.client)).min(self.worker.saturating_sub(owed.worker))
    }
}

/// Order of the sessions: octets as a power of two; then the longest wait; then the session's number.
type Rank = (u32, std::cmp::Reverse<u64>, u64);

/// The sums of a worker.
pub(super) struct Debts {
    prefix_bits: (u8, u8),
    counters: WorkerCounters,
    octets: Cell<usize>,
    clients: RefCell<HashMap<ClientPrefix, Rc<ClientDebt>>>,
    waiting: RefCell<BTreeSet<Rank>>,
    next: Cell<u64>,
}

/// The octets of one client prefix.
#[derive(Default)]
struct ClientDebt {
    octets: Cell<usize>,
    sessions: Cell<usize>,
}

impl Debts {
    /// Empty sums; the client prefixes have these lengths, IPv4 and IPv6.
    pub(super) fn new(prefix_bits: (u8, u8), counters: &WorkerCounters) -> Self {
        Self {
            prefix_bits,
            counters: counters.clone(),
            octets: Cell::new(0),
            clients: RefCell::default(),
            waiting: RefCell::default(),
            next: Cell::new(0),
        }
    }

    /// The account of a new session of `client`.
    pub(super) fn open(&self, client: IpAddr) -> Debt {
        let prefix = ClientPrefix::of(client, self.prefix_bits.0, self.prefix_bits.1);
        let of_client = Rc::clone(self.clients.borrow_mut().entry(prefix).or_default());
        of_client.sessions.set(of_client.sessions.get() + 1);
        Debt {
            prefix,
            of_client,
            is_open: Cell::new(true),
            octets: Cell::new(0),
            expected: Cell::new(EXPECTED_OCTETS),
            rank: Cell::new(None),
        }
    }

    /// The session with the most octets, among equals the one that has waited longest, if the worker holds more than
    /// `max`.
    pub(super) fn most_owed(&self, max: usize) -> Option<u64> {
        if self.octets.get() <= max {
            return None;
        }
        self.waiting.borrow().last().map(|(_, _, number)| *number)
    }
}

/// The account of one session.
pub(super) struct Debt {
    prefix: ClientPrefix,
    of_client: Rc<ClientDebt>,
    is_open: Cell<bool>,
    octets: Cell<usize>,
    /// Expected length of the next answer, from the last ones.
    expected: Cell<usize>,
    /// Its place among the sessions whose clients take nothing.
    rank: Cell<Option<Rank>>,
}

impl Debt {
    /// The session's number of octets is known, and its client takes what is written: there is nothing to note.
    pub(super) fn is_settled(&self, octets: usize, unwritten: usize) -> bool {
        unwritten == 0 && octets == self.octets.get() && self.rank.get().is_none()
    }

    /// Sets the session's number of octets.
    pub(super) fn set(&self, debts: &Debts, octets: usize) {
        let change = octets.wrapping_sub(self.octets.replace(octets));
        let of_client = &self.of_client.octets;
        of_client.set(of_client.get().wrapping_add(change));
        debts.octets.set(debts.octets.get().wrapping_add(change));
        debts.counters.add(Counter::OwedOctets, change as u64);
        if let Some((_, since, number)) = self.rank.get() {
            self.stand(debts, Some((size(octets), since, number)));
        }
    }

    /// Notes whether the client takes its octets; `number` is its session's.
    pub(super) fn note_waiting(&self, debts: &Debts, number: u64, is_waiting: bool) {
        match (self.rank.get(), is_waiting) {
            (None, true) => {
                let since = debts.next.get();
                debts.next.set(since + 1);
                self.stand(debts, Some((size(self.octets.get()), std::cmp::Reverse(since), number)));
            }
            (Some(_), false) => self.stand(debts, None),
            (None, false) | (Some(_), true) => {}
        }
    }

    fn stand(&self, debts: &Debts, rank: Option<Rank>) {
        let before = self.rank.replace(rank);
        if before != rank {
            let mut waiting = debts.waiting.borrow_mut();
            if let Some(before) = before {
                waiting.remove(&before);
            }
            waiting.extend(rank);
        }
    }

    /// The session is over: its octets are gone, and a client is forgotten with its last session.
    pub(super) fn close(&self, debts: &Debts) {
        self.set(debts, 0);
        self.stand(debts, None);
        if self.is_open.replace(false) {
            let left = self.of_client.sessions.get().saturating_sub(1);
            self.of_client.sessions.set(left);
            if left == 0 {
                debts.clients.borrow_mut().remove(&self.prefix);
            }
        }
    }

    fn owed(&self, debts: &Debts) -> Owed {
        Owed { session: self.octets.get(), client: self.of_client.octets.get(), worker: debts.octets.get() }
    }

    /// Whether an answer of this length is kept; its length also updates the expected length.
    pub(super) fn admits(&self, shared: &WorkerShared, octets: usize) -> bool {
        let expected = self.expected.get();
        self.expected.set(octets.max(expected - expected / 8));
        shared.limits().owed.admits(self.owed(&shared.debts), octets)
    }

    /// Whether another query may be asked beside `in_flight`, by the expected lengths of their answers. A session
    /// without waiting octets and without a query in flight always may.
    pub(super) fn has_room(&self, shared: &WorkerShared, in_flight: usize) -> bool {
        let owed = self.owed(&shared.debts);
        let coming = in_flight.saturating_add(1).saturating_mul(self.expected.get());
        owed.session + in_flight == 0
            || owed.session.saturating_add(coming) <= shared.limits().owed.free(owed)
    }
}

fn size(octets: usize) -> u32 {
    usize::BITS - octets.leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;
    const LIMITS: OwedLimits =
        OwedLimits { session: 4096 * KIB, client: 16 * 1024 * KIB, worker: 64 * 1024 * KIB };

    fn debts() -> (Debts, WorkerCounters) {
        let counters = WorkerCounters::default();
        (Debts::new((32, 56), &counters), counters)
    }

    /// Answers of 64 KiB that sessions keep, in turn, until none keeps another. Returns each client's octets.
    fn fill(clients: u8, sessions: usize) -> (Vec<usize>, usize) {
        let (debts, counters) = debts();
        let of = |client: u8| debts.open([192, 0, 2, client].into());
        let all: Vec<Debt> =
            (0..clients).flat_map(|client| std::iter::repeat_n(client, sessions)).map(of).collect();
        let mut is_kept = true;
        while is_kept {
            is_kept = false;
            for debt in &all {
                if LIMITS.admits(debt.owed(&debts), 65_537) {
                    debt.set(&debts, debt.octets.get() + 65_537);
                    is_kept = true;
                }
            }
        }
        assert_eq!(counters.get(Counter::OwedOctets), debts.octets.get() as u64);
        let sums = all.iter().step_by(sessions).map(|debt| debt.of_client.octets.get()).collect();
        // An inbox may learn more than once that its session is over.
        all.iter().chain(&all).for_each(|debt| debt.close(&debts));
        assert_eq!((debts.octets.get(), counters.get(Counter::OwedOctets)), (0, 0));
        (sums, debts.clients.borrow().len())
    }

    /// Goal: a session, a client with any number of sessions, and a worker stay within their limits; sessions of a
    /// client have equal parts. Method: clients that take nothing of answers of 64 KiB.
    #[test]
    fn what_is_owed_is_bounded() {
        let (sums, _) = fill(1, 1);
        assert!(sums[0] <= LIMITS.session && sums[0] > LIMITS.session / 2, "{sums:?}");
        let (sums, _) = fill(1, 60);
        assert!(sums[0] <= LIMITS.client && sums[0] > LIMITS.client / 2, "{sums:?}");
        let (sums, _) = fill(1, 2000);
        assert!(sums[0] <= LIMITS.client * 2 + 65_537, "one answer of each, {sums:?}");
        let (sums, left) = fill(20, 60);
        let all: usize = sums.iter().sum();
        assert!(all <= LIMITS.worker + 20 * 60 * 65_537, "{sums:?}");
        let (least, most) = (sums.iter().min().unwrap(), sums.iter().max().unwrap());
        assert!(*most < 2 * least, "clients have equal parts: {sums:?}");
        assert_eq!(left, 0, "a client is forgotten with its last session");
    }

    /// Goal: if a worker holds too much, the session with the most octets is named, among equals the one that has
    /// waited longest, and never one whose client takes everything.
    #[test]
    fn the_most_owed_is_named_first() {
        let (debts, _) = debts();
        let sessions: Vec<_> = (0..5).map(|_| debts.open([192, 0, 2, 1].into())).collect();
        for ((number, octets), debt) in (0..).zip([100, 300, 300, 200, 4000]).zip(&sessions) {
            debt.set(&debts, octets * KIB);
            debt.note_waiting(&debts, number, true);
        }
        sessions[4].note_waiting(&debts, 4, false);
        assert_eq!(debts.most_owed(4900 * KIB), None);
        for expected in [1, 2, 3, 0] {
            assert_eq!(debts.most_owed(3999 * KIB), Some(expected));
            sessions[usize::try_from(expected).unwrap()].close(&debts);
        }
        assert_eq!(debts.most_owed(3999 * KIB), None, "no session that waits is left");
        sessions[0].note_waiting(&debts, 0, true);
        sessions[0].set(&debts, 5000 * KIB);
        assert_eq!(debts.most_owed(3999 * KIB), Some(0), "its rank follows its size");
        sessions.iter().for_each(|debt| debt.close(&debts));
        assert!(debts.waiting.borrow().is_empty() && debts.octets.get() == 0);
    }

    /// Goal: a small answer is kept beyond the budgets of prefix and worker, but not beyond its session's; the first
    /// answer of a session is kept until its prefix holds twice its limit.
    #[test]
    fn small_and_first_answers_are_kept() {
        let full = Owed { session: 0, client: LIMITS.client, worker: LIMITS.worker };
        assert!(LIMITS.admits(full, 100) && LIMITS.admits(full, 65_537), "the first");
        assert!(!LIMITS.admits(Owed { client: 2 * LIMITS.client, ..full }, 65_537));
        assert!(LIMITS.admits(Owed { session: 1000, client: 2 * LIMITS.client, ..full }, 200));
        assert!(!LIMITS.admits(Owed { session: 1000, ..full }, 2000));
        assert!(!LIMITS.admits(Owed { session: LIMITS.session, client: 0, worker: 0 }, 1));
    }
}
