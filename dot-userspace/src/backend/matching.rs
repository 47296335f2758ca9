//! Compares what a backend says with what it was asked.
//!
//! Before: `udp` or `connection` has a whole message. After: the sink that waits for it has it, or it is counted as
//! nobody's.
//! Never: believes a message whose socket, ID, name, type, class and QR do not fit (RFC 5452 §9.1), or whose records are
//! broken; the true one is still awaited.

use std::rc::Rc;

use super::{fleet::Fleet, flights::Half, hedge, ids::Ids};
use crate::{dns, ledger::Counter};

/// Octets of a message without a question.
const HEADER_OCTETS: u16 = dns::HEADER_OCTETS as u16;

/// What a message from a backend was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The response; its sink has it.
    Response,
    /// The response to this slot's query, too long for a datagram.
    Truncated(u16),
    /// A second try has failed, and the first goes on.
    Withdrawn,
    /// Nobody waits for it.
    NotOurs,
}

impl Fleet {
    /// Gives `message`, which came over `ids`, to whoever waits for it. `is_cut`: it was longer than our room.
    /// TC=1 is for a datagram only: over a connection it is the response.
    pub fn deliver(&self, ids: &Rc<Ids>, message: &[u8], half: Half, is_cut: bool) -> Match {
        let id = message.first_chunk::<2>().map(|octets| u16::from_be_bytes(*octets));
        let slot = id.and_then(|id| ids.slot_of(id));
        let outcome = slot.map_or(Match::NotOurs, |slot| self.judge(slot, message, half, is_cut));
        match (outcome, slot) {
            (Match::Response, Some(slot)) => {
                self.note_answer(slot);
                drop(self.end(slot));
            }
            (Match::Withdrawn, Some(slot)) => {
                self.counters.add(Counter::BackendHedgeFailed, 1);
                drop(self.leave(slot));
            }
            (Match::NotOurs, _) => self.counters.add(Counter::BackendUnmatched, 1),
            _ => {}
        }
        outcome
    }

    /// Compares a message with the query; a true response is with its sink when this returns.
    fn judge(&self, slot: u16, message: &[u8], half: Half, is_cut: bool) -> Match {
        let flights = self.flights.borrow();
        let Some(flight) = flights.get(slot) else { return Match::NotOurs };
        let mut asked = flight.asked;
        if !dns::question_matches(message, &flight.query, usize::from(asked.question_end)) {
            // Servers may leave the zone out of an answer to UPDATE (RFC 2136 §3.8); its connection vouches for it.
            if !(flight.is_once && dns::has_no_question(message)) {
                return Match::NotOurs;
            }
            asked.question_end = HEADER_OCTETS;
        }
        if half == Half::Datagram && (is_cut || dns::is_truncated(message)) {
            return Match::Truncated(slot);
        }
        if flight.is_spare() && !hedge::is_welcome(message) {
            return Match::Withdrawn;
        }
        match flight.sink.as_ref().map(|sink| sink.response(asked, message)) {
            Some(Ok(())) => Match::Response,
            _ => Match::NotOurs,
        }
    }
}
