//! The reading half of a session: reads octets, cuts messages, judges them and passes them on.
//!
//! Before: the decrypted stream. After: each message is at a backend, answered, or dropped, and counted.
//! Holds: the octets of one incomplete message; nothing while idle.
//! Never: reads while the session has no room for another query (backpressure, RFC 7766 §6.2.1.1), or goes on when its
//! [`Turn`] is over.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use tokio::time::Instant;

use super::{
    Carried, Inbox, Link, SessionEnd,
    discovery::describe,
    disposition::{Done, Recipient, Refusal, act_on},
    end::end_of_reading,
    fate_guard::FateGuard,
    inbox::transfer,
    misused::Misused,
    notified::notified,
    rates::Pace,
    screening::ask,
    traced,
    turn::Turn,
};
use crate::{
    dns::{self, Query, Reply, carry::Carry, framing::cut_message, triage},
    ledger::Counter,
};

/// A session may send this many more invalid messages than queries. 256: as many as may be in flight, so a client with
/// one odd habit goes on, and one that sends nothing else ends.
const MALFORMED_MAX: u16 = 256;

/// The reader's state between turns.
pub(super) struct Reader {
    /// The beginning of an incomplete message, or messages that wait for room.
    pending: Carry,
    is_held: bool,
    turn: Turn,
    message_since: Option<Instant>,
    last_message: Option<Instant>,
    queries: u32,
    /// Invalid messages, less the queries since.
    malformed: u16,
}

impl Reader {
    /// The reader of a new session, or of one that another process has read so far.
    pub(super) fn of(carried: Carried) -> Self {
        let Carried { idle_since, message_since, queries, malformed, pending, .. } = carried;
        // Whole messages that waited for room in the other process are pending here; there may be room now.
        let is_held = !pending.is_empty();
        let last_message = idle_since;
        let pending = Carry::from(pending);
        Self { pending, is_held, turn: Turn::default(), message_since, last_message, queries, malformed }
    }

    /// Octets of messages that are not handled yet.
    pub(super) fn pending(&self) -> &[u8] {
        self.pending.as_ref()
    }

    /// Invalid messages, less the queries since.
    pub(super) fn malformed(&self) -> u16 {
        self.malformed
    }

    /// Since when a message has been incomplete.
    pub(super) fn message_since(&self) -> Option<Instant> {
        self.message_since
    }

    /// Messages so far.
    pub(super) fn queries(&self) -> u32 {
        self.queries
    }

    /// When the last whole message came; only whole messages keep a session from being idle (RFC 7766 §6.2.3).
    pub(super) fn last_message(&self) -> Option<Instant> {
        self.last_message
    }

    /// Whether whole messages may have waited for room, and there is room now.
    pub(super) fn may_go_on(&self, inbox: &Inbox) -> bool {
        self.is_held && inbox.delayed_until().is_none() && !self.is_over() && inbox.has_room()
    }

    /// Other sessions have run since the last turn; this one may use `units`.
    pub(super) fn begin_turn(&mut self, units: u32) {
        self.turn = Turn::of(units);
    }

    /// Units that this turn has used.
    pub(super) fn spent(&self) -> u32 {
        self.turn.spent()
    }

    /// Whether this turn has used all its units, so that others come first.
    pub(super) fn is_over(&self) -> bool {
        self.turn.is_over()
    }

    /// Reads and handles messages, until the stream or the room for queries is exhausted.
    ///
    /// # Errors
    /// How the session ends; the caller waits for outstanding responses.
    pub(super) fn read<L: Link>(
        &mut self,
        link: &mut L,
        context: &mut Context<'_>,
        inbox: &Rc<Inbox>,
        now: Instant,
    ) -> Result<(), SessionEnd> {
        if self.is_held {
            self.take_octets(&[], inbox, now)?;
        }
        while !self.is_held && !self.is_over() {
            let mut scratch = inbox.shared.scratch.borrow_mut();
            match link.poll_read(context, &mut scratch) {
                Poll::Pending => break,
                Poll::Ready(Err(end)) => return Err(end_of_reading(end)),
                Poll::Ready(Ok(read)) => {
                    self.turn.note_read(&read);
                    inbox.count_records(read.records);
                    let octets = scratch.get(read.plaintext).unwrap_or_default();
                    if !octets.is_empty() {
                        self.take_octets(octets, inbox, now)?;
                    }
                }
            }
        }
        // A record without a message, such as a key update, is no incomplete message once it is whole. And while dotd
        // reads nothing, for lack of room, the client is not late.
        let is_partial = !self.is_held && (link.is_mid_record() || !self.pending.is_empty());
        self.message_since = is_partial.then(|| self.message_since.unwrap_or(now));
        Ok(())
    }

    /// Handles `octets`, which follow the pending ones.
    fn take_octets(&mut self, octets: &[u8], inbox: &Rc<Inbox>, now: Instant) -> Result<(), SessionEnd> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.cut_with(octets, |octets| self.take_messages(octets, inbox, now))?;
        let is_partial = !pending.is_empty() && !self.is_held;
        self.message_since = is_partial.then(|| self.message_since.unwrap_or(now));
        // An idle session holds no buffer.
        self.pending = pending.trimmed();
        Ok(())
    }

    /// Handles each whole message in `octets` while there is room and the turn lasts. Returns the number of octets
    /// used.
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

    /// Handles one message: to a backend, answered, or dropped. Counted once, here. `is_over`: its client exceeds its
    /// rate, and the answer is REFUSED.
    fn take_message(&mut self, message: &[u8], inbox: &Rc<Inbox>, is_over: bool) -> Result<(), SessionEnd> {
        let counters = &inbox.shared.counters;
        let _fate = FateGuard::of(counters);
        counters.add(Counter::ReceivedPlain, u64::from(!inbox.is_encrypted()));
        self.queries = self.queries.saturating_add(1);
        inbox.shared.events.heavy.add_query(inbox.client.source.ip(), message, dns::asked_name);
        inbox.tell(|names| traced::query(message, names));
        let disposition = triage(message, inbox.shared.limits().allowed);
        inbox.tap_query(&disposition, message);
        self.malformed = match disposition.is_malformed() {
            true => self.malformed.saturating_add(1),
            false => self.malformed.saturating_sub(1),
        };
        let tell = |what, refused| inbox.tell_misuse(what, refused);
        let misuse = inbox.shared.judge_message(inbox.client.source.ip(), false, tell);
        if let Some(Misused { end: Some(end), .. }) = misuse {
            counters.add(Counter::DroppedMisuse, 1);
            return Err(end);
        }
        let by_misuse = misuse.and_then(|misuse| misuse.refusal);
        let by_tenant = inbox.shared.judge_member(inbox.member.get());
        let refusal = match is_over {
            true => Some(Refusal::RATE),
            false => inbox.standing.is_refused().then_some(Refusal::ACCESS).or(by_misuse).or(by_tenant),
        };
        match act_on(disposition, message, refusal, inbox, counters) {
            Done::Handled => {}
            Done::Refused => {
                // What is misuse has been told.
                let reason = if is_over { Some(Counter::QueriesRefused) } else { inbox.standing.reason() };
                let reason = reason.or(by_tenant.map(|refusal| refusal.counter));
                reason.into_iter().for_each(|reason| inbox.refused(reason));
            }
            Done::Closed => return Err(SessionEnd::Framing),
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

impl Recipient for &Rc<Inbox> {
    fn answer(&self, message: &[u8], reply: &Reply) {
        Inbox::answer(self, message, reply);
    }

    fn forward(self, message: &[u8], query: &Query) {
        ask(&self.shared, message, query, self);
    }

    fn describe(self, message: &[u8], query: &Query) {
        describe(&self.shared, message, query, self);
    }

    fn notify(self, message: &[u8], query: &Query) {
        notified(&self.shared, message, query, self);
    }

    fn transfer(self, message: &[u8], query: &Query) {
        transfer(message, query, self);
    }
}
