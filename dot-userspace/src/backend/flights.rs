//! The queries in flight of one worker: a bounded table, its slots used again and again.
//!
//! Before: `Backends::submit` accepted a query. After: a response, a failure or a deadline ends it.
//! Holds: what was sent (for another try and for matching), what the client asked, where it is, who waits. A query that
//! two backends have at once (`hedge`) has two slots, which know each other until one of them ends.
//! Never: grows beyond [`FLIGHTS_MAX`], allocates once warm (but for queries longer than [`KEPT_OCTETS_MAX`]), or answers
//! twice: a slot is emptied as it ends.

use std::{net::IpAddr, rc::Rc};

use tokio::time::Instant;

use super::{balance::Affinity, history::History, ids::Ids, sink::Sink};
use crate::{
    dns::{Asked, HEADER_OCTETS, Query},
    ledger::{Stage, WorkerCounters, turn_time},
    moment::Moment,
    proxy::Client,
};

/// Most queries in flight of one worker. Half of the ID space, so a free random ID is found at once.
pub const FLIGHTS_MAX: usize = 32_768;
/// Share of one session just beyond half of the capacity. 16: what a stub resolver asks for at once to show a page.
const SHARE_MAX: usize = 16;
/// Octets that the buffer of a free slot may have: the queries of nearly all clients are shorter (a padded one has 128),
/// and what a long one took goes with it, or whoever sends some now and then would have every slot keep 64 KiB.
const KEPT_OCTETS_MAX: usize = 1024;
/// QTYPE and QCLASS, which follow the question's name.
const TYPE_AND_CLASS_OCTETS: usize = 4;

/// The way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// UDP.
    Datagram,
    /// A connection.
    Stream,
}

/// One query.
pub struct Flight {
    /// The query's octets; its ID is patched when it is sent.
    pub query: Vec<u8>,
    /// What the client asked of its hop.
    pub asked: Asked,
    /// Where the options of its OPT begin, if they may grow.
    pub opt_rdata: Option<usize>,
    /// Who waits. `None`: the slot is free.
    pub sink: Option<Rc<dyn Sink>>,
    /// When we give up.
    pub deadline: Instant,
    /// When its backend has had its share of the deadline.
    pub patience_until: Instant,
    /// When its backend got it.
    pub given_at: Instant,
    /// When it was last sent; `None`: never.
    pub sent_at: Option<Moment>,
    /// When its backend has taken longer than usual; `None`: that changes nothing.
    pub late_at: Option<Instant>,
    /// Another backend may be asked before this one has failed.
    pub may_hedge: bool,
    /// The slot of the same query's other try.
    pub other: Option<u16>,
    /// It is the later one of two tries.
    pub is_second: bool,
    /// The backend that has it.
    pub backend: usize,
    /// The way it takes there.
    pub half: Half,
    /// Backends that had it, a bit each.
    pub tried: u64,
    /// It must not be asked twice.
    pub is_once: bool,
    /// What connections did with it that closed, or fell silent, before it was answered.
    pub history: History,
    /// Over which socket and with which ID it was sent; `None` while queued.
    pub sent: Option<(Rc<Ids>, u16)>,
}

impl Flight {
    /// Whether it waits in this queue. A queue may hold slots whose flight has ended or moved on.
    pub fn waits_at(&self, backend: usize, half: Half) -> bool {
        self.sent.is_none() && self.backend == backend && self.half == half
    }

    /// Who asked, for a backend that is to know.
    pub fn client(&self) -> Option<Client> {
        self.sink.as_ref().and_then(|sink| sink.client())
    }

    /// It is the later one of two tries, and the earlier one goes on.
    pub fn is_spare(&self) -> bool {
        self.is_second && self.other.is_some()
    }

    /// Who asked, whether or not a backend is to know.
    pub fn asker(&self) -> Option<IpAddr> {
        self.sink.as_ref().and_then(|sink| sink.asker())
    }

    /// Whether it was sent over `ids` and not taken back.
    pub fn is_over(&self, ids: &Rc<Ids>) -> bool {
        self.sent.as_ref().is_some_and(|(over, _)| Rc::ptr_eq(over, ids))
    }

    /// Takes it back from the socket that has it: what still comes for it there is late and dropped.
    pub fn take_back(&mut self) {
        if let Some((ids, id)) = self.sent.take() {
            ids.release(id);
        }
    }

    /// Gives it an ID of `ids`, which stands in its octets when this returns. `false`: none is free.
    pub fn send_over(&mut self, slot: u16, ids: &Rc<Ids>, random: &super::random::Random) -> bool {
        let Some(id) = ids.claim(slot, random) else { return false };
        if let Some(octets) = self.query.first_chunk_mut::<2>() {
            *octets = id.to_be_bytes();
        }
        self.sent = Some((Rc::clone(ids), id));
        true
    }

    /// It is sent in this turn.
    pub fn note_sent(&mut self, counters: &WorkerCounters) {
        let now = turn_time::moment();
        let is_first = self.sent_at.replace(now).is_none();
        if let Some(since) = self.asked.since.filter(|_| is_first) {
            counters.stages().record_times(Stage::Queue, now.nanoseconds_since(since), 1);
        }
    }

    /// What was asked and how it was sent, for an outcome without a response; the flight is to end then.
    pub fn take_query(&mut self) -> (Asked, Vec<u8>) {
        (self.asked, std::mem::take(&mut self.query))
    }

    /// Its name, as the client wrote it.
    pub fn qname(&self) -> &[u8] {
        qname(&self.query, usize::from(self.asked.question_end))
    }

    /// By what its next backend is chosen. Reads the query again: a backend has failed, so that there is time.
    pub fn affinity(&self) -> Affinity<'_> {
        let cookie = Query::parse(&self.query).ok().and_then(|query| query.client_cookie(&self.query));
        cookie.map_or_else(|| Affinity::Name(self.qname()), Affinity::Cookie)
    }
}

/// The question's name in a message whose question ends at `question_end`.
pub fn qname(message: &[u8], question_end: usize) -> &[u8] {
    let end = question_end.saturating_sub(TYPE_AND_CLASS_OCTETS);
    message.get(HEADER_OCTETS..end).unwrap_or_default()
}

/// The table. An index is a slot.
#[derive(Default)]
pub struct Flights {
    slots: Vec<Flight>,
    free: Vec<u16>,
}

impl Flights {
    /// Takes a slot and lets `fill` write the query into its buffer and say where its OPT may grow; `None` when
    /// all are taken.
    pub fn insert(
        &mut self,
        asked: Asked,
        sink: Rc<dyn Sink>,
        deadline: Instant,
        fill: impl FnOnce(&mut Vec<u8>) -> Option<usize>,
    ) -> Option<u16> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.grow(asked, deadline)?,
        };
        let flight = self.slots.get_mut(usize::from(slot))?;
        flight.opt_rdata = fill(&mut flight.query);
        flight.asked = asked;
        flight.deadline = deadline;
        flight.patience_until = deadline;
        flight.late_at = None;
        flight.sent_at = None;
        flight.may_hedge = false;
        flight.other = None;
        flight.is_second = false;
        flight.tried = 0;
        flight.is_once = false;
        flight.history = History::default();
        flight.sent = None;
        flight.sink = Some(sink);
        Some(slot)
    }

    fn grow(&mut self, asked: Asked, deadline: Instant) -> Option<u16> {
        if self.slots.len() >= FLIGHTS_MAX {
            return None;
        }
        let slot = u16::try_from(self.slots.len()).ok()?;
        self.slots.push(Flight {
            query: Vec::new(),
            asked,
            opt_rdata: None,
            sink: None,
            deadline,
            patience_until: deadline,
            given_at: deadline,
            late_at: None,
            sent_at: None,
            may_hedge: false,
            other: None,
            is_second: false,
            backend: 0,
            half: Half::Datagram,
            tried: 0,
            is_once: false,
            history: History::default(),
            sent: None,
        });
        Some(slot)
    }

    /// Gives the query in `slot` a second slot, for another backend to have it too. Who waits is still told once: of the
    /// first answer, or when both have failed. `None`: all slots are taken.
    pub fn split(&mut self, slot: u16) -> Option<u16> {
        let first = self.get_mut(slot)?;
        let (asked, deadline, tried, opt_rdata) = (first.asked, first.deadline, first.tried, first.opt_rdata);
        let sink = first.sink.clone()?;
        first.may_hedge = false;
        let query = std::mem::take(&mut first.query);
        let second = self.insert(asked, sink, deadline, |octets| {
            octets.clear();
            octets.extend_from_slice(&query);
            opt_rdata
        });
        let first = self.get_mut(slot)?;
        (first.query, first.other) = (query, second);
        let other = self.get_mut(second?)?;
        (other.other, other.is_second, other.tried) = (Some(slot), true, tried);
        second
    }

    /// Both tries of the query in `slot` know that the backends in `tried` had it.
    pub fn note_tried(&mut self, slot: u16, tried: u64) {
        let Some(flight) = self.get_mut(slot) else { return };
        flight.tried |= tried;
        if let Some(other) = flight.other.and_then(|other| self.get_mut(other)) {
            other.tried |= tried;
        }
    }

    /// The flight in `slot`, if one is there.
    pub fn get(&self, slot: u16) -> Option<&Flight> {
        self.slots.get(usize::from(slot)).filter(|flight| flight.sink.is_some())
    }

    /// The flight in `slot`, to change.
    pub fn get_mut(&mut self, slot: u16) -> Option<&mut Flight> {
        self.slots.get_mut(usize::from(slot)).filter(|flight| flight.sink.is_some())
    }

    /// Empties `slot`: whoever waited gets the outcome from the caller, once. Its ID is free again. Another try of the
    /// same query is the only one from now on.
    pub fn end(&mut self, slot: u16) -> Option<Rc<dyn Sink>> {
        let flight = self.slots.get_mut(usize::from(slot))?;
        let sink = flight.sink.take()?;
        flight.take_back();
        if flight.query.capacity() > KEPT_OCTETS_MAX {
            flight.query = Vec::new();
        }
        let other = flight.other.take();
        self.free.push(slot);
        if let Some(other) = other.and_then(|other| self.get_mut(other)) {
            other.other = None;
        }
        Some(sink)
    }

    /// What an ended slot held, but for a long query; gone once it is used again.
    pub fn ended(&self, slot: u16) -> Option<&Flight> {
        self.slots.get(usize::from(slot)).filter(|flight| flight.sink.is_none())
    }

    /// The slots whose flights `is_meant` means.
    pub fn find(&self, is_meant: impl Fn(&Flight) -> bool) -> Vec<u16> {
        let flights = self.slots.iter().enumerate();
        let meant = flights.filter(|(_, flight)| flight.sink.is_some() && is_meant(flight));
        meant.filter_map(|(slot, _)| u16::try_from(slot).ok()).collect()
    }

    /// Queries in flight now.
    pub fn outstanding(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// How many queries in flight one session may have while its worker has `outstanding` of them, where its backends
/// can have `capacity`: as many as it likes up to half of that, then a share that shrinks as the rest fills. Never
/// none: with one, a session goes on as its own answers come, and needs nobody to wake it.
pub fn share(outstanding: usize, capacity: usize) -> usize {
    let plenty = capacity / 2;
    if outstanding < plenty {
        return usize::MAX;
    }
    let free = capacity.saturating_sub(outstanding);
    (SHARE_MAX * free / plenty.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backend::{Broken, Failure};

    /// Who waits for nothing.
    struct Nobody;

    impl Sink for Nobody {
        fn response(&self, _: Asked, _: &[u8]) -> Result<(), Broken> {
            Ok(())
        }

        fn failure(&self, _: Asked, _: &[u8], _: Failure) {}
    }

    const ASKED: Asked = Asked {
        id: 1,
        question_end: 17,
        has_opt: false,
        padding: false,
        keepalive: false,
        dnssec_ok: false,
        subnet_is_ours: false,
        since: None,
    };

    /// Goal: slots that had long queries hold none of their memory once they are free, and those of usual ones keep theirs,
    /// which the next query takes. Method: a crowd of either, all in flight at once, then none.
    #[test]
    fn long_queries_leave_no_memory_behind() {
        for (octets, kept) in [(KEPT_OCTETS_MAX, KEPT_OCTETS_MAX), (KEPT_OCTETS_MAX + 1, 0), (65_535, 0)] {
            let mut flights = Flights::default();
            let deadline = Instant::now() + Duration::from_secs(1);
            let mut ask = || {
                let fill = |query: &mut Vec<u8>| {
                    query.clear();
                    query.resize(octets, 0);
                    None
                };
                flights.insert(ASKED, Rc::new(Nobody), deadline, fill).unwrap()
            };
            let slots: Vec<u16> = (0..100).map(|_| ask()).collect();
            slots.into_iter().for_each(|slot| drop(flights.end(slot)));
            let held = flights.slots.iter().map(|flight| flight.query.capacity());
            assert_eq!(held.sum::<usize>(), 100 * kept, "after queries of {octets} octets");
        }
    }

    /// Goal: who floods a worker leaves a third to others, and however many flood it, each of them gets on.
    /// Method: sessions that take all they may, in rounds, until nobody may take more.
    #[test]
    fn a_flood_leaves_room_for_others() {
        let fill = |sessions: usize, in_flight_max: usize, capacity: usize| {
            let (mut taken, mut total) = (vec![0_usize; sessions], 0);
            let mut last = usize::MAX;
            while last != total {
                last = total;
                for own in &mut taken {
                    while *own < share(total, capacity).min(in_flight_max) {
                        (*own, total) = (*own + 1, total + 1);
                    }
                }
            }
            total
        };
        for capacity in [FLIGHTS_MAX, 4096] {
            let plenty = capacity / 2;
            assert_eq!(fill(1, 65_535, capacity), plenty);
            assert_eq!((share(plenty - 1, capacity), share(plenty, capacity)), (usize::MAX, SHARE_MAX));
            assert_eq!((share(capacity, capacity), share(2 * capacity, capacity), share(0, 0)), (1, 1, 1));
        }
        let one_prefix = fill(500, 256, FLIGHTS_MAX);
        assert!(
            one_prefix <= FLIGHTS_MAX * 2 / 3 + 500,
            "{one_prefix} by one client prefix with all it may open"
        );
        assert!(share(one_prefix, FLIGHTS_MAX) > SHARE_MAX / 2);
    }
}
