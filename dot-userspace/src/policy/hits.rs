//! Counts how often rules of a zone matched.
//!
//! Before: `session` acts on a rule. After: `control` shows the matches of each zone.
//! Holds: a few sums in memory that workers do not share, unless there are more workers than [`SUMS`].
//! Never: locks, or counts by name or client.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

/// Sums of a zone. 16: one for each worker of most machines, and 2 KiB a zone.
const SUMS: usize = 16;

/// The hits of one zone.
#[derive(Debug, Default)]
pub(super) struct Hits([Sum; SUMS]);

/// On separate cache lines: processors fetch two at a time.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Sum(AtomicU64);

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The sum that this thread adds to.
    static OWN: Cell<usize> = Cell::new(NEXT.fetch_add(1, Relaxed) % SUMS);
}

impl Hits {
    /// Counts one match.
    pub(super) fn add(&self) {
        if let Some(Sum(sum)) = self.0.get(OWN.get()) {
            sum.fetch_add(1, Relaxed);
        }
    }

    /// All matches so far.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|Sum(sum)| sum.load(Relaxed)).fold(0, u64::wrapping_add)
    }
}
