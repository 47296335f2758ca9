//! The time of a worker's current batch: it is read once for the batch, and used for everything in it.
//!
//! Before: a worker begins a session's turn, or has a batch of datagrams or responses. After: deadlines and latencies
//! of its queries use this time, and no query reads the clock.
//! Holds: one time for each thread.
//! Never: goes back; is later than the clock. It is behind the clock by at most the length of a batch.

use std::cell::Cell;

use tokio::time::Instant;

use crate::moment::Moment;

thread_local! {
    static TIME: Cell<Option<Instant>> = const { Cell::new(None) };
    /// The same as a moment, after something in the batch was measured.
    static MOMENT: Cell<Option<Moment>> = const { Cell::new(None) };
}

/// Starts a batch.
pub fn begin(now: Instant) {
    TIME.set(Some(now));
    MOMENT.set(None);
}

/// The time at which the current batch began; before the first batch, the clock's time.
#[must_use]
pub fn now() -> Instant {
    TIME.get().unwrap_or_else(Instant::now)
}

/// The same, for measurements.
#[inline]
#[must_use]
pub fn moment() -> Moment {
    MOMENT.get().unwrap_or_else(first_moment)
}

/// Most batches measure nothing or many things, so this is computed once for those that measure.
#[cold]
fn first_moment() -> Moment {
    let moment = Moment::of(now().into_std());
    MOMENT.set(TIME.get().map(|_| moment));
    moment
}
