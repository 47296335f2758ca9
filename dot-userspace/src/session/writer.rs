//! The writing half of a session: all waiting responses in as few records and one `write` as fit.
//!
//! Before: [`Inbox`] holds framed responses. After: they are with the kernel. Step 9 of 9.
//! Holds: one buffer while octets are on their way, none else.
//! Never: takes more from the inbox while the client does not read (bounded output).

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{io::AsyncWrite, time::Instant};

use super::{Inbox, SessionEnd};

/// What the writer remembers between turns.
#[derive(Default)]
pub(super) struct Writer {
    octets: Vec<u8>,
    written: usize,
    must_flush: bool,
    blocked_since: Option<Instant>,
}

impl Writer {
    /// Since when the client has taken nothing.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    /// Nothing is on its way.
    pub(super) fn is_quiet(&self) -> bool {
        self.octets.is_empty() && !self.must_flush
    }

    /// Writes until nothing waits or the client takes no more. `Ok(true)`: something was written.
    ///
    /// # Errors
    /// [`SessionEnd::Transport`]: the client is gone.
    pub(super) fn write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        inbox: &Inbox,
        now: Instant,
    ) -> Result<bool, SessionEnd> {
        let mut has_written = false;
        while self.refill(inbox) {
            let rest = self.octets.get(self.written..).unwrap_or_default();
            match Pin::new(&mut *stream).poll_write(context, rest) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(SessionEnd::Transport),
                Poll::Ready(Ok(octets)) => {
                    self.written += octets;
                    inbox.note_unwritten(self.octets.len().saturating_sub(self.written));
                    self.must_flush = true;
                    self.blocked_since = None;
                    has_written = true;
                }
                Poll::Pending => {
                    self.blocked_since.get_or_insert(now);
                    return Ok(has_written);
                }
            }
        }
        if self.must_flush {
            match Pin::new(&mut *stream).poll_flush(context) {
                Poll::Ready(Ok(())) => (self.must_flush, self.blocked_since) = (false, None),
                Poll::Ready(Err(_)) => return Err(SessionEnd::Transport),
                Poll::Pending => {
                    self.blocked_since.get_or_insert(now);
                }
            }
        }
        Ok(has_written)
    }

    /// Makes sure there are octets to write; gives the buffer back when there are none.
    fn refill(&mut self, inbox: &Inbox) -> bool {
        if self.written < self.octets.len() {
            return true;
        }
        self.octets.clear();
        self.written = 0;
        if inbox.take(&mut self.octets) {
            inbox.note_unwritten(self.octets.len());
            return true;
        }
        if self.octets.capacity() > 0 {
            inbox.room.give_buffer(std::mem::take(&mut self.octets));
        }
        false
    }
}
