//! One ledger: what the kernel and the workers counted, in one snapshot.
//!
//! Before: rooms count through [`WorkerCounters`]; XDP counts in its map. After: `control` shows it.
//! Never: decides anything.

mod worker;

pub use worker::{Counter, WorkerCounters};
