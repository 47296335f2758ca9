//! The engines of a dotd, one after another.
//!
//! Before: a [`Server`] that serves. After: its engine has had a signal, or several have.
//! Never: ends the keeper itself.

use super::{eventually, process::bounded, server::Server};

/// Crashes in a minute after which the keeper starts another engine.
const CRASHES_MAX: usize = 5;

impl Server {
    /// How many engines have been ready so far, one after another.
    #[must_use]
    pub fn engines(&self) -> usize {
        self.stdout().lines().filter(|line| *line == "ready").count()
    }

    /// Sends a signal, by its number, to the engine itself. The keeper starts another one.
    ///
    /// # Panics
    /// When there is none.
    pub fn signal_engine(&self, signal: i32) {
        // The shell's own: nix names no real-time signals, and the program `kill` is on no fresh machine.
        let sent = bounded("sh").args(["-c", &format!("kill -{signal} {}", self.pid())]).status();
        assert!(sent.is_ok_and(|status| status.success()), "an engine is there");
    }

    /// Ends engines by a signal until the keeper starts no other one.
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
