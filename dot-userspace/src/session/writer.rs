//! The writing half of a session: all waiting responses in as few records and one `write` as fit.
//!
//! Before: [`Inbox`] holds framed responses. After: they are with the kernel. Step 9 of 9.
//! Holds: until when the client may let us wait; what it has not taken is the link's.
//! Never: takes more from the inbox while the client does not read (bounded output).

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{Inbox, Link, SessionEnd, end::end_of_sending};

/// Octets a second that are taken for reading: two ISDN channels, 128 kbit/s. It is asked only of who is owed more than
/// the kernel holds for it, some 50 KiB at least.
const OCTETS_PER_SECOND_MIN: u32 = 16 * 1024;

/// What the writer remembers between turns.
#[derive(Default)]
pub(super) struct Writer {
    patience_ends: Option<Instant>,
}

impl Writer {
    /// When a client that lets us wait is cut; `None` while none does.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        self.patience_ends
    }

    /// Something waits, and the kernel has just taken so many octets of it: none at first. Patience never reaches
    /// further than one timeout, however much was taken: a send buffer that grows is no client that reads.
    fn note_waiting(&mut self, now: Instant, taken: usize, write_timeout: Duration) {
        let full = now + write_timeout;
        self.patience_ends = Some(self.patience_ends.map_or(full, |ends| full.min(ends + gained(taken))));
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
            let before = link.unsent();
            match link.poll_flush(context, !inbox.is_quiet()) {
                Poll::Ready(Ok(())) => self.patience_ends = None,
                Poll::Ready(Err(error)) => return Err(end_of_sending(&error)),
                Poll::Pending => {
                    let taken = before.saturating_sub(link.unsent());
                    self.note_waiting(now, taken, inbox.room.limits().write_timeout);
                    inbox.note_unwritten(link.unsent());
                    return Ok(());
                }
            }
            inbox.note_unwritten(0);
            let Some(responses) = inbox.take() else { return Ok(()) };
            let sent = link.send(context, &responses, &mut inbox.room.sealing.borrow_mut());
            inbox.room.give_buffer(responses);
            sent.map_err(|error| end_of_sending(&error))?;
        }
    }
}

/// Time that a client gains by taking so many octets. Where it takes no more than the least a second it gains less than
/// passes, so that a trickle ends too.
fn gained(octets: usize) -> Duration {
    Duration::from_secs(1) * u32::try_from(octets).unwrap_or(u32::MAX) / OCTETS_PER_SECOND_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds until a client is cut that takes so many octets each second; `None`: not within an hour.
    fn cut_after(octets: usize) -> Option<u32> {
        let (start, mut writer) = (Instant::now(), Writer::default());
        writer.note_waiting(start, 0, Duration::from_secs(10));
        (1..3600).find(|second| {
            let now = start + Duration::from_secs(1) * *second;
            let is_over = writer.patience_ends().is_some_and(|ends| ends <= now);
            writer.note_waiting(now, octets, Duration::from_secs(10));
            is_over
        })
    }

    /// Goal: a trickle gains less than it takes, so that it ends as silence does; who keeps the least pace is never cut.
    /// Method: paces from nothing to twice the least, a step each second.
    #[test]
    fn a_trickle_ends() {
        assert_eq!(cut_after(0), Some(10));
        assert_eq!(cut_after(1), Some(11), "an octet a second");
        assert_eq!(cut_after(8 * 1024), Some(19), "half of the least pace");
        assert_eq!(cut_after(16 * 1024), None);
        assert_eq!(cut_after(32 * 1024), None);
    }

    /// Goal: what the kernel buffers is not saved up as patience. Method: it takes 4 MiB at once, then nothing more.
    ///
    #[test]
    fn a_send_buffer_that_grows_buys_one_timeout() {
        let (start, mut writer, timeout) = (Instant::now(), Writer::default(), Duration::from_secs(10));
        writer.note_waiting(start, 0, timeout);
        let later = start + Duration::from_secs(2);
        writer.note_waiting(later, 4 * 1024 * 1024, timeout);
        assert_eq!(writer.patience_ends(), Some(later + timeout));
    }
}
