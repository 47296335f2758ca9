//! Keeps the kernel half attached while dotd serves.
//!
//! Before: everything runs, without a right. After: whatever happens to an interface or to what is attached to
//! it is seen within a second, mended where it can be, and reported where it cannot.
//! Never: runs on a worker, or ends before dotd does.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::process::Process;
use crate::xdp::Watch;

/// Half of the second within which a loss is seen: the kernel does not report a detached link.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// News come in bursts: one look is enough for each.
const SETTLE_TIME: Duration = Duration::from_millis(20);
/// Messages taken for one look: an endless stream of them must not put it off.
const MESSAGES_MAX: usize = 1024;

/// Looks after it for ever.
pub(super) async fn look_after_xdp(process: Arc<Process>) {
    let mut watch = Watch::open()
        .inspect_err(|error| tracing::warn!("changes of interfaces are not announced to us: {error}"))
        .ok();
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What happened between the start and now was not heard.
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
                    tracing::warn!("changes of interfaces are announced no more: {error}");
                    watch = None;
                    true
                }
            },
        };
    }
}

/// Takes what else is announced just now.
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
