//! When the kernel acknowledges what a backend sent over TCP.
//!
//! Before: `connection_io` has read responses or written queries. After: it knows whether to call [`acknowledge`] now.
//! Holds: whether an acknowledgement is owed and since when, when a query was last written, a timer.
//! Never: acknowledges what no response waits for, or by itself what a query carries.
//!
//! Source: RFC 9293 §3.8.6.3 (delayed acknowledgements), §3.7.4 (Nagle's algorithm); tcp(7), TCP_QUICKACK.

use std::{
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// How long an acknowledgement waits after a write for a query that carries it: a busy connection writes several
/// queries within a millisecond.
const DELAY: Duration = Duration::from_millis(1);
/// The same on a busy connection, after a read: its next queries come within a few milliseconds.
const BUSY_DELAY: Duration = Duration::from_millis(5);
/// A connection with this many unanswered queries is busy. The backend has so much to answer that an acknowledgement for
/// each response would only make it send the next ones in smaller pieces.
const BUSY_QUERIES_MIN: usize = 64;

/// Makes the kernel acknowledge what was read. The kernel would wait up to 40 ms for octets to send along, and a
/// backend with Nagle's algorithm (NSD) holds the next small response back until then.
pub(super) fn acknowledge(tcp: &impl AsFd) {
    // The first call also ends the kernel's own delays from now on, and every segment would be acknowledged by itself; the
    // second one brings them back. Best effort: if they fail, answers are late but not lost.
    let socket = socket2::SockRef::from(tcp);
    let _ = socket.set_tcp_quickack(true);
    let _ = socket.set_tcp_quickack(false);
}

/// The acknowledgements of one connection.
pub(super) struct Acknowledgement {
    owed: Owed,
    timer: Pin<Box<Sleep>>,
}

impl Acknowledgement {
    /// Of a connection that has just been established.
    pub(super) fn new(now: Instant) -> Self {
        Self { owed: Owed::new(now), timer: Box::pin(sleep_until(now)) }
    }

    /// Octets were read.
    pub(super) fn note_read(&mut self, now: Instant) {
        self.owed.note_read(now);
    }

    /// Octets were written, with an acknowledgement.
    pub(super) fn note_written(&mut self, now: Instant) {
        self.owed.note_written(now);
    }

    /// Ready: what was read is to be acknowledged now, with this many queries unanswered. Pending: nothing is owed, or a
    /// query is about to carry it.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, outstanding: usize) -> Poll<()> {
        let Some(due) = self.owed.due(outstanding) else { return Poll::Pending };
        if due > self.owed.read_at {
            if self.timer.deadline() != due {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(context));
        }
        self.owed.pay();
        Poll::Ready(())
    }
}

/// What is to be acknowledged, and when. Pure.
struct Owed {
    /// Octets were read since the last acknowledgement, and no write has carried one.
    is_owed: bool,
    read_at: Instant,
    /// Time of the last write. `None`: never.
    wrote_at: Option<Instant>,
    /// When the first of the octets is to be acknowledged, once that was decided.
    due: Option<Instant>,
}

impl Owed {
    fn new(now: Instant) -> Self {
        Self { is_owed: false, read_at: now, wrote_at: None, due: None }
    }

    fn note_read(&mut self, now: Instant) {
        self.is_owed = true;
        self.read_at = now;
    }

    fn note_written(&mut self, now: Instant) {
        self.pay();
        self.wrote_at = Some(now);
    }

    fn pay(&mut self) {
        self.is_owed = false;
        self.due = None;
    }

    /// When it is to be acknowledged, at or before `read_at`: at once. `None`: nothing is owed, or no response waits for it.
    ///
    /// For a short time after a write the next query is expected. Backends that hold small responses back then send fewer
    /// and larger ones under load.
    fn due(&mut self, outstanding: usize) -> Option<Instant> {
        if outstanding == 0 {
            self.pay();
        }
        if !self.is_owed {
            return None;
        }
        let first = if outstanding < BUSY_QUERIES_MIN {
            self.wrote_at.map_or(self.read_at, |at| at + DELAY)
        } else {
            self.read_at + BUSY_DELAY
        };
        Some(*self.due.get_or_insert(first))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Goal: a response that was read is acknowledged at once where others are awaited and nothing was written lately, a
    /// millisecond after a write, five after the first read where many are awaited; once each time. Method: times without a
    /// clock.
    #[test]
    fn what_is_awaited_is_not_held_up() {
        let now = Instant::now();
        let mut owed = Owed::new(now);
        assert_eq!(owed.due(1), None, "nothing was read");
        owed.note_read(now);
        assert_eq!(owed.due(1), Some(now));
        owed.pay();
        assert_eq!(owed.due(1), None, "it is acknowledged");

        owed.note_written(now);
        owed.note_read(now + MS / 2);
        assert_eq!(owed.due(63), Some(now + MS), "after a write");
        owed.pay();
        owed.note_read(now + 100 * MS);
        assert!(owed.due(63).unwrap() < owed.read_at, "the write is long ago");
        owed.pay();

        let read_at = now + 200 * MS;
        owed.note_read(read_at);
        assert_eq!(owed.due(64), Some(read_at + 5 * MS), "a busy connection");
        owed.note_read(read_at + 4 * MS);
        assert_eq!(owed.due(64), Some(read_at + 5 * MS), "later octets move nothing");
    }

    /// Goal: no acknowledgement by itself where a query carries it, or where no response is awaited. Method: a write
    /// before the time is over; no query unanswered, then one.
    #[test]
    fn what_a_query_carries_is_not_sent_again() {
        let now = Instant::now();
        let mut owed = Owed::new(now);
        owed.note_read(now);
        assert!(owed.due(64).is_some());
        owed.note_written(now + MS);
        assert_eq!(owed.due(64), None, "the write carried it");
        owed.note_read(now + 2 * MS);
        assert_eq!(owed.due(0), None, "nothing is awaited");
        assert_eq!(owed.due(1), None, "what was read then is over");
    }

    /// Goal: the call makes the kernel acknowledge at once, which it else does after 40 ms. Method: a peer with Nagle's
    /// algorithm writes an octet at a time, as NSD its responses: each leaves once the one before is acknowledged. With the
    /// call each is there without a wait, without it every second; a busy kernel may take its time for some.
    ///
    #[test]
    fn the_kernel_acknowledges_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let mut at_once = 0;
        for _ in 0..40 {
            peer.write_all(&[1]).unwrap();
            ours.set_nonblocking(true).unwrap();
            let is_there = ours.read(&mut [0]).is_ok();
            ours.set_nonblocking(false).unwrap();
            if is_there {
                at_once += 1;
            } else {
                ours.read_exact(&mut [0]).unwrap();
            }
            acknowledge(&ours);
        }
        assert!(at_once > 25, "{at_once} of 40");
    }
}
