//! Compares what a backend sent with what it was asked.
//!
//! Before: `udp` or `stream` has a whole message. After: the sink of its query has it, or it is counted as
//! unmatched, with the reason, for that backend.
//! Holds: the rule for what is an answer ([`fit`]), which queries, health checks and zone transfers share.
//! Never: accepts a message whose socket, ID, name, type, class and QR do not match (RFC 5452 §9.1), or whose
//! records are broken; the true answer is still awaited. An error may leave the question out, because a server
//! that refuses to parse a question need not repeat it. Names are compared without case (RFC 4343), and the
//! answer keeps the backend's spelling: a client that varies the case of its names (0x20) sees what came back,
//! and judges itself.

use std::{fmt, rc::Rc};

use super::{
    arrivals,
    flights::{Flight, Half},
    hedge,
    ids::Ids,
    pool::Pool,
    sink::Broken,
    tapped,
    worker_backend::Backend,
};
use crate::{
    dns::{self, HEADER_OCTETS},
    events::answered_by,
    ledger::{Counter, turn_time},
};

/// Octets of a message without a question.
const HEADER_OCTETS_U16: u16 = HEADER_OCTETS as u16;
/// An answer within this part of a query's share of its deadline came soon.
const SOON: u32 = 4;

/// How a message from a backend was classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It is the response; its sink has it.
    Response,
    /// The response to this slot's query, too long for a datagram.
    Truncated(u16),
    /// A second try failed; the first one goes on.
    Withdrawn,
    /// The backend does not support EDNS, and dotd added the OPT to this slot's query.
    WithoutEdns(u16),
    /// It matches no query.
    NotOurs(Unmatched),
}

/// Why a message matches no query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Unmatched {
    /// No query over its socket has this ID.
    Id,
    /// QR is not set, or the opcode differs.
    NotAResponse,
    /// It has no question, and is not an error.
    NoQuestion,
    /// Name, type or class differ.
    OtherQuestion,
    /// Its records do not fit into the message.
    BrokenRecords,
}

impl Unmatched {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Id, Self::NotAResponse, Self::NoQuestion, Self::OtherQuestion, Self::BrokenRecords];
}

impl fmt::Display for Unmatched {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        form.write_str(match self {
            Self::Id => "no query has its ID (late, or forged)",
            Self::NotAResponse => "no response to a query",
            Self::NoQuestion => "no question, and no error",
            Self::OtherQuestion => "another question",
            Self::BrokenRecords => "broken records",
        })
    }
}

/// How a message with the right ID answers a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It repeats the question.
    Whole,
    /// It is an error without the question.
    BareError,
}

/// Whether `message`, which has the ID of `query`, answers it. The question of `query` ends at `question_end`.
///
/// # Errors
/// Why it does not answer the query.
pub fn fit(message: &[u8], query: &[u8], question_end: usize) -> Result<Fit, Unmatched> {
    if dns::question_matches(message, query, question_end) {
        return Ok(Fit::Whole);
    }
    if dns::is_bare_error(message, query) {
        return Ok(Fit::BareError);
    }
    let opcode = query.get(2).map_or(0, |flags| flags & 0x78);
    Err(match message.get(2) {
        Some(flags) if flags & 0xf8 == 0x80 | opcode && dns::has_no_question(message) => {
            Unmatched::NoQuestion
        }
        Some(flags) if flags & 0xf8 == 0x80 | opcode => Unmatched::OtherQuestion,
        _ => Unmatched::NotAResponse,
    })
}

impl Pool {
    /// Gives `message`, which came from `backend` over `ids`, to the sink of its query. `is_cut`: it was longer
    /// than our buffer. TC=1 matters for a datagram only: over a connection it is the response.
    pub fn deliver(
        &self,
        backend: &Backend,
        ids: &Rc<Ids>,
        message: &[u8],
        half: Half,
        is_cut: bool,
    ) -> Match {
        let id = message.first_chunk::<2>().map(|octets| u16::from_be_bytes(*octets));
        let slot = id.and_then(|id| ids.slot_of(id));
        let unknown = Match::NotOurs(Unmatched::Id);
        let outcome = slot.map_or(unknown, |slot| self.judge((backend, ids), slot, message, (half, is_cut)));
        match (outcome, slot) {
            (Match::Response, Some(slot)) => {
                self.answered(slot);
            }
            (Match::Withdrawn, Some(slot)) => {
                self.counters.add(Counter::BackendHedgeFailed, 1);
                self.withdraw(slot);
            }
            (Match::WithoutEdns(slot), _) => self.ask_without_edns(backend, slot),
            (Match::NotOurs(why), _) => {
                self.counters.add(Counter::BackendUnmatched, 1);
                backend.retries.was_needless();
                backend.config.health.note_unmatched(why);
            }
            _ => {}
        }
        outcome
    }

    /// Compares a message with the query. If it is the true response, its sink has it when this returns.
    fn judge(
        &self,
        (backend, ids): (&Backend, &Rc<Ids>),
        slot: u16,
        message: &[u8],
        (half, is_cut): (Half, bool),
    ) -> Match {
        let flights = self.flights.borrow();
        let Some(flight) = flights.get(slot) else { return Match::NotOurs(Unmatched::Id) };
        let mut asked = flight.asked;
        let question_end = usize::from(asked.question_end);
        let mut whole = self.whole.borrow_mut();
        let received = message;
        let message = match fit(message, &flight.query, question_end) {
            Ok(Fit::Whole) => message,
            // Servers may leave the zone out of an answer to UPDATE (RFC 2136 §3.8); the connection vouches for
            // the answer.
            _ if flight.is_once && dns::has_no_question(message) => {
                asked.question_end = HEADER_OCTETS_U16;
                message
            }
            Ok(Fit::BareError) => {
                let end = dns::with_question(message, &flight.query, question_end, &mut whole);
                asked.question_end = u16::try_from(end).unwrap_or(HEADER_OCTETS_U16);
                whole.as_slice()
            }
            Err(why) => return Match::NotOurs(why),
        };
        tapped::response(&backend.config, flight, ids, half, received);
        if half == Half::Datagram && (is_cut || dns::is_truncated(message)) {
            return Match::Truncated(slot);
        }
        let has_our_opt = asked.subnet_is_ours && !asked.has_opt;
        if has_our_opt && dns::refuses_edns(message) && !dns::has_opt(message) {
            return Match::WithoutEdns(slot);
        }
        if flight.is_spare() && !hedge::is_welcome(message) {
            note_answered(backend, flight, half, message);
            return Match::Withdrawn;
        }
        let tries = || flight.tries();
        let pass_on = || self.take_response(flight, asked, message);
        match answered_by(&backend.config.name, tries, pass_on) {
            Ok(()) => {
                arrivals::note(note_answered(backend, flight, half, message));
                if flight.history.was_resent {
                    note_resent(backend, flight);
                }
                if flight.history.is_apart {
                    backend.refusals.answered(flight);
                }
                Match::Response
            }
            Err(Broken) => Match::NotOurs(Unmatched::BrokenRecords),
        }
    }

    /// The client sent no OPT, and must not get an error because dotd added one: asks again without it.
    fn ask_without_edns(&self, backend: &Backend, slot: u16) {
        let mut flights = self.flights.borrow_mut();
        let Some(flight) = flights.get_mut(slot) else { return };
        flight.take_back();
        if let Some(opt_rdata) = flight.opt_rdata.take() {
            dns::take_opt_off(&mut flight.query, opt_rdata);
        }
        flight.asked.subnet_is_ours = false;
        let half = flight.half;
        drop(flights);
        self.counters.add(Counter::BackendWithoutEdns, 1);
        backend.enqueue(slot, half);
    }
}

/// Counts an answer of a backend; returns how many nanoseconds it took.
fn note_answered(backend: &Backend, flight: &Flight, half: Half, message: &[u8]) -> u64 {
    let took = flight.sent_at.map_or(0, |sent| turn_time::moment().nanoseconds_since(sent));
    let rcode = message.get(3).copied().unwrap_or_default();
    backend.line.answered(rcode, half == Half::Datagram, took);
    took
}

/// The query of `flight`, which was sent twice, is answered now. If that is soon after its second try, the first one was
/// lost.
fn note_resent(backend: &Backend, flight: &Flight) {
    let patience = backend.patience();
    // Its share of the deadline started again with the second try.
    let soon = flight.patience_until.checked_sub(patience - patience / SOON);
    if soon.is_some_and(|soon| turn_time::now() < soon) {
        backend.retries.was_needed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each unmatched message has its reason, and an error without a question is an answer. Method: one
    /// message of each kind to a query for `. A`. Covers: C-230, C-232
    #[test]
    fn each_message_has_its_reason() {
        let query = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
        let changed = |changes: &[(usize, u8)]| {
            let mut message = query;
            message[2] = 0x81;
            changes.iter().for_each(|(at, octet)| message[*at] = *octet);
            fit(&message, &query, query.len())
        };
        assert_eq!(changed(&[]), Ok(Fit::Whole));
        assert_eq!(changed(&[(13, b'A')]), Ok(Fit::Whole), "case makes no other name");
        assert_eq!(changed(&[(13, b'b')]), Err(Unmatched::OtherQuestion));
        assert_eq!(changed(&[(16, 28)]), Err(Unmatched::OtherQuestion));
        assert_eq!(changed(&[(2, 0x01)]), Err(Unmatched::NotAResponse));
        assert_eq!(changed(&[(2, 0x91)]), Err(Unmatched::NotAResponse));
        let bare = |rcode| fit(&[0, 7, 0x81, rcode, 0, 0, 0, 0, 0, 0, 0, 0], &query, query.len());
        assert_eq!([bare(5), bare(1)], [Ok(Fit::BareError); 2]);
        assert_eq!([bare(0), bare(3)], [Err(Unmatched::NoQuestion); 2]);
        for (number, reason) in Unmatched::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
        }
    }
}
