//! Responses on their way to one client: framed, in the order in which they became ready (RFC 7766 §7).
//!
//! Before: `backend` has an outcome, or `dns::triage` said respond. After: `session::writer` takes them all.
//! Holds: the number of queries in flight, and the waker of the session.
//! Never: waits, reorders, or grows without bound: [`Inbox::has_room`] stops the reader first.

mod asker;
mod transfers;

use std::{
    cell::{Cell, OnceCell, RefCell},
    convert::Infallible,
    rc::Rc,
    task::Waker,
    time::Instant,
};

use tokio::sync::Notify;
pub(super) use transfers::transfer;

use super::{
    SessionEnd, WorkerShared,
    clients::Row,
    failure::{failure_reply, question_of},
    fair::Waits,
    guest::{Guest, Standing},
    owed::Debt,
    screening::screen_answer,
    shared_answers::Asker as _,
    stamps::Stamps,
    traced,
};
use crate::{
    backend::{Broken, Failure, Sink},
    dns::{self, Asked, Edit, Hop, Reply, framing::append_message},
    ledger::{Counter, Disposal, turn_time},
    moment::Moment,
    policy::Member,
    proxy::Client,
};

/// The reader stops while this many octets of responses are unwritten.
const WAITING_OCTETS_MAX: usize = 128 * 1024;

/// The waiting responses of a session.
pub struct Inbox {
    /// State that all sessions of this worker share.
    pub shared: Rc<WorkerShared>,
    /// The client, for backends that learn it from a PROXY header.
    pub(super) client: Client,
    /// Whether it may ask.
    pub(super) standing: Standing,
    octets: RefCell<Vec<u8>>,
    stamps: Stamps,
    /// Octets that the writer has taken and the client has not.
    unwritten: Cell<usize>,
    debt: Debt,
    /// The worker held too many octets, and most of them for this session.
    is_cut: Cell<bool>,
    pub(super) in_flight: Cell<usize>,
    /// Its client's row in the worker's table.
    pub(super) row: Row,
    /// Its client's tenant.
    pub(super) member: Cell<Member>,
    pub(super) turn: Cell<Waits>,
    /// The next message exceeds its client's rate, and is held until then.
    pub(super) delayed_until: Cell<Option<tokio::time::Instant>>,
    pub(super) number: Cell<u64>,
    pub(super) began: Moment,
    pub(super) is_open: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Notified when a zone transfer may go on, or its client has left. `None`: there is no transfer.
    changes: OnceCell<Rc<Notify>>,
}

impl Inbox {
    pub(super) fn open(shared: Rc<WorkerShared>, mut guest: Guest, began: Instant) -> Rc<Self> {
        let (standing, client) = (Standing::of(&mut guest), guest.client);
        let debt = shared.debts.open(client.source.ip());
        let inbox = Rc::new(Self {
            row: shared.row_of(client.source.ip()),
            member: Cell::new(guest.member),
            turn: Cell::default(),
            delayed_until: Cell::new(None),
            shared,
            client,
            standing,
            octets: RefCell::default(),
            stamps: Stamps::default(),
            unwritten: Cell::new(0),
            debt,
            is_cut: Cell::new(false),
            in_flight: Cell::new(0),
            number: Cell::new(0),
            began: Moment::of(began),
            is_open: Cell::new(true),
            waker: RefCell::default(),
            changes: OnceCell::new(),
        });
        inbox.number.set(inbox.shared.enter(&inbox));
        inbox
    }

    /// The client has left, or soon will: outcomes are only counted from now on. Returns the number of response octets
    /// that no writer has taken.
    pub(super) fn close(&self) -> usize {
        self.is_open.set(false);
        self.waker.replace(None);
        self.tell_transfers();
        let kept = self.octets.take();
        let octets = kept.len();
        self.shared.give_buffer(kept);
        self.stamps.forget(&self.shared.stamp_pool);
        self.debt.close(&self.shared.debts);
        self.shared.leave(self.number.get());
        octets
    }

    pub(super) fn wake_by(&self, waker: &Waker) {
        let mut current = self.waker.borrow_mut();
        if !current.as_ref().is_some_and(|current| current.will_wake(waker)) {
            *current = Some(waker.clone());
        }
    }

    /// Wakes the session.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Whether the transport is encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.client.tls.is_some()
    }

    /// Whether another query may be read. If not, a query in flight or a waiting response wakes the session later.
    pub(super) fn has_room(&self) -> bool {
        let in_flight = self.in_flight.get();
        in_flight < self.shared.limits().in_flight_max
            && self.shared.has_share(self.member.get().tenant, self.row, in_flight)
            && self.waiting() < WAITING_OCTETS_MAX
            && self.debt.has_room(&self.shared, in_flight)
    }

    /// Notes how many octets the writer holds that the client has not taken.
    pub(super) fn note_unwritten(&self, octets: usize) {
        self.unwritten.set(octets);
        self.note_owed();
        self.tell_transfers();
    }

    /// The number of octets that wait for the client has changed.
    fn note_owed(&self) {
        let (waiting, unwritten) = (self.waiting(), self.unwritten.get());
        if self.is_open.get() && !self.debt.is_settled(waiting, unwritten) {
            self.debt.set(&self.shared.debts, waiting);
            self.debt.note_waiting(&self.shared.debts, self.number.get(), unwritten > 0);
            self.shared.relieve();
        }
    }

    /// The worker holds too many octets, and most of them for this session: wakes it to end; nothing more is kept for
    /// it.
    pub(super) fn cut(&self) {
        self.is_cut.set(true);
        self.wake();
        let lost = self.close();
        self.shared.counters.add(Counter::LostOctets, lost as u64);
    }

    /// The reason why the session must end at once.
    pub(super) fn must_end(&self) -> Option<SessionEnd> {
        let (is_denied, is_banned) = (self.standing.is_denied(), self.standing.is_banned());
        let by_word = is_banned.then_some(SessionEnd::Banned).or(is_denied.then_some(SessionEnd::Denied));
        let by_word = by_word.or(self.standing.misuse_end());
        self.is_cut.get().then_some(SessionEnd::Owed).or(by_word)
    }

    fn tell_transfers(&self) {
        self.changes.get().inspect(|changes| changes.notify_waiters());
    }

    /// Octets that the client has not taken.
    pub(super) fn waiting(&self) -> usize {
        self.octets.borrow().len() + self.unwritten.get()
    }

    /// Whether no query is in flight and no response waits.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight.get() == 0 && self.octets.borrow().is_empty()
    }

    /// Takes all waiting responses.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        let mut octets = self.octets.borrow_mut();
        (!octets.is_empty()).then(|| std::mem::take(&mut *octets))
    }

    /// The octets that were taken last are sealed; `is_whole`: the kernel has all of them.
    pub(super) fn note_sent(&self, is_whole: bool) {
        let WorkerShared { counters, stamp_pool, .. } = &*self.shared;
        self.stamps.sent(is_whole, self.is_encrypted(), counters.stages(), stamp_pool);
    }

    /// A read brought this many TLS records.
    pub(super) fn count_records(&self, records: usize) {
        let Some(tls) = self.client.tls else { return };
        let counter = if tls.is_tls13 { Counter::RecordsRead13 } else { Counter::RecordsRead12 };
        self.shared.counters.add(counter, records as u64);
    }

    /// The kernel has all octets that were taken.
    pub(super) fn note_flushed(&self) {
        self.stamps.flushed(self.shared.counters.stages());
    }

    /// This hop's EDNS options for the client.
    fn hop(&self) -> Hop {
        let hop = self.shared.hop();
        Hop { padding: hop.padding && self.is_encrypted(), ..hop }
    }

    /// Queues a response of dotd's own to `message`, which was read in this turn.
    pub(super) fn answer(&self, message: &[u8], reply: &Reply) {
        self.answer_as(message, reply, (Some(turn_time::moment()), Disposal::Responded));
    }

    fn answer_as(&self, message: &[u8], reply: &Reply, measured: (Option<Moment>, Disposal)) {
        let hop = self.hop();
        let write = |out: &mut Vec<u8>| {
            dns::synthesize(message, reply, hop, out);
            Ok::<_, Infallible>(())
        };
        let _ = self.append(reply.rcode.high() != 0, measured, write);
    }

    /// Appends one framed message and counts its rcode, of which the header has only the lower part. `Ok(false)`: it
    /// would be too long.
    fn append<E>(
        &self,
        is_extended: bool,
        (since, disposal): (Option<Moment>, Disposal),
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut octets = self.octets.borrow_mut();
        if octets.capacity() == 0 {
            *octets = self.shared.take_buffer();
        }
        let Some(place) = append_message(&mut octets, write)? else { return Ok(false) };
        let response = octets.get(place).unwrap_or_default();
        self.shared.count_response(response, is_extended);
        self.shared.watch_answer(self.client.source.ip(), false, response, disposal);
        self.tell(|_| traced::response(response, since, disposal));
        self.tap_response(since, response);
        drop(octets);
        self.stamps.note(since, disposal, &self.shared.stamp_pool);
        self.note_owed();
        Ok(true)
    }

    /// Appends one framed message that the ledger does not count as a response.
    fn append_uncounted(&self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Infallible>) {
        let mut octets = self.octets.borrow_mut();
        let Ok(place) = append_message(&mut octets, write);
        place.and_then(|place| octets.get(place)).into_iter().for_each(|more| self.tap_response(None, more));
        drop(octets);
        self.note_owed();
    }

    /// Appends a backend's response, or SERVFAIL if no message can hold it.
    fn append_response(&self, asked: Asked, response: &[u8], disposal: Disposal) -> Result<(), Broken> {
        // dotd's additions make it too long: without options, and then without an OPT, it is what the backend sent.
        let bare = Hop { padding: false, keepalive_100ms: None };
        let plain = Asked { has_opt: false, ..asked };
        let mut edit = Edit::Made;
        for (asked, hop) in [(asked, self.hop()), (asked, bare), (plain, bare)] {
            let write = |out: &mut Vec<u8>| dns::respond(response, asked, hop, out).map(|made| edit = made);
            if self.append(false, (asked.since, disposal), write).map_err(|_| Broken)? {
                self.shared.note_edit(edit);
                return Ok(());
            }
        }
        let (message, reply) = failure_reply(asked, question_of(asked, response), Failure::Full);
        self.answer_as(&message, &reply, (asked.since, Disposal::Failed));
        Ok(())
    }

    /// Appends a response as policy zones change it.
    #[inline]
    fn screened(&self, asked: Asked, response: &[u8], disposal: Disposal) -> Result<(), Broken> {
        match self.shared.is_screened(self.member.get().tenant) {
            false => self.append_response(asked, response, disposal),
            true => self.append_screened(asked, response, disposal),
        }
    }

    #[inline(never)]
    fn append_screened(&self, asked: Asked, response: &[u8], disposal: Disposal) -> Result<(), Broken> {
        let tenant = self.member.get().tenant;
        let expect = || self.shared.session(self.number.get()).map(|inbox| inbox.expect());
        let write = |asked, response: &[u8], _| self.append_response(asked, response, disposal);
        screen_answer(&self.shared, asked, response, (self.client.source.ip(), false, tenant), expect, write)
    }

    /// Ends a query in flight, and wakes the session if the client is still there.
    fn settle(&self) {
        self.end_query();
        self.wake();
    }

    /// Ends a query in flight.
    fn end_query(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.shared.clients.end_queries(self.row, 1);
    }
}

/// After the session has ended in any way, also by a panic, none of its queries counts as in flight.
impl Drop for Inbox {
    fn drop(&mut self) {
        self.shared.clients.end_queries(self.row, self.in_flight.get());
    }
}

impl Sink for Inbox {
    fn client(&self) -> Option<Client> {
        Some(self.client.clone())
    }

    fn response(&self, asked: Asked, response: &[u8]) -> Result<(), Broken> {
        if !self.is_open.get() {
            self.shared.counters.add(Counter::DroppedClientGone, 1);
            self.end_query();
            return Ok(());
        }
        if !self.debt.admits(&self.shared, response.len()) {
            self.shared.counters.add(Counter::NotKept, 1);
            self.refused(Counter::NotKept);
            // Padding would make each refusal half a KiB long.
            let asked = Asked { padding: false, ..asked };
            self.failure(asked, question_of(asked, response), Failure::Full);
            return Ok(());
        }
        self.screened(asked, response, Disposal::Forwarded)?;
        self.settle();
        Ok(())
    }

    fn failure(&self, asked: Asked, query: &[u8], failure: Failure) {
        if !self.is_open.get() {
            self.shared.counters.add(Counter::DroppedClientGone, 1);
            return self.end_query();
        }
        let (message, reply) = failure_reply(asked, query, failure);
        self.answer_as(&message, &reply, (asked.since, Disposal::Failed));
        self.settle();
    }
}
