//! Module `session`: one DoT connection after its handshake, from its first message to its end; and DNS in clear.
//!
//! Before: `tls::handshake` gave a decrypted stream. After: `worker::accept` counts how it ended.
//! The path of each turn: read → `dns::framing` → `dns::triage` → [`SharedAnswers`] → `backend` … [`Inbox`] → writer.
//! [`serve`] walks it for a stream, `do53` for datagrams; nothing else does. Steps 6 to 9 of 9.
//! Never: holds a buffer while idle, answers in cleartext on a port for TLS, or lets one client's slowness delay
//! another.

mod asker;
mod banned;
mod carried;
mod clients;
mod closing;
mod deadline_timer;
mod discovery;
mod disposition;
mod do53;
mod end;
mod failure;
mod fair;
mod fate_guard;
mod freed;
mod guest;
mod idle_probe;
mod inbox;
mod keyed;
mod limits;
mod linger;
mod link;
mod misused;
mod notified;
mod outq;
mod owed;
mod pace;
mod pressure;
mod rates;
mod reader;
mod report;
mod screened_alias;
mod screening;
mod shared_answers;
mod stamps;
mod tenancy;
mod traced;
mod turn;
mod turns;
mod worker_shared;
mod writer;

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

pub use carried::{Carried, Departed, Moving, Outcome, age, long_ago, moment};
use deadline_timer::{DeadlineTimer, Due};
pub use do53::{Plain, serve_datagrams};
pub use end::{Ended, SessionEnd};
pub use guest::Guest;
pub use idle_probe::{IdleProbe, Wanted};
pub use inbox::Inbox;
pub use limits::Limits;
pub use linger::EVICTED_LINGERING_MAX;
use linger::{Left, leave};
pub use link::Link;
pub use misused::MisuseRow;
pub use outq::unacknowledged;
pub use owed::OwedLimits;
pub use pressure::Fill;
pub use rates::{QueryRate, Rates};
use reader::Reader;
pub use report::SessionReport;
pub use shared_answers::SharedAnswers;
pub use tenancy::Tenancy;
pub use turns::note_idle;
pub use worker_shared::WorkerShared;
use writer::Writer;

use crate::{
    events::What,
    ledger::{Counter, turn_time},
};

/// A session that has been idle for this long frees the memory of its keys, some 1.3 KiB, which its next message makes
/// again in some microseconds. 5 s: a client that asks more often never pays, and most of an idle session's time is
/// behind it.
const REST_AFTER: Duration = Duration::from_secs(5);

/// Serves one session, from its start or from the state that another process handed over, and calls `done` with its
/// outcome. `probe` shows whether the session is idle. The future holds the session only once: there are as many
/// futures as clients, so the size matters.
///
/// # Cancel safety
/// Dropping the future cuts the connection, and drops `done`; queries at the backends end by themselves and are
/// counted.
pub fn serve<L: Link>(
    link: L,
    shared: Rc<WorkerShared>,
    guest: Guest,
    probe: Rc<IdleProbe>,
    carried: Carried,
    done: impl FnOnce(Outcome),
) -> impl Future<Output = ()> {
    let began = carried.began;
    let mut session = Session {
        link,
        timer: DeadlineTimer::since(began),
        reader: Reader::of(carried),
        writer: Writer::default(),
        closing: None,
        stopped_us: 0,
        last_busy: None,
        inbox: Inbox::open(Rc::clone(&shared), guest, began.into_std()),
        shared,
        probe,
    };
    session.probe.take(&session.inbox);
    session.inbox.tell(|_| What::Session);
    async move {
        let mut end = poll_fn(|context| session.poll_turn(context)).await;
        if end == SessionEnd::Moved {
            match session.depart() {
                Some(departed) => return done(Outcome::Moved(departed)),
                None => end = SessionEnd::Drain,
            }
        }
        let kept = session.inbox.close();
        // Boxed: a session needs this memory only at its end.
        let left = match end.is_orderly() {
            true => Box::pin(leave(&mut session.link, &session.inbox.shared, &session.probe, end)).await,
            false => Left::Incomplete,
        };
        if left == Left::Incomplete {
            let lost = kept + session.link.unsent() + session.link.unacknowledged();
            session.inbox.shared.counters.add(Counter::LostOctets, lost as u64);
            session.link.reset();
        }
        done(Outcome::Ended(session.ended(end)));
    }
}

/// A session between two turns.
struct Session<L> {
    link: L,
    reader: Reader,
    writer: Writer,
    timer: DeadlineTimer,
    /// The reason why no more queries are read; the session ends when the last response is written.
    closing: Option<SessionEnd>,
    /// When it stopped reading in order to leave, in microseconds after [`Moving::Now`].
    stopped_us: u32,
    /// When a query was last in flight, or octets were last being written.
    last_busy: Option<Instant>,
    inbox: Rc<Inbox>,
    shared: Rc<WorkerShared>,
    probe: Rc<IdleProbe>,
}

/// Runs also after a panic or with the end of the worker: `WorkerShared` forgets the session.
impl<L> Drop for Session<L> {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

impl<L: Link> Session<L> {
    /// How the session ended, and its counts, if the log needs them.
    fn ended(&self, end: SessionEnd) -> Ended {
        let octets_taken = if self.shared.events.logs_connections() { self.link.taken() } else { 0 };
        Ended {
            client: self.inbox.client.source,
            listener: self.inbox.standing.origin().0,
            end,
            session: self.inbox.number.get(),
            queries: self.reader.queries(),
            octets_taken,
        }
    }

    /// Does everything that is possible now: reads, judges, writes, checks the time.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<SessionEnd> {
        if let Some(end) = self.inbox.must_end() {
            return Poll::Ready(end);
        }
        self.inbox.wake_by(context.waker());
        if self.waits_to_move() {
            self.closing = None;
        }
        self.reader.begin_turn(self.inbox.begin_turn());
        let now = Instant::now();
        turn_time::begin(now);
        if !self.is_quiet() {
            self.last_busy = Some(now);
        }
        loop {
            if self.closing.is_none() {
                match self.reader.read(&mut self.link, context, &self.inbox, now) {
                    Ok(()) => {}
                    Err(end) if end.is_abrupt() => return Poll::Ready(end),
                    Err(end) => self.closing = Some(end),
                }
            }
            match self.writer.write(&mut self.link, context, &self.inbox, now) {
                // The client took waiting octets, so messages that the reader held can go on. Nothing else would wake
                // the session.
                Ok(()) if self.closing.is_none() && self.reader.may_go_on(&self.inbox) => {}
                Ok(()) => break,
                Err(end) => return Poll::Ready(end),
            }
        }
        if let Some(until) = self.inbox.delayed_until() {
            self.timer.ring(context, until);
        }
        self.inbox.end_turn(self.reader.spent());
        if self.closing.is_none() && self.reader.is_over() {
            self.inbox.wait_for_turn();
        }
        let must_close =
            || self.shared.must_close(self.inbox.is_encrypted()).or_else(|| self.probe.must_leave());
        let was_read = self.closing.is_none();
        self.closing = self.closing.or_else(must_close).or_else(|| self.has_lasted(now));
        if was_read {
            self.note_stop(now);
        }
        let end = self.poll_end(context, now);
        self.probe.note(self.idle_since());
        end
    }

    /// Ready when the session is over: it is closing and everything is written, or a deadline has passed.
    fn poll_end(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<SessionEnd> {
        if self.may_move() {
            return Poll::Ready(SessionEnd::Moved);
        }
        loop {
            if let Some(end) = self.closing.filter(|_| self.is_quiet()) {
                return Poll::Ready(end);
            }
            // Without a deadline there are queries in flight, and the backends' own deadlines wake the session.
            let Some(deadline) = self.deadline() else { return Poll::Pending };
            match self.timer.poll(context, now, deadline) {
                Poll::Ready(Due::Rest) => self.rest(),
                Poll::Ready(Due::End(SessionEnd::SlowReader))
                    if self.writer.is_patient(&self.link, &self.inbox) => {}
                // No more queries are read; those in flight are still answered.
                Poll::Ready(Due::End(end @ (SessionEnd::Duration | SessionEnd::MessageTimeout))) => {
                    self.closing = Some(end);
                }
                Poll::Ready(Due::End(end)) => return Poll::Ready(end),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn rest(&mut self) {
        self.link.rest();
        self.shared.counters.add(Counter::Rested, 1);
        self.shared.freed.note();
    }

    /// The end, if `duration_max` has passed.
    fn has_lasted(&self, now: Instant) -> Option<SessionEnd> {
        (now >= self.timer.started() + self.shared.limits().duration_max).then_some(SessionEnd::Duration)
    }

    /// Whether no query is in flight and no octet waits to be written.
    fn is_quiet(&self) -> bool {
        self.inbox.is_quiet() && self.link.unsent() == 0
    }

    /// Since when no query has been in flight and no octet has waited.
    fn idle_since(&self) -> Option<Instant> {
        let last = self.reader.last_message().max(self.last_busy);
        self.is_quiet().then(|| last.unwrap_or(self.timer.started()))
    }

    /// The next moment at which the session must act by itself, and what is due then. While a message is incomplete the
    /// session does not rest: each of its records would make a key again.
    fn deadline(&self) -> Option<(Instant, Due)> {
        let limits = self.shared.limits();
        let is_open = self.closing.is_none();
        let over = is_open.then_some((self.timer.started() + limits.duration_max, SessionEnd::Duration));
        let message = self.reader.message_since().filter(|_| is_open);
        let message = message.map(|since| (since + limits.message_timeout, SessionEnd::MessageTimeout));
        let write = self.writer.patience_ends().map(|at| (at, SessionEnd::SlowReader));
        let idle_since = self.idle_since();
        let idle = idle_since.map(|since| (since + self.shared.idle_timeout(), SessionEnd::Idle));
        let end = [over, message, write, idle].into_iter().flatten().min_by_key(|(at, _)| *at);
        let end = end.map(|(at, end)| (at, Due::End(end)));
        let may_rest = self.link.may_rest() && self.reader.message_since().is_none();
        let rest = idle_since.filter(|_| may_rest).map(|since| (since + REST_AFTER, Due::Rest));
        [rest, end].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
pub mod scripted;
#[cfg(test)]
mod tests;
