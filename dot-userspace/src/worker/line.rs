//! The channel to a worker.
//!
//! Before: a worker runs. After: it executes a command in its next turn.
//! Never: waits for the worker, except where sessions of the previous engine arrive faster than the worker takes
//! them.

use std::sync::Arc;

use crossbeam::channel::Sender;
use tokio::sync::Notify;

use super::{Command, Look, passage::Arrived};

/// The channel to a worker. Clones share it.
#[derive(Clone)]
pub struct Line {
    commands: Sender<Command>,
    arrivals: Sender<Arrived>,
    bell: Arc<Notify>,
}

impl Line {
    pub(super) fn new(commands: Sender<Command>, arrivals: Sender<Arrived>, bell: Arc<Notify>) -> Self {
        Self { commands, arrivals, bell }
    }

    /// Makes the worker continue a session of the previous engine. Waits while other sessions wait for the worker.
    /// `false`: the worker takes no more sessions, and this connection is closed.
    #[must_use]
    pub fn adopt(&self, arrived: Arrived) -> bool {
        let is_taken = self.arrivals.send(arrived).is_ok();
        self.bell.notify_one();
        is_taken
    }

    /// Makes the worker call this in its next turn.
    pub fn look(&self, look: Look) {
        self.tell(Command::Look(look));
    }

    /// Switches DNS over TLS on or off, in its next turn.
    pub fn switch(&self, is_on: bool) {
        self.tell(Command::Switch(is_on));
    }

    /// Sends the worker a command, which it executes in its next turn.
    pub(super) fn tell(&self, command: Command) {
        // A worker that has ended needs no commands; `join` reports how it ended.
        let _ = self.commands.send(command);
        self.bell.notify_one();
    }
}
