//! The queries in flight at one backend: a bounded table, its slots used again and again.
//!
//! Before: `Backends::submit` accepted a query. After: a response, a failure or a deadline ends it.
//! Holds: what was sent (for a retry and for matching), what the client asked, and who waits.
//! Never: grows beyond [`FLIGHTS_MAX`], allocates once warm, or answers twice: a slot is emptied as it ends.

use std::rc::Rc;

use tokio::time::Instant;

use super::{port::Port, sink::Sink};
use crate::dns::Asked;

/// Most queries of one worker at one backend. Half of the ID space, so a free random ID is found at once.
pub const FLIGHTS_MAX: usize = 32_768;

/// One query at the backend.
pub struct Flight {
    /// The query's octets; its ID is patched when it is sent.
    pub query: Vec<u8>,
    /// What the client asked of its hop.
    pub asked: Asked,
    /// Who waits. `None`: the slot is free.
    pub sink: Option<Rc<dyn Sink>>,
    /// When we give up.
    pub deadline: Instant,
    /// When we send it again: a datagram may be lost.
    pub retransmit: Instant,
    /// Over which port and with which ID it was sent; `None` while queued or on its way over TCP.
    pub sent: Option<(Rc<Port>, u16)>,
    /// The slot stands in the queue; it must not stand there twice, also when its query has changed.
    pub is_queued: bool,
}

/// The table. An index is a slot.
#[derive(Default)]
pub struct Flights {
    slots: Vec<Flight>,
    free: Vec<u16>,
}

impl Flights {
    /// Takes a slot and lets `fill` write the query into its buffer; `None` when all are taken.
    pub fn insert(
        &mut self,
        asked: Asked,
        sink: Rc<dyn Sink>,
        (deadline, retransmit): (Instant, Instant),
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Option<u16> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.grow(asked, deadline)?,
        };
        let flight = self.slots.get_mut(usize::from(slot))?;
        fill(&mut flight.query);
        flight.asked = asked;
        flight.deadline = deadline;
        flight.retransmit = retransmit;
        flight.sent = None;
        flight.sink = Some(sink);
        Some(slot)
    }

    fn grow(&mut self, asked: Asked, deadline: Instant) -> Option<u16> {
        if self.slots.len() >= FLIGHTS_MAX {
            return None;
        }
        let slot = u16::try_from(self.slots.len()).ok()?;
        let flight = Flight {
            query: Vec::new(),
            asked,
            sink: None,
            deadline,
            retransmit: deadline,
            sent: None,
            is_queued: false,
        };
        self.slots.push(flight);
        Some(slot)
    }

    /// The flight in `slot`, if one is there.
    pub fn get(&self, slot: u16) -> Option<&Flight> {
        self.slots.get(usize::from(slot)).filter(|flight| flight.sink.is_some())
    }

    /// The flight in `slot`, to change.
    pub fn get_mut(&mut self, slot: u16) -> Option<&mut Flight> {
        self.slots.get_mut(usize::from(slot)).filter(|flight| flight.sink.is_some())
    }

    /// Notes that `slot` joins or leaves the queue; `false` when nothing changes.
    pub fn set_queued(&mut self, slot: u16, is_queued: bool) -> bool {
        let flight = self.slots.get_mut(usize::from(slot));
        flight.is_some_and(|flight| std::mem::replace(&mut flight.is_queued, is_queued) != is_queued)
    }

    /// Empties `slot`: whoever waited gets the outcome from the caller, once. The port learns that its ID
    /// is free again.
    pub fn end(&mut self, slot: u16) -> Option<Rc<dyn Sink>> {
        let flight = self.slots.get_mut(usize::from(slot))?;
        let sink = flight.sink.take()?;
        if let Some((port, id)) = flight.sent.take() {
            port.release(id);
        }
        self.free.push(slot);
        Some(sink)
    }

    /// What an ended slot held; gone once it is used again.
    pub fn ended(&self, slot: u16) -> Option<(Asked, &[u8])> {
        let flight = self.slots.get(usize::from(slot)).filter(|flight| flight.sink.is_none())?;
        Some((flight.asked, &flight.query))
    }

    /// The slots whose flights `is_over` says are over.
    pub fn find(&self, is_over: impl Fn(&Flight) -> bool) -> Vec<u16> {
        let flights = self.slots.iter().enumerate();
        let over = flights.filter(|(_, flight)| flight.sink.is_some() && is_over(flight));
        over.filter_map(|(slot, _)| u16::try_from(slot).ok()).collect()
    }

    /// Queries in flight now.
    pub fn outstanding(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
