//! The time of what a worker does now: read once for a batch, and taken by all that is done for it.
//!
//! Before: a worker begins a session's turn, or has a batch of datagrams or responses. After: deadlines and latencies of the
//! queries within it are by this time, and no query reads the clock for itself.
//! Holds: one time for the thread that asks.
//! Never: goes back; is later than the clock. It is earlier by as long as the batch takes.

use std::cell::Cell;

use tokio::time::Instant;

use crate::moment::Moment;

thread_local! {
    static TIME: Cell<Option<Instant>> = const { Cell::new(None) };
    /// The same as a moment, once something of the batch was measured.
    static MOMENT: Cell<Option<Moment>> = const { Cell::new(None) };
}

/// A batch begins now.
pub fn begin(now: Instant) {
    TIME.set(Some(now));
    MOMENT.set(None);
}

/// When the batch under way began; where none ever has, the clock's time.
#[must_use]
pub fn now() -> Instant {
    TIME.get().unwrap_or_else(Instant::now)
}

/// The same, for what is measured.
#[inline]
#[must_use]
pub fn moment() -> Moment {
    MOMENT.get().unwrap_or_else(first_moment)
}

/// Most batches measure nothing, or much: computed once for those that do.
#[cold]
fn first_moment() -> Moment {
    let moment = Moment::of(now().into_std());
    MOMENT.set(TIME.get().map(|_| moment));
    moment
}
