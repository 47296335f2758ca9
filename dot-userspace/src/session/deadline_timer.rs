//! One timer for all deadlines of a session, moved only when it must ring earlier.
//!
//! Before: `session` knows its next deadline. After: the session is polled again, or ends.
//! Never: touches the timer for a deadline that moved later; it rings, looks, and is set anew.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::SessionEnd;

/// A session's timer.
pub(super) struct DeadlineTimer {
    started: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl DeadlineTimer {
    pub(super) fn start() -> Self {
        let started = Instant::now();
        // Far enough never to ring before the first deadline sets it.
        Self { started, sleep: Box::pin(sleep_until(started + Duration::from_secs(86_400))) }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Rings at this moment too.
    pub(super) fn ring(&mut self, context: &mut Context<'_>, at: Instant) {
        if at < self.sleep.deadline() {
            self.sleep.as_mut().reset(at);
        }
        if self.sleep.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }

    /// Ready with the end when `deadline` has passed; else rings at it.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        now: Instant,
        (at, end): (Instant, SessionEnd),
    ) -> Poll<SessionEnd> {
        if at <= now {
            return Poll::Ready(end);
        }
        if at < self.sleep.deadline() {
            self.sleep.as_mut().reset(at);
        }
        while self.sleep.as_mut().poll(context).is_ready() {
            if at <= Instant::now() {
                return Poll::Ready(end);
            }
            self.sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}
