//! A mark of a connection: its request has arrived as a whole.
//!
//! Before: `serve` accepted the connection. After: a reload, which may take long, has no time limit of `serve`'s.
//! Never: waits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Marks that the request of a connection has arrived as a whole, so that the time of its answer is not limited here.
#[derive(Clone, Debug, Default)]
pub(super) struct Whole(Arc<AtomicBool>);

impl Whole {
    /// Stops the clock of the request until some of the answer is written.
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Starts it again: some of the answer is written.
    pub(super) fn forget(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether the clock is stopped.
    pub(super) fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
