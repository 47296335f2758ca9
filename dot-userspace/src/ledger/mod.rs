//! One ledger: what the kernel and the workers counted, in one snapshot.
//!
//! Before: modules count through [`WorkerCounters`]; XDP counts in its map. After: `control` shows it.
//! Never: decides anything.

mod snapshot;
mod worker;

pub use snapshot::{ControlCounters, Difference, PacketCount, Snapshot};
pub use worker::{Counter, WorkerCounters};
