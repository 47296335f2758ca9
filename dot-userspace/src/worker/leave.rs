//! The end of a worker: its sessions move to the next engine or end in order.
//!
//! Before: TERM, or another engine serves in place of this one. After: no session is left, or the time is over.
//! Never: accepts a connection; waits beyond `until`.

use std::{os::fd::OwnedFd, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    task::{AbortHandle, spawn_local},
    time::{Instant, sleep_until},
};

use super::{acceptor::Acceptor, mover::Mover};
use crate::ledger::Counter;

/// How often a draining worker checks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// The last part of a drain, in which sessions end even if handshakes took long.
const DRAIN_LAST: Duration = Duration::from_secs(1);

/// The times of a worker's end, and the passage for its sessions.
pub struct Drain {
    /// From then on sessions without unfinished queries end; somewhat later if handshakes are in progress.
    pub from: Instant,
    /// The latest end.
    pub until: Instant,
    /// The passage to the next engine. `None`: sessions end here.
    pub passage: Option<Arc<OwnedFd>>,
}

/// Ends the work of `acceptor`.
pub(super) async fn leave(worker: usize, acceptor: &Rc<Acceptor>, accepting: &[AbortHandle], drain: Drain) {
    let Drain { from, until, passage } = drain;
    let shared = acceptor.shared();
    acceptor.close();
    accepting.iter().for_each(AbortHandle::abort);
    let mover = passage.and_then(|passage| begin_to_move(worker, acceptor, &passage));
    let (grace, latest) = (from.saturating_duration_since(Instant::now()), until - DRAIN_LAST);
    let mut from = from;
    while Instant::now() < from && shared.counters.get(Counter::Open) > 0 {
        sleep_until(from.min(Instant::now() + DRAIN_LOOK)).await;
        if acceptor.is_shaking() {
            // Its client has the same time to send a query as one whose handshake was done.
            from = (Instant::now() + grace).min(latest);
        }
    }
    let is_sent = || mover.as_ref().is_none_or(|mover| mover.is_idle());
    if let Some(mover) = &mover {
        mover.hurry();
        while !shared.is_quiet() && !mover.is_broken() && Instant::now() < latest {
            sleep_until(latest.min(Instant::now() + DRAIN_LOOK)).await;
        }
        mover.stop();
    }
    shared.drain();
    while !(shared.is_quiet() && is_sent()) && Instant::now() < until {
        sleep_until(until.min(Instant::now() + DRAIN_LOOK)).await;
    }
    if let Some(mover) = mover {
        let ended = shared.counters.get(Counter::EndDrain);
        tracing::info!(sessions = mover.moved(), ended, "sessions of a worker have moved to the next engine");
        let cut = mover.unsent();
        if cut > 0 {
            tracing::error!(
                cut,
                "the next engine had no room for sessions that had left: their connections are closed"
            );
        }
    }
}

fn begin_to_move(worker: usize, acceptor: &Rc<Acceptor>, passage: &OwnedFd) -> Option<Rc<Mover>> {
    match Mover::new(worker, passage, Rc::clone(acceptor.shared())) {
        Ok(mover) => {
            let mover = Rc::new(mover);
            acceptor.move_by(&mover);
            spawn_local(Rc::clone(&mover).run());
            Some(mover)
        }
        Err(error) => {
            tracing::error!(%error, "a worker's sessions cannot move to the next engine; they end here");
            None
        }
    }
}
