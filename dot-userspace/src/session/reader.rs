//! The reading half of a session: octets in, messages cut, triaged and sent on their way.
//!
//! Before: the decrypted stream. After: each message is at a backend, answered, or dropped, and counted.
//! Holds: the octets of one message that is not whole yet; nothing while idle.
//! Never: reads while the session has no room for another query (backpressure, RFC 7766 §6.2.1.1), or goes on when its
//! [`Turn`] is over.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::time::Instant;

use super::{
    Inbox, Link, SessionEnd, end::end_of_reading, fate_guard::FateGuard, inbox::transfer, rates::Pace,
    shared_answers::ask, turn::Turn,
};
use crate::{
    dns::{Disposition, DropReason, Ede, Rcode, Reply, framing::cut_message, triage},
    ledger::Counter,
};

/// Messages that are no queries by which a session may be ahead of its queries. 256: as many as may be in flight, so that a
/// client with one odd habit goes on, and who sends nothing else is heard no longer than that.
const MALFORMED_MAX: u16 = 256;

/// What the reader remembers between turns.
#[derive(Default)]
pub(super) struct Reader {
    /// The front of a message that is not whole, or messages that wait for room.
    pending: BytesMut,
    is_held: bool,
    turn: Turn,
    message_since: Option<Instant>,
    last_message: Option<Instant>,
    queries: u32,
    /// Messages that were no queries, less the queries since.
    malformed: u16,
}

impl Reader {
    /// Since when a message has been incomplete.
    pub(super) fn message_since(&self) -> Option<Instant> {
        self.message_since
    }

    /// Messages so far.
    pub(super) fn queries(&self) -> u32 {
        self.queries
    }

    /// When the last whole message came; only that keeps a session from being idle (RFC 7766 §6.2.3).
    pub(super) fn last_message(&self) -> Option<Instant> {
        self.last_message
    }

    /// Whole messages may have waited for room, and there is some.
    pub(super) fn may_go_on(&self, inbox: &Inbox) -> bool {
        self.is_held && inbox.delayed_until().is_none() && !self.is_over() && inbox.has_room()
    }

    /// Others have been heard since the last turn; this one may use so many units.
    pub(super) fn begin_turn(&mut self, units: u32) {
        self.turn = Turn::of(units);
    }

    /// Units that this turn has used.
    pub(super) fn spent(&self) -> u32 {
        self.turn.spent()
    }

    /// This turn has taken all it may: others come first.
    pub(super) fn is_over(&self) -> bool {
        self.turn.is_over()
    }

    /// Reads and handles what is there, until the stream or the room for queries is exhausted.
    ///
    /// # Errors
    /// How the session ends; responses still owed are for the caller to wait for.
    pub(super) fn read<L: Link>(
        &mut self,
        link: &mut L,
        context: &mut Context<'_>,
        inbox: &Rc<Inbox>,
        now: Instant,
    ) -> Result<(), SessionEnd> {
        if self.is_held {
            let mut pending = std::mem::take(&mut self.pending);
            let taken = self.take_messages(&pending, inbox, now)?;
            pending.advance(taken);
            self.keep(pending, now);
        }
        while !self.is_held && !self.is_over() {
            let mut scratch = inbox.shared.scratch.borrow_mut();
            match link.poll_read(context, &mut scratch) {
                Poll::Pending => break,
                Poll::Ready(Err(end)) => return Err(end_of_reading(end)),
                Poll::Ready(Ok(read)) => {
                    self.turn.note_read(&read);
                    let octets = scratch.get(read.plaintext).unwrap_or_default();
                    if !octets.is_empty() {
                        self.take_octets(octets, inbox, now)?;
                    }
                }
            }
        }
        // A record without a message, a key update for one, is no half message once it is whole; and while we read
        // nothing, for want of room, the client is late with nothing.
        let is_partial = !self.is_held && (link.is_mid_record() || !self.pending.is_empty());
        self.message_since = is_partial.then(|| self.message_since.unwrap_or(now));
        Ok(())
    }

    /// Handles `octets`, which follow whatever is pending.
    fn take_octets(&mut self, octets: &[u8], inbox: &Rc<Inbox>, now: Instant) -> Result<(), SessionEnd> {
        if self.pending.is_empty() {
            let taken = self.take_messages(octets, inbox, now)?;
            let rest = octets.get(taken..).unwrap_or_default();
            let pending = if rest.is_empty() { BytesMut::new() } else { BytesMut::from(rest) };
            self.keep(pending, now);
        } else {
            let mut pending = std::mem::take(&mut self.pending);
            pending.extend_from_slice(octets);
            let taken = self.take_messages(&pending, inbox, now)?;
            pending.advance(taken);
            self.keep(pending, now);
        }
        Ok(())
    }

    /// Keeps what is left, or nothing at all: an idle session holds no buffer.
    fn keep(&mut self, pending: BytesMut, now: Instant) {
        let is_partial = !pending.is_empty() && !self.is_held;
        self.message_since = is_partial.then(|| self.message_since.unwrap_or(now));
        self.pending = if pending.is_empty() { BytesMut::new() } else { pending };
    }

    /// Handles every whole message in front of `octets` while there is room, and the turn lasts; returns the octets used.
    fn take_messages(&mut self, octets: &[u8], inbox: &Rc<Inbox>, now: Instant) -> Result<usize, SessionEnd> {
        let mut taken = 0;
        self.is_held = false;
        while let Some(rest) = octets.get(taken..).filter(|rest| !rest.is_empty()) {
            if self.turn.has_no_message() || !inbox.has_room() {
                self.is_held = true;
                break;
            }
            let Some(cut) = cut_message(rest).map_err(|_| SessionEnd::Framing)? else { break };
            let pace = inbox.pace(now);
            if matches!(pace, Pace::At(_)) {
                self.is_held = true;
                break;
            }
            self.turn.note_message();
            self.last_message = Some(now);
            self.message_since = None;
            self.take_message(cut.message, inbox, pace == Pace::Over)?;
            taken += cut.octets;
        }
        Ok(taken)
    }

    /// One message: to a backend, answered, or dropped. Counted once, here. `is_over`: its client is over its rate, and hears
    /// REFUSED.
    fn take_message(&mut self, message: &[u8], inbox: &Rc<Inbox>, is_over: bool) -> Result<(), SessionEnd> {
        let counters = &inbox.shared.counters;
        let _fate = FateGuard::of(counters);
        counters.add(Counter::ReceivedPlain, u64::from(!inbox.is_encrypted()));
        self.queries = self.queries.saturating_add(1);
        let disposition = triage(message, inbox.shared.limits().allowed);
        self.malformed = match disposition.is_malformed() {
            true => self.malformed.saturating_add(1),
            false => self.malformed.saturating_sub(1),
        };
        match disposition {
            Disposition::Forward(query) | Disposition::Transfer(query) if is_over => {
                inbox.answer(message, &Reply::to(&query, Rcode::REFUSED, Some(Ede::OVER_RATE)));
                counters.add(Counter::Responded, 1);
                counters.add(Counter::QueriesRefused, 1);
                inbox.refused(Counter::QueriesRefused);
            }
            Disposition::Forward(query) | Disposition::Transfer(query) if inbox.standing.is_refused() => {
                inbox.answer(message, &Reply::to(&query, Rcode::REFUSED, Some(Ede::NOT_SERVED)));
                counters.add(Counter::Responded, 1);
                counters.add(Counter::AccessRefused, 1);
                inbox.standing.reason().into_iter().for_each(|reason| inbox.refused(reason));
            }
            Disposition::Forward(query) => ask(&inbox.shared, message, &query, inbox),
            Disposition::Transfer(query) => transfer(message, &query, inbox),
            Disposition::Respond(reply) => {
                inbox.answer(message, &reply);
                counters.add(Counter::Responded, 1);
            }
            Disposition::Drop(reason) => counters.add(drop_counter(reason), 1),
            Disposition::Close(reason) => {
                counters.add(drop_counter(reason), 1);
                return Err(SessionEnd::Framing);
            }
        }
        if self.malformed >= MALFORMED_MAX {
            return Err(SessionEnd::Malformed);
        }
        if u64::from(self.queries) >= inbox.shared.limits().queries_max {
            Err(SessionEnd::Queries)
        } else {
            Ok(())
        }
    }
}

pub(super) fn drop_counter(reason: DropReason) -> Counter {
    match reason {
        DropReason::IsResponse => Counter::DroppedResponse,
        DropReason::Short => Counter::DroppedShort,
    }
}
