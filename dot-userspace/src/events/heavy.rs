//! Counts the activity of clients while an operator watches (`dotd top`).
//!
//! Before: a worker reads a query, writes a response, completes a handshake or refuses. After: the operator has the
//! clients with the highest counts of each kind, and on request the names that clients asked for most.
//! Holds: nothing until an operator watches, then five tables of [`sketch::ENTRIES`](super::sketch::ENTRIES) clients;
//! they are freed when no request has come for [`LEASE`].
//! Never: costs more than a branch while no operator watches.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    time::Duration,
};

use dot_common::prefix::ClientPrefix;
use serde::{Deserialize, Serialize};
use tokio::{
    task::spawn_local,
    time::{Instant, sleep_until},
};

use super::sketch::{Estimate, Sketch};
use crate::dns::NAME_OCTETS_MAX;

/// How long counting continues after the last request.
const LEASE: Duration = Duration::from_secs(15);

/// The quantity that clients are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// Messages that the client sent.
    Queries,
    /// Octets of its messages and of the responses.
    Octets,
    /// Completed handshakes.
    Handshakes,
    /// Cost of its handshakes, in fifths of a full one.
    Cost,
    /// Refusals of its connections, handshakes and queries.
    Refusals,
}

impl Effort {
    /// Every quantity.
    pub const ALL: [Self; 5] = [Self::Queries, Self::Octets, Self::Handshakes, Self::Cost, Self::Refusals];

    /// Its name in an answer.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queries => "queries",
            Self::Octets => "octets",
            Self::Handshakes => "handshakes",
            Self::Cost => "cost",
            Self::Refusals => "refusals",
        }
    }
}

/// Counts of one worker by key, and the most that a missing key may have.
pub type Part<K> = (Vec<(K, Estimate)>, u64);

/// The counts of one worker.
#[derive(Clone, Debug)]
pub struct Heaviest {
    /// Time since the worker began to count.
    pub counted_for: Duration,
    /// In the order of [`Effort::ALL`].
    pub clients: Vec<Part<ClientPrefix>>,
    /// Names in wire format, in lower case. `None`: they were not asked for.
    pub names: Option<Part<Box<[u8]>>>,
}

/// The counts while an operator watches.
#[derive(Default)]
pub struct Heavy {
    is_watched: Cell<bool>,
    watched: RefCell<Option<Box<Watched>>>,
}

struct Watched {
    began: Instant,
    until: Instant,
    bits: (u8, u8),
    clients: [Sketch<Client>; Effort::ALL.len()],
    names: Option<Sketch<Box<[u8]>>>,
}

/// A client as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client(ClientPrefix);

impl From<&Self> for Client {
    fn from(client: &Self) -> Self {
        *client
    }
}

impl Heavy {
    /// Counts for a client, while an operator watches.
    #[inline]
    pub fn add(&self, client: IpAddr, effort: Effort, count: u64) {
        if self.is_watched.get() {
            self.count(client, effort, count);
        }
    }

    #[cold]
    fn count(&self, client: IpAddr, effort: Effort, count: u64) {
        if let Some(watched) = self.watched.borrow_mut().as_mut() {
            let client = Client(ClientPrefix::of(client, watched.bits.0, watched.bits.1));
            if let Some(sketch) = watched.clients.get_mut(effort as usize) {
                sketch.add(&client, count);
            }
        }
    }

    /// Counts a message of a client; `name` is its qname in wire format.
    #[inline]
    pub fn add_query<'a>(
        &self,
        client: IpAddr,
        message: &'a [u8],
        name: impl FnOnce(&'a [u8]) -> Option<&'a [u8]>,
    ) {
        if self.is_watched.get() {
            self.count(client, Effort::Queries, 1);
            self.count(client, Effort::Octets, message.len() as u64);
            self.count_name(name(message));
        }
    }

    #[cold]
    fn count_name(&self, name: Option<&[u8]>) {
        let mut watched = self.watched.borrow_mut();
        let Some(names) = watched.as_mut().and_then(|watched| watched.names.as_mut()) else { return };
        let mut lower = [0; NAME_OCTETS_MAX];
        if let Some((name, lower)) = name.and_then(|name| Some((name, lower.get_mut(..name.len())?))) {
            lower.copy_from_slice(name);
            lower.make_ascii_lowercase();
            names.add::<[u8]>(lower, 1);
        }
    }

    /// The counts so far; counting continues for [`LEASE`]. `bits` are the lengths of client prefixes.
    pub fn watch(self: &Rc<Self>, bits: (u8, u8), with_names: bool) -> Heaviest {
        let now = Instant::now();
        let mut watched = self.watched.borrow_mut();
        if watched.as_ref().is_none_or(|watched| watched.bits != bits) {
            let clients = Default::default();
            *watched = Some(Box::new(Watched { began: now, until: now + LEASE, bits, clients, names: None }));
            if !self.is_watched.replace(true) {
                spawn_local(Rc::clone(self).end());
            }
        }
        let Some(watched) = watched.as_mut() else {
            return Heaviest { counted_for: Duration::ZERO, clients: Vec::new(), names: None };
        };
        watched.until = now + LEASE;
        match (with_names, &watched.names) {
            (true, None) => watched.names = Some(Sketch::default()),
            (false, Some(_)) => watched.names = None,
            _ => {}
        }
        let part = |sketch: &Sketch<Client>| {
            (sketch.rows().map(|(client, estimate)| (client.0, estimate)).collect(), sketch.floor())
        };
        Heaviest {
            counted_for: now.duration_since(watched.began),
            clients: watched.clients.iter().map(part).collect(),
            names: watched.names.as_ref().map(|sketch| {
                (sketch.rows().map(|(name, estimate)| (name.clone(), estimate)).collect(), sketch.floor())
            }),
        }
    }

    /// Stops counting when no request has come for [`LEASE`].
    async fn end(self: Rc<Self>) {
        loop {
            let until = self.watched.borrow().as_ref().map(|watched| watched.until);
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => sleep_until(until).await,
                None => break,
            }
        }
        self.is_watched.set(false);
        self.watched.replace(None);
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    /// Goal: nothing is counted before an operator watches and after the last one has stopped; names are counted only
    /// on request, and without their case. Method: a lease that ends soon.
    #[test]
    fn counting_ends_with_the_last_who_watches() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let heavy = Rc::new(Heavy::default());
            let client: IpAddr = "192.0.2.7".parse().unwrap();
            let ask = |name: &[u8]| heavy.add_query(client, &[0; 40], |_| Some(name));
            ask(b"\x03www\x00");
            assert!(heavy.watched.borrow().is_none());
            assert!(heavy.watch((24, 56), false).names.is_none());
            ask(b"\x03www\x00");
            heavy.watch((24, 56), true);
            ask(b"\x03wWw\x00");
            ask(b"\x03www\x00");
            let seen = heavy.watch((24, 56), true);
            let counts: Vec<_> =
                seen.clients.iter().map(|(rows, _)| rows.first().map(|(_, row)| row.count)).collect();
            assert_eq!(counts, [Some(3), Some(120), None, None, None]);
            assert_eq!(seen.clients[0].0[0].0.to_string(), "192.0.2.0");
            let names = seen.names.unwrap().0;
            assert_eq!((names.len(), &*names[0].0, names[0].1.count), (1, &b"\x03www\x00"[..], 2));
            let set = |until| heavy.watched.borrow_mut().as_mut().unwrap().until = until;
            set(Instant::now() + Duration::from_millis(20));
            Rc::clone(&heavy).end().await;
            assert!(heavy.watched.borrow().is_none() && !heavy.is_watched.get());
        });
    }
}
