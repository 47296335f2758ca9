//! The engines of a dotd, one after another.
//!
//! Before: a [`Server`] that serves. After: its engine got a signal, or several engines did.
//! Never: ends the keeper itself.

use std::fs;

use super::{eventually, process::bounded, server::Server};

/// The number of crashes within a minute after which the keeper still starts another engine.
const CRASHES_MAX: usize = 5;

impl Server {
    /// The number of engines that were ready so far.
    #[must_use]
    pub fn engines(&self) -> usize {
        self.stdout().lines().filter(|line| *line == "ready").count()
    }

    /// The processes of engines, the oldest first: two during an upgrade.
    ///
    /// # Panics
    /// When the keeper has ended.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let keeper = self.keeper_pid();
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).expect("it runs");
        children.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
    }

    /// Sends a signal, by its number, to the engine itself. The keeper starts another one.
    ///
    /// # Panics
    /// When there is none.
    pub fn signal_engine(&self, signal: i32) {
        self.signal_process(signal, self.pid());
    }

    /// Sends a signal, by its number, to one of the engines.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal_process(&self, signal: i32, pid: u32) {
        // The shell's builtin: nix has no names for real-time signals, and a fresh machine lacks the program `kill`.
        let sent = bounded("sh").args(["-c", &format!("kill -{signal} {pid}")]).status();
        assert!(sent.is_ok_and(|status| status.success()), "an engine is there");
    }

    /// Ends engines by a signal until the keeper starts no further one.
    ///
    /// # Panics
    /// When the next engine does not come in time.
    pub fn exhaust(&self, signal: i32) {
        for crash in 0..CRASHES_MAX {
            self.signal_engine(signal);
            eventually("another engine serves", || (self.engines() == crash + 2).then_some(()));
        }
        self.signal_engine(signal);
    }
}
