//! Queries that are known to make a backend close its connections, and who and what keeps coming up with new ones.
//!
//! Before: `suspects` saw two connections close on one query alone, while the backend answered others. After: the same
//! query is refused for a while; queries of a client, or below a name, from which several such came are kept apart.
//! Why answers on both sides count: when a whole server goes or comes, connections close on any query; answers to others
//! just before and just after say that it was this one.
//! Holds: three tables of fixed size, of keyed hashes, and the findings that no answer has confirmed yet.
//! Never: allocates, grows, costs anything while it is empty, or refuses a query that differs in a single octet: whoever
//! finds an option that harms a backend must not be able to have the bare question refused.

use std::{
    cell::{Cell, RefCell},
    hash::{BuildHasher, Hasher, RandomState},
    net::IpAddr,
    time::Duration,
};

use tokio::time::Instant;

use super::flights::Flight;
use crate::dns::HEADER_OCTETS;

/// Entries of a table; the one that ends first gives way.
const ENTRIES: usize = 64;
/// How long a finding holds after the last time that it was made.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Queries that closed connections after which others of their client, or below their name, are kept apart.
const APART_FROM: u32 = 2;
/// An answer to somebody else this long before or after is one beside.
const BESIDE: Duration = Duration::from_millis(250);
/// Findings that wait for the answer after.
const UNCONFIRMED_MAX: usize = 32;
/// Of a question that is refused one in so many is asked, alone: an answer to it ends the refusal.
const ASKED_EACH: u32 = 16;
/// Octets of a message's ID.
const ID_OCTETS: usize = 2;

/// What is known of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Unknown,
    /// Others of its client closed connections, or it is asked to see whether it still does: it shares none.
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

/// A query on which connections closed.
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
    /// Times that it was found here.
    looked_up: u32,
    /// Whose query was the last that counted.
    by: Option<u64>,
    until: Option<Instant>,
}

impl Default for Table {
    fn default() -> Self {
        Self(RefCell::new([Entry::default(); ENTRIES]))
    }
}

impl Table {
    /// How often `hash` was noted, and how often it was found since; nothing of what is over.
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

    /// Notes `hash`; what one client alone does counts once, where `by` says whose it was.
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

    /// Forgets what is over; returns whether anything is left.
    fn look(&self, now: Instant) -> bool {
        let mut entries = self.0.borrow_mut();
        entries.iter_mut().for_each(|entry| entry.until = entry.until.filter(|until| now < *until));
        entries.iter().any(|entry| entry.until.is_some())
    }
}

impl Refusals {
    /// What is known of this query.
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

    /// Two connections closed on this query alone; the backend last answered over any of them at `answered_at`.
    pub fn suspect(&self, flight: &Flight, answered_at: Option<Instant>, now: Instant) {
        let mut unconfirmed = self.unconfirmed.borrow_mut();
        let is_beside = answered_at.is_some_and(|at| now.saturating_duration_since(at) < BESIDE);
        if is_beside && unconfirmed.len() < UNCONFIRMED_MAX {
            let (client, name) = (self.client(flight), self.parent(flight));
            unconfirmed.push(Finding { question: self.question(flight), client, name, at: now });
        }
    }

    /// Believes what an answer at `answered_at` confirms, and forgets what none did, or what is over.
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

    /// All of the query but its ID and the case of its name.
    fn question(&self, flight: &Flight) -> u64 {
        let mut hasher = self.keys.build_hasher();
        let name_end = usize::from(flight.asked.question_end);
        let (name, rest) = flight.query.split_at_checked(name_end).unwrap_or((&[], &flight.query));
        write_folded(&mut hasher, name.get(ID_OCTETS..).unwrap_or_default(), flight.qname().len());
        hasher.write(rest);
        hasher.finish()
    }

    /// Its client: an IPv4 address, or the /56 that a network is given.
    fn client(&self, flight: &Flight) -> Option<u64> {
        let prefix = match flight.asker()?.to_canonical() {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address) >> 72 << 72,
        };
        Some(self.keys.hash_one(prefix))
    }

    /// The name above its own and all else that the query says: one harmful option must not have a name set apart for those
    /// who ask without it. Of names of a single label there is none.
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

/// Writes the flags and counts as they are, then the name without its case, then type and class as they are.
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

    /// Asked from this address, and no backend is told so.
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

    /// A table with one query for `first`.parent.test from `client`; `option` is the code of one in its OPT.
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

    /// Goal: what one client does, or one option, sets no name apart for others; two clients' queries of one form do, for that
    /// form. Method: findings of one client and of two, then others' queries below the name.
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

    /// Goal: a finding counts when an answer came soon after it, and ends in time even while nobody looks. Method: an answer
    /// long after; one soon after, 61 seconds ago.
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

    /// Goal: a question that is answered again is not refused on. Method: it is judged until it may be asked, and then it is
    /// answered.
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
