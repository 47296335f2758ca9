//! The end of an engine: its sessions end in order, and then its workers.
//!
//! Before: a signal, or another engine that serves in place of this one. After: no worker is left.
//! Never: waits for a worker without end.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::process::{Process, Running};
use crate::{
    control::Source as _,
    ledger::Past,
    worker::{Command, Drain, passage},
};

/// Time for sessions to end by themselves after a stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The same if sessions move to the next engine, which may have to take a hundred thousand.
const MOVE_TIMEOUT: Duration = Duration::from_secs(12);
/// Time for new connections to send a query, before sessions without a query end: some round trips.
const LEAVE_GRACE: Duration = Duration::from_secs(1);
/// Time for a worker to end after that, before it counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// Attempts to send the counts to the next engine while it has no room for them.
const TELL_MAX: u32 = 50;
const TELL_AGAIN: Duration = Duration::from_millis(20);

/// The reason why an engine stops serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// TERM or INT.
    Stopped,
    /// Another engine serves in its place.
    Succeeded,
}

/// Ends the sessions of every worker in order, and the workers.
///
/// # Errors
/// Workers that do not end, or that died.
pub(super) async fn drain(process: &Process, mut running: Running, why: Why) -> anyhow::Result<()> {
    tracing::info!(connections = running.admission.total(), "draining");
    process.draining();
    // If another engine serves, clients that have just completed a handshake get time to send a query.
    let grace = if why == Why::Succeeded { LEAVE_GRACE } else { Duration::ZERO };
    let passage = passage_to_successor(&mut running);
    if let Some(passage) = &passage {
        // At once, so that no counter begins anew for a reader, and again when the last session has ended.
        tell(passage, &Past::so_far(process.snapshot())).await;
    }
    let from = tokio::time::Instant::now() + grace;
    let until = from + if passage.is_some() { MOVE_TIMEOUT } else { DRAIN_TIMEOUT };
    for worker in &running.workers {
        worker.tell(Command::Drain(Drain { from, until, passage: passage.clone() }));
    }
    // The control socket still answers while the workers finish.
    let are_finished = || running.workers.iter().all(crate::worker::Worker::is_finished);
    if !all_end(are_finished, until + STUCK_AFTER).await {
        let stuck = running.workers.iter().filter(|worker| !worker.is_finished()).count();
        anyhow::bail!("{stuck} of the workers do not end; their connections are cut");
    }
    let tapping = running.tapping.take();
    let ended: Vec<bool> = running.workers.into_iter().map(crate::worker::Worker::join).collect();
    if let Some(passage) = &passage {
        tell(passage, &Past::of(process.snapshot())).await;
    }
    anyhow::ensure!(ended.iter().all(|is_well| *is_well), "a worker thread died while draining");
    if let Some(tapping) = tapping {
        tapping.end().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Sends the counts of this engine to the next one.
async fn tell(passage: &OwnedFd, past: &Past) {
    let counts = serde_json::to_vec(past).unwrap_or_default();
    for _ in 0..TELL_MAX {
        match passage::send_counts(passage, &counts) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(TELL_AGAIN).await,
            Err(error) => {
                return tracing::warn!(%error, "the next engine does not get the counts of this one");
            }
            Ok(()) => return,
        }
    }
    tracing::warn!("the next engine does not get the counts of this one: it accepts no packet");
}

/// The passage to the next engine, if that accepts sessions.
fn passage_to_successor(running: &mut Running) -> Option<Arc<OwnedFd>> {
    let passage = running.successor.take()?.passage.filter(|_| running.config.session.move_at_upgrade)?;
    match passage::offer(&passage) {
        Ok(()) => Some(Arc::new(passage)),
        Err(error) => {
            tracing::warn!("the next engine accepts no sessions, so they end here in order: {error}");
            None
        }
    }
}

/// Waits until `are_finished`, but not beyond `until`: a stuck worker must not keep the process. `false`: one is
/// stuck.
async fn all_end(are_finished: impl Fn() -> bool, until: tokio::time::Instant) -> bool {
    while !are_finished() {
        if tokio::time::Instant::now() >= until {
            return false;
        }
        sleep(Duration::from_millis(20)).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a worker that does not end delays the process no longer than permitted; workers that end are waited for.
    /// Method: one that never ends, and one that ends after a few checks.
    #[test]
    fn a_stuck_worker_is_not_waited_for_without_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let now = tokio::time::Instant::now();
            assert!(!all_end(|| false, now + Duration::from_millis(50)).await);
            let looks = std::cell::Cell::new(0);
            let ends = || looks.replace(looks.get() + 1) == 3;
            assert!(all_end(ends, now + Duration::from_secs(3600)).await);
            assert_eq!(looks.get(), 4);
        });
    }
}
