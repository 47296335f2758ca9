//! The writing half of a session: all waiting responses in as few records and one `write` as fit.
//!
//! Before: [`Inbox`] holds framed responses. After: they are with the kernel. Step 9 of 9.
//! Holds: since when the client has taken nothing; what it has not taken is the link's.
//! Never: takes more from the inbox while the client does not read (bounded output).

use std::task::{Context, Poll};

use tokio::time::Instant;

use super::{Inbox, Link, SessionEnd, end::end_of_sending};

/// What the writer remembers between turns.
#[derive(Default)]
pub(super) struct Writer {
    blocked_since: Option<Instant>,
}

impl Writer {
    /// Since when the client has taken nothing.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    /// Writes until nothing waits or the client takes no more. `Ok(true)`: something was written.
    ///
    /// # Errors
    /// [`SessionEnd::Transport`]: the client is gone.
    pub(super) fn write<L: Link>(
        &mut self,
        link: &mut L,
        context: &mut Context<'_>,
        inbox: &Inbox,
        now: Instant,
    ) -> Result<bool, SessionEnd> {
        let mut has_written = false;
        loop {
            let before = link.unsent();
            let flushed = link.poll_flush(context, !inbox.is_quiet());
            if flushed.is_ready() || link.unsent() < before {
                self.blocked_since = None;
            }
            match flushed {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(end_of_sending(&error)),
                Poll::Pending => {
                    self.blocked_since.get_or_insert(now);
                    inbox.note_unwritten(link.unsent());
                    return Ok(has_written);
                }
            }
            inbox.note_unwritten(0);
            let Some(responses) = inbox.take() else { return Ok(has_written) };
            let sent = link.send(context, &responses, &mut inbox.room.sealing.borrow_mut());
            inbox.room.give_buffer(responses);
            sent.map_err(|error| end_of_sending(&error))?;
            has_written = true;
        }
    }
}
