//! When the kernel acknowledges what a backend sent over TCP.
//!
//! Before: `connection_io` has read responses or written queries. After: it knows whether to call [`acknowledge`] now.
//! Holds: whether an acknowledgement is owed and since when, a timer.
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

/// How long an acknowledgement waits for a query that carries it, by unanswered queries, from so many on. The more of them, the
/// sooner the next query comes, and the more an acknowledgement for each response costs: it makes the backend send the next
/// ones in smaller pieces.
const DELAYS: [(usize, Duration); 3] =
    [(64, Duration::from_millis(5)), (16, Duration::from_millis(1)), (1, Duration::ZERO)];

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
    pub(super) fn note_written(&mut self) {
        self.owed.pay();
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
    /// When the first of the octets is to be acknowledged, once that was decided.
    due: Option<Instant>,
}

impl Owed {
    fn new(now: Instant) -> Self {
        Self { is_owed: false, read_at: now, due: None }
    }

    fn note_read(&mut self, now: Instant) {
        self.is_owed = true;
        self.read_at = now;
    }

    fn pay(&mut self) {
        self.is_owed = false;
        self.due = None;
    }

    /// When it is to be acknowledged. `None`: nothing is owed, or no response waits for it.
    fn due(&mut self, outstanding: usize) -> Option<Instant> {
        let delay = DELAYS.iter().find(|(from, _)| outstanding >= *from).map(|(_, delay)| *delay);
        let Some(delay) = delay.filter(|_| self.is_owed) else {
            self.pay();
            return None;
        };
        Some(*self.due.get_or_insert(self.read_at + delay))
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

    /// Goal: a response that was read is acknowledged at once where few are awaited, within 1 and 5 ms of the first read where
    /// more are; once each time. Method: times without a clock.
    #[test]
    fn what_is_awaited_is_not_held_up() {
        let now = Instant::now();
        for (outstanding, delay) in
            [(1, Duration::ZERO), (15, Duration::ZERO), (16, MS), (63, MS), (64, 5 * MS)]
        {
            let mut owed = Owed::new(now);
            assert_eq!(owed.due(outstanding), None, "nothing was read");
            owed.note_read(now + MS);
            assert_eq!(owed.due(outstanding), Some(now + MS + delay), "{outstanding}");
            owed.note_read(now + 3 * MS);
            assert_eq!(owed.due(outstanding), Some(now + MS + delay), "later octets move nothing");
            owed.pay();
            assert_eq!(owed.due(outstanding), None, "it is acknowledged");
        }
    }

    /// Goal: no acknowledgement by itself where a query carries it, or where no response is awaited. Method: a write
    /// before the time is over; no query unanswered, then one.
    #[test]
    fn what_a_query_carries_is_not_sent_again() {
        let now = Instant::now();
        let mut owed = Owed::new(now);
        owed.note_read(now);
        assert!(owed.due(64).is_some());
        owed.pay();
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
