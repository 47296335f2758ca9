//! The queries in flight of one worker: a bounded table whose slots are reused.
//!
//! Before: `Backends::submit` accepted a query. After: a response, a failure or a deadline ends it.
//! Holds: the octets that were sent (for another try and for matching), what the client asked, the backend that
//! has the query, its sink. A query that two backends have at once (`hedge`) has two slots, which refer to each
//! other until one of them ends.
//! Never: grows beyond [`FLIGHTS_MAX`], allocates once warm (except for queries longer than [`KEPT_OCTETS_MAX`]),
//! or answers twice: a slot that ends is emptied.

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
/// Share of one session just above half of the capacity. 16: the queries of a stub resolver for one page.
const SHARE_MAX: usize = 16;
/// Octets that the buffer of a free slot may keep: nearly all queries are shorter (a padded one has 128). A
/// longer buffer is freed; otherwise a client that sends a long query now and then would make every slot keep 64
/// KiB.
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
    /// What the client asked of its hop (EDNS).
    pub asked: Asked,
    /// Offset of the options of its OPT, if options may be added.
    pub opt_rdata: Option<usize>,
    /// Where the outcome goes. `None`: the slot is free.
    pub sink: Option<Rc<dyn Sink>>,
    /// The query fails at this time.
    pub deadline: Instant,
    /// Its backend's share of the deadline ends at this time.
    pub patience_until: Instant,
    /// When its backend got it.
    pub given_at: Instant,
    /// When it was last sent. `None`: never.
    pub sent_at: Option<Moment>,
    /// From this time on its backend takes longer than usual. `None`: the query is never hedged.
    pub late_at: Option<Instant>,
    /// Another backend may be asked before this one has failed.
    pub may_hedge: bool,
    /// The slot of the same query's other try.
    pub other: Option<u16>,
    /// This slot is the second of two tries.
    pub is_second: bool,
    /// The backend that has it.
    pub backend: usize,
    /// Over UDP or a connection.
    pub half: Half,
    /// Backends that had it, a bit each.
    pub tried: u64,
    /// It must not be asked twice.
    pub is_once: bool,
    /// The acts of connections that closed, or fell silent.
    pub history: History,
    /// The socket and the ID with which it was sent. `None`: it is queued.
    pub sent: Option<(Rc<Ids>, u16)>,
}

impl Flight {
    /// Whether it waits in this queue. A queue may hold slots whose query has ended or moved on.
    pub fn waits_at(&self, backend: usize, half: Half) -> bool {
        self.sent.is_none() && self.backend == backend && self.half == half
    }

    /// The client, for a backend that learns it from a PROXY header.
    pub fn client(&self) -> Option<Client> {
        self.sink.as_ref().and_then(|sink| sink.client())
    }

    /// Whether it is the second of two tries, and the first one goes on.
    pub fn is_spare(&self) -> bool {
        self.is_second && self.other.is_some()
    }

    /// The client's address, for dotd's own use.
    pub fn asker(&self) -> Option<IpAddr> {
        self.sink.as_ref().and_then(|sink| sink.asker())
    }

    /// Whether it was sent over `ids` and not taken back.
    pub fn is_over(&self, ids: &Rc<Ids>) -> bool {
        self.sent.as_ref().is_some_and(|(over, _)| Rc::ptr_eq(over, ids))
    }

    /// How many backends had it, and one more where it was sent again.
    pub fn tries(&self) -> u32 {
        let backends = if self.is_once { 1 } else { self.tried.count_ones().max(1) };
        backends + u32::from(self.history.was_resent)
    }

    /// Takes it back from its socket: an answer that still comes there is late, and is dropped.
    pub fn take_back(&mut self) {
        if let Some((ids, id)) = self.sent.take() {
            ids.release(id);
        }
    }

    /// Gives it a free ID of `ids` and writes that into its octets. `false`: no ID is free.
    pub fn send_over(&mut self, slot: u16, ids: &Rc<Ids>, random: &super::random::Random) -> bool {
        let Some(id) = ids.claim(slot, random) else { return false };
        if let Some(octets) = self.query.first_chunk_mut::<2>() {
            *octets = id.to_be_bytes();
        }
        self.sent = Some((Rc::clone(ids), id));
        true
    }

    /// Notes that it is sent in this turn.
    pub fn note_sent(&mut self, counters: &WorkerCounters) {
        let now = turn_time::moment();
        let is_first = self.sent_at.replace(now).is_none();
        if let Some(since) = self.asked.since.filter(|_| is_first) {
            counters.stages().record_times(Stage::Queue, now.nanoseconds_since(since), 1);
        }
    }

    /// Takes what was asked and how it was sent, for an outcome without a response. The flight must end then.
    pub fn take_query(&mut self) -> (Asked, Vec<u8>) {
        (self.asked, std::mem::take(&mut self.query))
    }

    /// Its qname, as the client wrote it.
    pub fn qname(&self) -> &[u8] {
        qname(&self.query, usize::from(self.asked.question_end))
    }

    /// The property by which its next backend is chosen. Parses the query again, which is affordable after a
    /// backend has failed.
    pub fn affinity(&self) -> Affinity<'_> {
        let cookie = Query::parse(&self.query).ok().and_then(|query| query.client_cookie(&self.query));
        cookie.map_or_else(|| Affinity::Name(self.qname()), Affinity::Cookie)
    }
}

/// The qname of a message whose question ends at `question_end`.
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
    /// Takes a slot. `fill` writes the query into its buffer and returns where its OPT may grow. `None`: all
    /// slots are taken.
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

    /// Gives the query in `slot` a second slot, for a second backend. The sink still gets one outcome: the first
    /// answer, or a failure when both have failed. `None`: all slots are taken.
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

    /// Notes in both tries of the query in `slot` that the backends in `tried` had it.
    pub fn note_tried(&mut self, slot: u16, tried: u64) {
        let Some(flight) = self.get_mut(slot) else { return };
        flight.tried |= tried;
        if let Some(other) = flight.other.and_then(|other| self.get_mut(other)) {
            other.tried |= tried;
        }
    }

    /// The flight in `slot`. `None`: the slot is free.
    pub fn get(&self, slot: u16) -> Option<&Flight> {
        self.slots.get(usize::from(slot)).filter(|flight| flight.sink.is_some())
    }

    /// The flight in `slot`, mutable.
    pub fn get_mut(&mut self, slot: u16) -> Option<&mut Flight> {
        self.slots.get_mut(usize::from(slot)).filter(|flight| flight.sink.is_some())
    }

    /// Empties `slot` and frees its ID; the caller gives the outcome to the sink, once. If the query has another
    /// try, that is its only one from now on.
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

    /// What an ended slot held, except a long query's octets, until the slot is used again.
    pub fn ended(&self, slot: u16) -> Option<&Flight> {
        self.slots.get(usize::from(slot)).filter(|flight| flight.sink.is_none())
    }

    /// The slots whose flights satisfy `is_meant`.
    pub fn find(&self, is_meant: impl Fn(&Flight) -> bool) -> Vec<u16> {
        let flights = self.slots.iter().enumerate();
        let meant = flights.filter(|(_, flight)| flight.sink.is_some() && is_meant(flight));
        meant.filter_map(|(slot, _)| u16::try_from(slot).ok()).collect()
    }

    /// Number of queries in flight.
    pub fn outstanding(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// How many queries in flight one session may have while its worker has `outstanding` of them and its backends
/// can have `capacity`: any number up to half of that, then a share that shrinks as the rest fills. Never 0: a
/// session with one query in flight goes on when its own answer comes, and needs no other wake-up.
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
    use crate::backend::tests::Ignores;

    const ASKED: Asked = Asked {
        id: 1,
        question_end: 17,
        has_opt: false,
        padding: false,
        keepalive: false,
        dnssec_ok: false,
        subnet_is_ours: false,
        since: None,
        screening: crate::dns::Screening::Answer,
    };

    /// Goal: slots that had long queries keep none of their memory once they are free; slots of usual queries
    /// keep theirs for the next query. Method: many queries of either kind, all in flight at once, then none.
    ///
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
                flights.insert(ASKED, Rc::new(Ignores), deadline, fill).unwrap()
            };
            let slots: Vec<u16> = (0..100).map(|_| ask()).collect();
            slots.into_iter().for_each(|slot| drop(flights.end(slot)));
            let held = flights.slots.iter().map(|flight| flight.query.capacity());
            assert_eq!(held.sum::<usize>(), 100 * kept, "after queries of {octets} octets");
        }
    }

    /// Goal: a client that floods a worker leaves a third to others, and each of many flooding clients makes
    /// progress. Method: sessions that take all they may, in rounds, until none may take more.
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
