//! One timer for all deadlines of a session. It is reset only for an earlier deadline.
//!
//! Before: `session` knows its next deadline. After: the session is polled again, acts, or ends.
//! Never: resets the timer when the deadline moves later; it fires, and is then set again.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::SessionEnd;

/// What is due at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The idle link can free its memory.
    Rest,
    /// The session ends.
    End(SessionEnd),
}

/// A session's timer.
pub(super) struct DeadlineTimer {
    started: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl DeadlineTimer {
    /// The timer of a session that began at `started`.
    pub(super) fn since(started: Instant) -> Self {
        // So far away that it never fires before the first deadline sets it.
        Self { started, sleep: Box::pin(sleep_until(Instant::now() + Duration::from_secs(86_400))) }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Fires at this moment too.
    pub(super) fn ring(&mut self, context: &mut Context<'_>, at: Instant) {
        if at < self.sleep.deadline() {
            self.sleep.as_mut().reset(at);
        }
        if self.sleep.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }

    /// Ready with what is due if the deadline has passed; otherwise the timer fires then.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        now: Instant,
        (at, due): (Instant, Due),
    ) -> Poll<Due> {
        if at <= now {
            return Poll::Ready(due);
        }
        if at < self.sleep.deadline() {
            self.sleep.as_mut().reset(at);
        }
        while self.sleep.as_mut().poll(context).is_ready() {
            if at <= Instant::now() {
                return Poll::Ready(due);
            }
            self.sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}
