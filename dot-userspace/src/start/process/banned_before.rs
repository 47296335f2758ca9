//! Bans over a restart.
//!
//! Before: an engine begins or ends, and its service manager tells a restart from a stop. After: bans that still apply are made again,
//! with their reasons.
//! Never: makes one longer.

use std::sync::atomic::Ordering::Relaxed;

use super::{Process, lock};
use crate::start::kept_bans;

impl Process {
    /// Makes the bans of the engine before the restart again.
    pub(super) fn restore_bans(&self) {
        self.keeps_bans.store(true, Relaxed);
        let run_dir = self.config().server.run_dir.clone();
        let bans = kept_bans::take(&run_dir);
        if bans.is_empty() {
            return;
        }
        if let Some(xdp) = &mut lock(&self.kernel).0 {
            match xdp.restore_bans(&bans) {
                Ok(made) => tracing::info!(bans = made, "bans from before the restart apply again"),
                Err(error) => tracing::error!("bans from before the restart are lost: {error}"),
            }
        }
    }

    /// Before XDP is detached: writes the bans, where a restart may follow.
    pub(in crate::start) fn keep_bans(&self) {
        if !self.keeps_bans.load(Relaxed) {
            return;
        }
        let bans = lock(&self.kernel).0.as_ref().map(crate::xdp::Xdp::bans).unwrap_or_default();
        if let Err(error) = kept_bans::save(&self.config().server.run_dir, &bans) {
            tracing::error!("bans will not survive a restart: server.run_dir: {error}");
        }
    }
}
