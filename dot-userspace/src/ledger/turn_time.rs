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
    static TIME: Cell<Option<(Instant, Moment)>> = const { Cell::new(None) };
}

/// A batch begins now.
pub fn begin(now: Instant) {
    TIME.set(Some((now, Moment::of(now.into_std()))));
}

/// When the batch under way began; where none ever has, the clock's time.
#[must_use]
pub fn now() -> Instant {
    TIME.get().map_or_else(Instant::now, |(now, _)| now)
}

/// The same, for what is measured.
#[must_use]
pub fn moment() -> Moment {
    TIME.get().map_or_else(|| Moment::of(Instant::now().into_std()), |(_, moment)| moment)
}
