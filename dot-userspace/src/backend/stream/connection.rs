//! One connection to a backend, for the code that fills it, judges it and ends it.
//!
//! Before: `stream`, `suspects` or `per_client` opened it. After: they give it queries with [`Connection::give`]
//! in each turn, and `connection_io` writes these.
//! Holds: its ID table, queries that wait to be written, counts of queries and answers, and for how long it has
//! been silent.
//! Never: touches a socket, or allocates per query once warm.
//!
//! Source: RFC 7766 §6.2.1 (pipelining, one connection for many queries).

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    rc::Rc,
    task::Waker,
};

use tokio::time::Instant;

use super::Streams;
use crate::{
    backend::{flights::Flight, ids::Ids, sink::Failure, tapped},
    dns::{self, framing::append_message},
    ledger::Counter,
    proxy::Client,
};

/// Unanswered queries on one connection. 512: half of what ten busy clients have in flight, so two connections
/// carry them; servers accept far fewer than that on one connection anyway.
pub const IN_FLIGHT_MAX: usize = 512;
/// A connection with this many octets waiting to be written takes no more queries.
const WAITING_OCTETS_MAX: usize = 64 * 1024;

/// Which queries a connection carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lane {
    /// Queries of all clients.
    #[default]
    Shared,
    /// Queries that may have closed a connection.
    Trial,
    /// Queries that share no connection because of other queries.
    Apart,
    /// Queries of one client, which the backend learns from a PROXY header.
    PerClient(Option<Client>),
}

/// A connection.
pub struct Connection {
    /// The slot that waits for each ID.
    pub ids: Rc<Ids>,
    /// The kind of queries that it carries.
    pub lane: Lane,
    /// Queries that wait to be written, framed.
    pub out: RefCell<Vec<u8>>,
    /// When it was established. `None`: not yet, or it is over.
    pub established_at: Cell<Option<Instant>>,
    /// Queries given to it.
    given: Cell<u32>,
    /// Responses that matched a query.
    answered: Cell<u32>,
    /// Most unanswered queries at a time, for now.
    depth: Cell<usize>,
    /// Most queries that it may be given in all.
    quota: Cell<u32>,
    /// It gets no more queries, and is closed when it has none.
    is_over: Cell<bool>,
    /// The result of the last look for silence.
    watch: Cell<Watch>,
    /// Its count of answers when queries were last moved away because it was silent.
    relieved_after: Cell<Option<u32>>,
    waker: RefCell<Option<Waker>>,
}

/// The result of one look at a connection.
#[derive(Clone, Copy, Default)]
struct Watch {
    answered: u32,
    was_busy: bool,
    /// Looks in a row at which it had queries and gave no new answer.
    silent_looks: u32,
    /// It gets no new queries until it answers.
    is_silent: bool,
}

/// The difference since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// No query waits on it, and it has not answered since the last look.
    Nothing,
    /// It answered after this many silent looks, or its queries had not waited long.
    Answers(u32),
    /// It has not answered for this many looks.
    Silent(u32),
}

impl Connection {
    /// A connection of this lane. Its table of IDs begins small, because there may be many connections.
    pub fn of(lane: Lane) -> Self {
        Self {
            ids: Rc::default(),
            lane,
            out: RefCell::default(),
            established_at: Cell::new(None),
            given: Cell::new(0),
            answered: Cell::new(0),
            depth: Cell::new(IN_FLIGHT_MAX),
            quota: Cell::new(u32::MAX),
            is_over: Cell::new(false),
            watch: Cell::default(),
            relieved_after: Cell::new(None),
            waker: RefCell::default(),
        }
    }

    /// Whether it can take queries at all.
    pub fn is_established(&self) -> bool {
        self.established_at.get().is_some()
    }

    /// Responses that matched a query.
    pub fn answered(&self) -> u32 {
        self.answered.get()
    }

    /// Whether it has answered a query before an earlier one.
    pub fn reorders(&self) -> bool {
        self.ids.has_reordered(self.given.get())
    }

    /// Counts an answer; the connection is not silent any more. `true`: it is the first answer.
    pub fn count_answer(&self) -> bool {
        let before = self.answered.get();
        self.answered.set(before.saturating_add(1));
        before == 0
    }

    /// Looks in a row at which it had queries and gave no new answer.
    pub fn silent_looks(&self) -> u32 {
        if self.is_silent() { self.watch.get().silent_looks } else { 0 }
    }

    /// Whether it has queries and has not answered for long.
    pub fn is_silent(&self) -> bool {
        let watch = self.watch.get();
        watch.is_silent && watch.answered == self.answered.get()
    }

    /// Notes that queries move away because it is silent.
    pub fn note_relief(&self) {
        self.relieved_after.set(Some(self.answered.get()));
    }

    /// Whether queries moved away and it has not answered since.
    pub fn was_relieved(&self) -> bool {
        self.relieved_after.get() == Some(self.answered.get())
    }

    /// Whether it takes no more queries and none waits on it. It may drop what it has not written yet.
    pub fn is_spent(&self) -> bool {
        self.is_over.get() && self.ids.outstanding() == 0
    }

    /// It gets no more queries, and ends when it has none.
    pub fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Whether it was given as many queries as the backend answers on one connection, and all are answered: the
    /// backend closes it now.
    pub fn is_due(&self) -> bool {
        self.is_established() && self.given.get() >= self.quota.get() && self.is_quiet()
    }

    /// Whether it will never take another query.
    pub fn is_worn(&self) -> bool {
        self.is_over.get() || self.given.get() >= self.quota.get()
    }

    /// Whether it can take another query now.
    pub fn has_room(&self) -> bool {
        self.is_established() && self.takes_more()
    }

    /// Whether it can take another query, which is written as soon as the connection is established.
    pub fn takes_more(&self) -> bool {
        self.ids.outstanding() < self.depth.get()
            && !self.is_worn()
            && self.out.borrow().len() < WAITING_OCTETS_MAX
    }

    /// Whether a query that allows `company` queries on its connection may join this one's.
    pub fn takes_company(&self, company: u16) -> bool {
        let outstanding = self.ids.outstanding();
        self.takes_more() && (outstanding == 0 || outstanding < usize::from(company))
    }

    /// Sets the most queries at a time (`depth`) and in all (`quota`).
    pub fn limit(&self, depth: usize, quota: u32) {
        self.depth.set(depth.clamp(1, IN_FLIGHT_MAX));
        self.quota.set(quota.max(1));
    }

    /// Whether no query waits on it.
    pub fn is_quiet(&self) -> bool {
        self.ids.outstanding() == 0 && self.out.borrow().is_empty()
    }

    /// Gives it no more queries; it ends when its queries are over.
    pub fn end(&self) {
        self.is_over.set(true);
        self.wake();
    }

    /// Sends the query in `slot` over it, with this turn's write. If that is impossible, the query goes
    /// elsewhere.
    pub fn give(&self, streams: &Streams, slot: u16) {
        let pool = &streams.pool;
        let Some(first_tries) = self.take(streams, slot) else {
            return pool.try_elsewhere(slot, Failure::Full);
        };
        pool.counters.add(Counter::BackendStreamSent, 1);
        streams.backend.retries.earn(first_tries);
    }

    /// Takes the query in `slot`. Returns the number of first tries: 1, or 0 if the query was given before.
    /// `None`: it cannot.
    fn take(&self, streams: &Streams, slot: u16) -> Option<usize> {
        let pool = &streams.pool;
        let mut flights = pool.flights.borrow_mut();
        // Without a flight there is nothing to send.
        let Some(flight) = flights.get_mut(slot) else { return Some(0) };
        if self.ids.outstanding() == 0 {
            // A query that is alone decides how many may join it; on a shared connection it was asked before.
            self.depth.set(self.depth_for(flight));
        }
        flight.history.order = self.given.get();
        let is_taken = flight.send_over(slot, &self.ids, &pool.random) && self.push(streams, flight);
        self.given.set(self.given.get().saturating_add(u32::from(is_taken)));
        let is_first = !std::mem::replace(&mut flight.history.was_given, true);
        is_taken.then_some(usize::from(is_first))
    }

    fn depth_for(&self, flight: &Flight) -> usize {
        match self.lane {
            Lane::Shared => self.depth.get(),
            Lane::Trial | Lane::Apart | Lane::PerClient(_) => {
                usize::from(flight.history.company).min(IN_FLIGHT_MAX)
            }
        }
    }

    /// Appends a query, whose ID is in place, to this turn's write. `pads`: the connection is encrypted, and
    /// padding hides the query's length. `false`: no frame can hold the query.
    fn push(&self, streams: &Streams, flight: &mut Flight) -> bool {
        let config = &streams.backend.config;
        let write = |out: &mut Vec<u8>| {
            match flight.opt_rdata.filter(|_| config.pads) {
                Some(opt_rdata) => dns::pad_query(&flight.query, opt_rdata, out),
                None => out.extend_from_slice(&flight.query),
            }
            Ok::<_, Infallible>(())
        };
        let mut out = self.out.borrow_mut();
        let Ok(Some(place)) = append_message(&mut out, write) else { return false };
        flight.note_sent(&streams.pool.counters);
        tapped::query(config, flight, out.get(place).unwrap_or_default());
        true
    }

    /// Has the queries that were given written.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Sets the waker of the task in `connection_io`.
    pub fn wake_by(&self, waker: &Waker) {
        let mut current = self.waker.borrow_mut();
        if !current.as_ref().is_some_and(|current| current.will_wake(waker)) {
            *current = Some(waker.clone());
        }
    }

    /// Looks whether it has answered since the last look; `silent_looks` looks without an answer count as
    /// silence.
    pub fn look(&self, silent_looks: u32) -> Heard {
        let mut watch = self.watch.get();
        let is_busy = self.ids.outstanding() > 0;
        let has_answered = watch.answered != self.answered.get();
        let before = watch.silent_looks;
        watch.silent_looks = match is_busy && !has_answered && watch.was_busy {
            true => before.saturating_add(1),
            false => 0,
        };
        // Queries that were given up, or moved away, are no answers.
        watch.is_silent = watch.silent_looks >= silent_looks || (watch.is_silent && !has_answered);
        (watch.was_busy, watch.answered) = (is_busy, self.answered.get());
        self.watch.set(watch);
        match watch.is_silent {
            true => Heard::Silent(watch.silent_looks),
            false if has_answered => Heard::Answers(before),
            false if is_busy => Heard::Answers(0),
            false => Heard::Nothing,
        }
    }
}
