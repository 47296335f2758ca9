//! Keeps the kernel half attached while dotd serves.
//!
//! Before: everything runs, without rights. After: any change of an interface or of its programs is noticed within a
//! second, repaired if possible, and reported otherwise.
//! Never: runs on a worker, or ends before dotd does.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::process::Process;
use crate::xdp::Watch;

/// Half of the second within which a loss is noticed: the kernel does not report a detached link.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Messages come in bursts: one check is enough for each.
const SETTLE_TIME: Duration = Duration::from_millis(20);
/// Messages read before one check: an endless stream of them must not postpone it.
const MESSAGES_MAX: usize = 1024;

/// Checks the attachments for ever.
pub(super) async fn look_after_xdp(process: Arc<Process>) {
    let mut watch = Watch::open()
        .inspect_err(|error| tracing::warn!("the kernel does not announce changes of interfaces: {error}"))
        .ok();
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Messages between the start and now were not received.
    let mut has_news = true;
    loop {
        process.look_after_xdp(has_news || watch.is_none());
        has_news = tokio::select! {
            _ = ticks.tick() => false,
            news = changed(watch.as_ref()) => match news {
                Ok(()) => {
                    settle(watch.as_ref()).await;
                    true
                }
                Err(error) => {
                    tracing::warn!("the kernel's announcements of changed interfaces have ended: {error}");
                    watch = None;
                    true
                }
            },
        };
    }
}

/// Reads the other messages of the burst.
async fn settle(watch: Option<&Watch>) {
    sleep(SETTLE_TIME).await;
    for _ in 0..MESSAGES_MAX {
        if timeout(Duration::ZERO, changed(watch)).await.is_err() {
            break;
        }
    }
}

async fn changed(watch: Option<&Watch>) -> std::io::Result<()> {
    match watch {
        Some(watch) => watch.changed().await,
        None => pending().await,
    }
}
