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
/// Octets of a message's ID.
const ID_OCTETS: usize = 2;

/// What is known of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Unknown,
    /// Others like it closed connections: it shares none.
    Apart,
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
    until: Option<Instant>,
}

impl Default for Table {
    fn default() -> Self {
        Self(RefCell::new([Entry::default(); ENTRIES]))
    }
}

impl Table {
    fn count(&self, hash: u64) -> u32 {
        let entries = self.0.borrow();
        entries
            .iter()
            .find(|entry| entry.until.is_some() && entry.hash == hash)
            .map_or(0, |entry| entry.count)
    }

    fn note(&self, hash: u64, until: Instant) {
        let mut entries = self.0.borrow_mut();
        let known = entries.iter().position(|entry| entry.until.is_some() && entry.hash == hash);
        let next = known.or_else(|| {
            let oldest = entries.iter().enumerate().min_by_key(|(_, entry)| entry.until);
            oldest.map(|(place, _)| place)
        });
        let Some(entry) = next.and_then(|place| entries.get_mut(place)) else { return };
        let count = if known.is_some() { entry.count.saturating_add(1) } else { 1 };
        *entry = Entry { hash, count, until: Some(until) };
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
        if self.questions.count(self.question(flight)) > 0 {
            return Verdict::Refused;
        }
        let is_apart = self.client(flight).is_some_and(|client| self.clients.count(client) >= APART_FROM)
            || self.parent(flight).is_some_and(|name| self.names.count(name) >= APART_FROM);
        if is_apart { Verdict::Apart } else { Verdict::Unknown }
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
            if answered_at.is_some_and(|at| at > finding.at) {
                self.is_any.set(true);
                self.questions.note(finding.question, until);
                finding.client.into_iter().for_each(|client| self.clients.note(client, until));
                finding.name.into_iter().for_each(|name| self.names.note(name, until));
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
        let prefix = match flight.client()?.source.ip().to_canonical() {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address) >> 72 << 72,
        };
        Some(self.keys.hash_one(prefix))
    }

    /// The name above its own; of names of a single label there is none.
    fn parent(&self, flight: &Flight) -> Option<u64> {
        let name = flight.qname();
        let parent = name.get(1 + usize::from(*name.first()?)..)?;
        let has_two_labels =
            parent.get(1 + usize::from(*parent.first()?)..).is_some_and(|rest| rest.len() > 1);
        has_two_labels.then(|| {
            let mut hasher = self.keys.build_hasher();
            parent.iter().for_each(|octet| hasher.write_u8(octet.to_ascii_lowercase()));
            hasher.finish()
        })
    }
}

/// Writes the flags and counts as they are, then the name without its case, then type and class as they are.
fn write_folded(hasher: &mut impl Hasher, octets: &[u8], name_octets: usize) {
    let name_begin = crate::dns::HEADER_OCTETS - ID_OCTETS;
    for (place, octet) in octets.iter().enumerate() {
        let is_name = place >= name_begin && place < name_begin + name_octets;
        hasher.write_u8(if is_name { octet.to_ascii_lowercase() } else { *octet });
    }
}
