//! Queries that make a backend close its connections, and the clients and names from which more such queries
//! come.
//!
//! Before: `suspects` saw two connections close on one query alone, while the backend answered others. After:
//! dotd refuses the same query for a while; queries of a client, or below a name, with several such queries share
//! no connections.
//! Why answers before and after count: when a whole server goes or comes, connections close on any query. Answers
//! to others just before and just after show that this query was the cause.
//! Holds: three tables of fixed size with keyed hashes, and the findings that no answer has confirmed yet.
//! Never: allocates, grows, costs anything while it is empty, or refuses a query that differs in a single octet:
//! an attacker with an option that harms a backend must not get the question without it refused.

use std::{
    cell::{Cell, RefCell},
    hash::{BuildHasher, Hasher, RandomState},
    net::IpAddr,
    time::Duration,
};

use tokio::time::Instant;

use super::flights::Flight;
use crate::dns::HEADER_OCTETS;

/// Entries of a table. A new entry replaces the one that ends first.
const ENTRIES: usize = 64;
/// How long a finding is kept after it was last made.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// This many queries that closed connections make dotd keep others of their client, or below their name, apart.
const APART_FROM: u32 = 2;
/// An answer to another query counts if it came within this time before or after.
const BESIDE: Duration = Duration::from_millis(250);
/// Findings that wait for an answer that confirms them.
const UNCONFIRMED_MAX: usize = 32;
/// One in this many refused queries is asked, alone: an answer ends the refusal.
const ASKED_EACH: u32 = 16;
/// Octets of a message's ID.
const ID_OCTETS: usize = 2;

/// The decision about a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is known of it.
    Unknown,
    /// It shares no connection: others of its client closed connections, or it is asked to see whether it still
    /// does.
    Apart,
    /// Others of its form below the same name closed connections: it shares none, unless many wait for that.
    ApartByName,
    /// It closes connections.
    Refused,
}

/// The tables of one backend.
#[derive(Default)]
pub struct Refusals {
    keys: RandomState,
    questions: Table,
    clients: Table,
    names: Table,
    is_any: Cell<bool>,
    unconfirmed: RefCell<Vec<Finding>>,
}

/// A query on which connections closed, not confirmed yet.
#[derive(Clone, Copy)]
struct Finding {
    question: u64,
    client: Option<u64>,
    name: Option<u64>,
    at: Instant,
}

struct Table(RefCell<[Entry; ENTRIES]>);

#[derive(Clone, Copy, Default)]
struct Entry {
    hash: u64,
    count: u32,
    /// How often it was looked up.
    looked_up: u32,
    /// The client of the last query that counted.
    by: Option<u64>,
    until: Option<Instant>,
}

impl Default for Table {
    fn default() -> Self {
        Self(RefCell::new([Entry::default(); ENTRIES]))
    }
}

impl Table {
    /// How often `hash` was noted, and how often it was looked up since. `None`: it is not there, or too old.
    fn count(&self, hash: u64, now: Instant) -> Option<(u32, u32)> {
        let mut entries = self.0.borrow_mut();
        let is_meant =
            |entry: &&mut Entry| entry.hash == hash && entry.until.is_some_and(|until| now < until);
        let entry = entries.iter_mut().find(is_meant)?;
        entry.looked_up = entry.looked_up.saturating_add(1);
        Some((entry.count, entry.looked_up))
    }

    fn forget(&self, hash: u64) {
        let mut entries = self.0.borrow_mut();
        entries.iter_mut().filter(|entry| entry.hash == hash).for_each(|entry| *entry = Entry::default());
    }

    /// Notes `hash`. With `by`, several findings of one client count once.
    fn note(&self, hash: u64, by: Option<u64>, until: Instant) {
        let mut entries = self.0.borrow_mut();
        let known = entries.iter().position(|entry| entry.until.is_some() && entry.hash == hash);
        let next = known.or_else(|| {
            let oldest = entries.iter().enumerate().min_by_key(|(_, entry)| entry.until);
            oldest.map(|(place, _)| place)
        });
        let Some(entry) = next.and_then(|place| entries.get_mut(place)) else { return };
        let is_same = by.is_some() && entry.by == by;
        let (count, looked_up) = match known {
            Some(_) => (entry.count.saturating_add(u32::from(!is_same)), entry.looked_up),
            None => (1, 0),
        };
        *entry = Entry { hash, count, looked_up, by, until: Some(until) };
    }

    /// Removes old entries. Returns whether any entry is left.
    fn look(&self, now: Instant) -> bool {
        let mut entries = self.0.borrow_mut();
        entries.iter_mut().for_each(|entry| entry.until = entry.until.filter(|until| now < *until));
        entries.iter().any(|entry| entry.until.is_some())
    }
}

impl Refusals {
    /// Decides about this query.
    pub fn judge(&self, flight: &Flight) -> Verdict {
        if !self.is_any.get() {
            return Verdict::Unknown;
        }
        let now = Instant::now();
        if let Some((_, looked_up)) = self.questions.count(self.question(flight), now) {
            return if looked_up % ASKED_EACH == 0 { Verdict::Apart } else { Verdict::Refused };
        }
        let is_known =
            |table: &Table, hash| table.count(hash, now).is_some_and(|(count, _)| count >= APART_FROM);
        if self.client(flight).is_some_and(|client| is_known(&self.clients, client)) {
            return Verdict::Apart;
        }
        match self.parent(flight).is_some_and(|name| is_known(&self.names, name)) {
            true => Verdict::ApartByName,
            false => Verdict::Unknown,
        }
    }

    /// A query that shared no connection was answered: its question is not refused any more.
    pub fn answered(&self, flight: &Flight) {
        if self.is_any.get() {
            self.questions.forget(self.question(flight));
        }
    }

    /// Two connections closed on this query alone. `answered_at`: the last answer of the backend over any
    /// connection.
    pub fn suspect(&self, flight: &Flight, answered_at: Option<Instant>, now: Instant) {
        let mut unconfirmed = self.unconfirmed.borrow_mut();
        let is_beside = answered_at.is_some_and(|at| now.saturating_duration_since(at) < BESIDE);
        if is_beside && unconfirmed.len() < UNCONFIRMED_MAX {
            let (client, name) = (self.client(flight), self.parent(flight));
            unconfirmed.push(Finding { question: self.question(flight), client, name, at: now });
        }
    }

    /// Confirms findings by an answer at `answered_at`, and drops those that no answer confirmed and those that
    /// are too old.
    pub fn look(&self, answered_at: Option<Instant>, now: Instant) {
        let until = now + REMEMBERED_FOR;
        self.unconfirmed.borrow_mut().retain(|finding| {
            if answered_at.is_some_and(|at| at > finding.at && at - finding.at < BESIDE) {
                self.is_any.set(true);
                self.questions.note(finding.question, None, until);
                finding.client.into_iter().for_each(|client| self.clients.note(client, None, until));
                let by = finding.client;
                finding.name.into_iter().for_each(|name| self.names.note(name, by.or(Some(0)), until));
                return false;
            }
            now.saturating_duration_since(finding.at) < BESIDE
        });
        if self.is_any.get() {
            let tables = [&self.questions, &self.clients, &self.names];
            self.is_any.set(tables.map(|table| table.look(now)).contains(&true));
        }
    }

    /// A hash of the whole query except its ID and the case of its name.
    fn question(&self, flight: &Flight) -> u64 {
        let mut hasher = self.keys.build_hasher();
        let name_end = usize::from(flight.asked.question_end);
        let (name, rest) = flight.query.split_at_checked(name_end).unwrap_or((&[], &flight.query));
        write_folded(&mut hasher, name.get(ID_OCTETS..).unwrap_or_default(), flight.qname().len());
        hasher.write(rest);
        hasher.finish()
    }

    /// A hash of its client: an IPv4 address, or the /56 that a network is given.
    fn client(&self, flight: &Flight) -> Option<u64> {
        let prefix = match flight.asker()?.to_canonical() {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address) >> 72 << 72,
        };
        Some(self.keys.hash_one(prefix))
    }

    /// A hash of the parent of its name and of everything else in the query: one harmful option must not keep a
    /// name apart for clients without it. `None` for a name of a single label.
    fn parent(&self, flight: &Flight) -> Option<u64> {
        let name = flight.qname();
        let parent = name.get(1 + usize::from(*name.first()?)..)?;
        let has_two_labels =
            parent.get(1 + usize::from(*parent.first()?)..).is_some_and(|rest| rest.len() > 1);
        has_two_labels.then(|| {
            let mut hasher = self.keys.build_hasher();
            parent.iter().for_each(|octet| hasher.write_u8(octet.to_ascii_lowercase()));
            let name_end = HEADER_OCTETS + name.len();
            hasher.write(flight.query.get(ID_OCTETS..HEADER_OCTETS).unwrap_or_default());
            hasher.write(flight.query.get(name_end..).unwrap_or_default());
            hasher.finish()
        })
    }
}

/// Hashes flags and counts as they are, then the name without its case, then type and class as they are.
fn write_folded(hasher: &mut impl Hasher, octets: &[u8], name_octets: usize) {
    let name_begin = HEADER_OCTETS - ID_OCTETS;
    for (place, octet) in octets.iter().enumerate() {
        let is_name = place >= name_begin && place < name_begin + name_octets;
        hasher.write_u8(if is_name { octet.to_ascii_lowercase() } else { *octet });
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, rc::Rc};

    use super::*;
    use crate::{
        backend::{Broken, Failure, Sink, flights::Flights},
        dns::{Asked, Query},
    };

    /// A sink whose client has this address, which no backend learns.
    struct From(u8);

    impl Sink for From {
        fn asker(&self) -> Option<IpAddr> {
            Some(Ipv4Addr::new(192, 0, 2, self.0).into())
        }

        fn response(&self, _: Asked, _: &[u8]) -> Result<(), Broken> {
            Ok(())
        }

        fn failure(&self, _: Asked, _: &[u8], _: Failure) {}
    }

    /// A table with one query for `first`.parent.test from `client`; `option` is the code of an option in its
    /// OPT.
    fn asked(client: u8, first: u8, option: u8) -> (Flights, u16) {
        let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, first];
        message.extend_from_slice(b"\x06parent\x04test\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\x04\0");
        message.extend_from_slice(&[option, 0, 0]);
        let query = Query::parse(&message).unwrap();
        let mut flights = Flights::default();
        let fill = |octets: &mut Vec<u8>| {
            octets.clear();
            octets.extend_from_slice(&message);
            None
        };
        let deadline = Instant::now() + Duration::from_secs(1);
        let slot = flights.insert(Asked::by(&query), Rc::new(From(client)), deadline, fill).unwrap();
        (flights, slot)
    }

    /// Each of these closed two connections alone; answers to others came just before and `after` it.
    fn found(refusals: &Refusals, queries: &[(u8, u8, u8)], after: Duration) {
        for (client, first, option) in queries {
            let (flights, slot) = asked(*client, *first, *option);
            let now = Instant::now();
            refusals.suspect(flights.get(slot).unwrap(), Some(now), now);
            refusals.look(Some(now + after), now + after);
        }
    }

    fn judged(refusals: &Refusals, client: u8, first: u8, option: u8) -> Verdict {
        let (flights, slot) = asked(client, first, option);
        refusals.judge(flights.get(slot).unwrap())
    }

    /// Goal: one client, or one option, keeps no name apart for others; queries of one form from two clients do,
    /// for that form. Method: findings of one client and of two, then others' queries below the name. Covers:
    ///
    #[test]
    fn a_name_is_set_apart_for_the_form_that_two_clients_used() {
        let soon = Duration::from_millis(1);
        let refusals = Refusals::default();
        found(&refusals, &[(1, b'a', 65), (1, b'b', 65), (1, b'c', 65)], soon);
        assert_eq!(judged(&refusals, 1, b'x', 10), Verdict::Apart, "the client itself");
        assert_eq!(judged(&refusals, 2, b'x', 65), Verdict::Unknown, "one client's doing");
        found(&refusals, &[(3, b'd', 65)], soon);
        assert_eq!(judged(&refusals, 2, b'x', 65), Verdict::ApartByName);
        assert_eq!(judged(&refusals, 2, b'x', 10), Verdict::Unknown, "without the option");
    }

    /// Goal: a finding counts if an answer came soon after it, and ends in time even without lookups. Method: an
    /// answer long after; one soon after, 61 seconds ago.
    #[test]
    fn findings_need_an_answer_soon_after_and_end_by_themselves() {
        let refusals = Refusals::default();
        found(&refusals, &[(1, b'a', 65)], BESIDE);
        assert_eq!(judged(&refusals, 1, b'a', 65), Verdict::Unknown);
        found(&refusals, &[(1, b'a', 65)], BESIDE / 2);
        assert_eq!(judged(&refusals, 1, b'a', 65), Verdict::Refused);
        let (flights, slot) = asked(1, b'a', 65);
        let question = refusals.question(flights.get(slot).unwrap());
        assert_eq!(refusals.questions.count(question, Instant::now() + 2 * REMEMBERED_FOR), None);
    }

    /// Goal: a question that is answered again is not refused any more. Method: it is judged until it may be
    /// asked, and then answered.
    #[test]
    fn a_refused_question_is_asked_now_and_then() {
        let refusals = Refusals::default();
        found(&refusals, &[(1, b'a', 65)], Duration::from_millis(1));
        let verdicts: Vec<Verdict> = (0..ASKED_EACH).map(|_| judged(&refusals, 2, b'a', 65)).collect();
        let refused = verdicts.iter().filter(|one| **one == Verdict::Refused).count();
        assert_eq!((refused, verdicts.last()), (ASKED_EACH as usize - 1, Some(&Verdict::Apart)));
        let (flights, slot) = asked(2, b'a', 65);
        refusals.answered(flights.get(slot).unwrap());
        assert_eq!(judged(&refusals, 2, b'a', 65), Verdict::Unknown);
    }
}
