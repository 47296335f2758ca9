//! The end of a query: the only file that gives a sink its outcome.
//!
//! Before: `matching` found the response, or `pool`, `udp` or `stream` has no way left to get one. After: the sink has
//! its outcome, the slot is free, and the backend has one query fewer.
//! Holds: why a query has exactly one outcome. A sink is called in two places: [`Pool::take_response`], whose query the
//! caller ends with [`Pool::answered`] before anything else runs, and [`Pool::give_up`], which takes the sink out of the
//! slot first. A second try has the same sink and a slot of its own: [`Pool::withdraw`] empties that slot only.
//! Never: chooses a backend, or sends anything.

use std::rc::Rc;

use super::{
    flights::Flight,
    pool::Pool,
    sink::{Broken, Failure, Sink},
};
use crate::{dns::Asked, ledger::Counter};

impl Pool {
    /// Gives a response that matches the query of `flight` to its sink.
    ///
    /// # Errors
    /// The records of `message` are broken; the sink still waits.
    pub fn take_response(&self, flight: &Flight, asked: Asked, message: &[u8]) -> Result<(), Broken> {
        flight.sink.as_ref().ok_or(Broken)?.response(asked, message)
    }

    /// The sink of `slot` has its response: ends the query, both of its tries.
    pub fn answered(&self, slot: u16) {
        if let Some(other) = self.note_answer(slot) {
            drop(self.leave(other));
        }
        drop(self.end(slot));
    }

    /// Ends one of the two tries of a query; the other one goes on.
    pub fn withdraw(&self, slot: u16) {
        drop(self.leave(slot));
    }

    /// Ends `slot` without a response. If another try of its query goes on, the sink gets no outcome yet.
    pub fn give_up(&self, slot: u16, failure: Failure) {
        if self.flights.borrow().get(slot).is_some_and(|flight| flight.other.is_some()) {
            drop(self.leave(slot));
            return;
        }
        let last = self.backend_of(slot).filter(|_| failure.is_a_loss());
        last.into_iter().for_each(|last| last.note_loss());
        let held = self.flights.borrow_mut().get_mut(slot).map(Flight::take_query);
        let (Some((asked, query)), Some(sink)) = (held, self.end(slot)) else { return };
        self.count_failure(failure);
        sink.failure(asked, &query, failure);
    }

    /// Ends the query, whose only slot this is.
    fn end(&self, slot: u16) -> Option<Rc<dyn Sink>> {
        let sink = self.leave(slot)?;
        self.counters.subtract(Counter::BackendOutstanding, 1);
        Some(sink)
    }

    /// Empties `slot`; its backend has one query fewer.
    fn leave(&self, slot: u16) -> Option<Rc<dyn Sink>> {
        let mut flights = self.flights.borrow_mut();
        let sink = flights.end(slot)?;
        if let Some(backend) = flights.ended(slot).and_then(|flight| self.backend(flight.backend)) {
            backend.finish();
        }
        Some(sink)
    }

    /// Counts a failure; nothing else does.
    pub fn count_failure(&self, failure: Failure) {
        let counter = match failure {
            Failure::Silent => Counter::BackendTimeout,
            Failure::Unreachable | Failure::NotSecure => Counter::BackendUnreachable,
            Failure::Full => Counter::BackendFull,
            Failure::Harmful => Counter::BackendRefused,
        };
        self.counters.add(counter, 1);
    }
}
