//! The counts of one worker: one writer, read by the control thread at any time.
//!
//! Before: every module of a worker that decides something counts it here, once.
//! After: `ledger::snapshot` adds the workers up.
//! Holds: a row per worker of plain 64-bit numbers, padded so that no two workers share a cache line.
//! Never: locks, or does an atomic read-modify-write: each line has one writing thread.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crossbeam::utils::CachePadded;

use super::{Counter, Stages};

/// One worker's counters and durations. Cloning shares them.
#[derive(Clone, Debug)]
pub struct WorkerCounters {
    line: Arc<CachePadded<[AtomicU64; Counter::ALL.len()]>>,
    stages: Stages,
}

impl Default for WorkerCounters {
    fn default() -> Self {
        let line = [const { AtomicU64::new(0) }; Counter::ALL.len()];
        Self { line: Arc::new(CachePadded::new(line)), stages: Stages::default() }
    }
}

impl WorkerCounters {
    /// The durations of the stages that the worker measures.
    #[must_use]
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Adds to a counter. Only the owning worker may call this.
    pub fn add(&self, counter: Counter, count: u64) {
        if let Some(cell) = self.line.get(counter as usize) {
            cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
        }
    }

    /// Lowers a gauge. Only the owning worker may call this.
    pub fn subtract(&self, counter: Counter, count: u64) {
        self.add(counter, count.wrapping_neg());
    }

    /// Reads a counter, from any thread.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.line.get(counter as usize).map_or(0, |cell| cell.load(Relaxed))
    }
}
