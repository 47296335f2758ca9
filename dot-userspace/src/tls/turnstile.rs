//! Lets handshakes pass a few at a time, so that a flood of them does not keep sessions waiting.
//!
//! Before: a message is complete that costs a signature, a key exchange or the verification of a certificate,
//! whichever records carried it. After: it may be computed in this turn, or in a later one.
//! Holds: the handshakes that wait. Most of a turn is for short steps: resumed handshakes, or the rest of a handshake
//! that was signed. A quarter of each turn is for full handshakes, so that none starves.
//! Never: extends a handshake's deadline: a handshake that gives up while it waits is skipped.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, oneshot},
    task::yield_now,
};

use crate::ledger::{Counter, Stage, WorkerCounters};

/// Handshakes in one turn: some 1.5 ms for full ones; then the runtime checks its sockets.
const TURN: u8 = 4;
/// This many of them are for full handshakes while both kinds wait.
const FULL_SHARE: u8 = 1;

/// A worker's turnstile.
pub struct Turnstile {
    left: Cell<u8>,
    short: RefCell<VecDeque<oneshot::Sender<()>>>,
    full: RefCell<VecDeque<oneshot::Sender<()>>>,
    bell: Notify,
    counters: WorkerCounters,
}

impl Turnstile {
    /// The turnstile of the worker with these counters; no handshake waits.
    #[must_use]
    pub fn new(counters: WorkerCounters) -> Self {
        Self {
            left: Cell::new(TURN),
            short: RefCell::default(),
            full: RefCell::default(),
            bell: Notify::new(),
            counters,
        }
    }

    /// Returns when the handshake may be computed.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place up.
    pub async fn pass(&self, is_short: bool) {
        self.bell.notify_one();
        if self.waiting() == 0 && self.left.get() > 0 {
            self.left.set(self.left.get() - 1);
            return self.counters.stages().record(Stage::HandshakeTurn, Duration::ZERO);
        }
        self.counters.add(Counter::HandshakesWaited, 1);
        let since = Instant::now();
        let (sender, receiver) = oneshot::channel();
        let queue = if is_short { &self.short } else { &self.full };
        queue.borrow_mut().push_back(sender);
        // The turnstile ends with its worker, and so do the handshakes that wait.
        let _ = receiver.await;
        self.counters.stages().record(Stage::HandshakeTurn, since.elapsed());
    }

    /// Handshakes that wait.
    pub fn waiting(&self) -> usize {
        self.short.borrow().len() + self.full.borrow().len()
    }

    /// Starts a turn each time the runtime has checked its sockets. Runs until aborted.
    pub async fn run(self: Rc<Self>) {
        loop {
            self.bell.notified().await;
            while self.left.get() < TURN || self.waiting() > 0 {
                yield_now().await;
                self.begin_turn();
            }
        }
    }

    fn begin_turn(&self) {
        self.left.set(TURN);
        let mut full_left = FULL_SHARE;
        while self.left.get() > 0 {
            let is_full_due = full_left >= self.left.get();
            let (first, second) =
                if is_full_due { (&self.full, &self.short) } else { (&self.short, &self.full) };
            let next = first.borrow_mut().pop_front().or_else(|| second.borrow_mut().pop_front());
            let Some(next) = next else { return };
            // A handshake that has ended uses no place.
            if next.send(()).is_ok() {
                self.left.set(self.left.get() - 1);
                full_left -= u8::from(is_full_due && full_left > 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_lite_free::poll_once;

    use super::*;

    /// Polls futures by hand: the test is about the turnstile's turns.
    mod futures_lite_free {
        use std::{
            future::Future,
            pin::Pin,
            task::{Context, Poll, Waker},
        };

        pub fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
            future.poll(&mut Context::from_waker(Waker::noop()))
        }
    }

    /// Goal: a turn admits four, three of them resumed while both kinds wait; a handshake that has ended is skipped.
    #[test]
    fn resumed_handshakes_pass_first_and_full_ones_do_not_starve() {
        let turnstile = Turnstile::new(WorkerCounters::default());
        let mut early: Vec<_> = (0..4).map(|_| Box::pin(turnstile.pass(false))).collect();
        assert!(
            early.iter_mut().all(|pass| poll_once(pass.as_mut()).is_ready()),
            "a turn's worth passes at once"
        );
        let mut full: Vec<_> = (0..6).map(|_| Box::pin(turnstile.pass(false))).collect();
        let mut resumed: Vec<_> = (0..6).map(|_| Box::pin(turnstile.pass(true))).collect();
        let passed = |queue: &mut Vec<std::pin::Pin<Box<_>>>| {
            let before = queue.len();
            queue.retain_mut(|pass| poll_once(std::pin::Pin::as_mut(pass)).is_pending());
            before - queue.len()
        };
        assert_eq!((passed(&mut full), passed(&mut resumed)), (0, 0));
        turnstile.begin_turn();
        assert_eq!((passed(&mut full), passed(&mut resumed)), (1, 3));
        drop(full.remove(0));
        turnstile.begin_turn();
        assert_eq!((passed(&mut full), passed(&mut resumed)), (1, 3), "the one that left took no place");
        turnstile.begin_turn();
        assert_eq!((passed(&mut full), passed(&mut resumed)), (3, 0));
        assert_eq!(turnstile.waiting(), 0);
        assert_eq!(poll_once(Box::pin(turnstile.pass(true)).as_mut()), Poll::Ready(()), "one place was left");
    }
}
