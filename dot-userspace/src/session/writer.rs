//! The writing half of a session: all waiting responses in one `write`, each in a record of its own.
//!
//! Before: [`Inbox`] holds framed responses. After: they are with the kernel. Step 9 of 9.
//! Holds: the client's pace; unsent octets are in the link.
//! Never: takes more from the inbox while the client does not read (bounded output).

use std::task::{Context, Poll};

use tokio::time::Instant;

use super::{Inbox, Link, SessionEnd, end::end_of_sending, pace::Pace};
use crate::events::{Effort, What};

/// The writer's state between turns.
#[derive(Default)]
pub(super) struct Writer {
    pace: Pace,
}

impl Writer {
    /// When a client that does not read is cut. `None`: nothing waits for it.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        self.pace.ends()
    }

    /// Whether the client gets more time at the end of its wait, for what it took since the last look: the kernel
    /// reports nothing of that before half of its buffer is free.
    pub(super) fn is_patient<L: Link>(&mut self, link: &L, inbox: &Inbox) -> bool {
        let now = Instant::now();
        self.pace.note(now, link.taken(), inbox.shared.limits().write_timeout) > now
    }

    /// Writes until nothing waits or the client takes no more.
    ///
    /// # Errors
    /// [`SessionEnd::Transport`]: the client is gone.
    pub(super) fn write<L: Link>(
        &mut self,
        link: &mut L,
        context: &mut Context<'_>,
        inbox: &Inbox,
        now: Instant,
    ) -> Result<(), SessionEnd> {
        loop {
            match link.poll_flush(context, !inbox.is_quiet()) {
                Poll::Ready(Ok(())) => {
                    self.pace.rest();
                    inbox.note_flushed();
                }
                Poll::Ready(Err(error)) => return Err(end_of_sending(&error)),
                Poll::Pending => {
                    self.pace.note(now, link.taken(), inbox.shared.limits().write_timeout);
                    inbox.note_unwritten(link.unsent());
                    return Ok(());
                }
            }
            inbox.note_unwritten(0);
            let Some(responses) = inbox.take() else { return Ok(()) };
            inbox.shared.events.heavy.add(inbox.client.source.ip(), Effort::Octets, responses.len() as u64);
            inbox.tell(|_| What::Written { octets: responses.len() });
            let sent = link.send(context, &responses, &mut inbox.shared.sealing.borrow_mut());
            inbox.shared.give_buffer(responses);
            inbox.shared.shrink_sealing();
            sent.map_err(|error| end_of_sending(&error))?;
            inbox.note_sent(link.unsent() == 0);
        }
    }
}
