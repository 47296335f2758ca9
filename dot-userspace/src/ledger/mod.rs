//! The ledger: the counts of the kernel and the workers in one snapshot.
//!
//! Before: modules count through [`WorkerCounters`]; XDP counts in its map. After: `control` shows it.
//! Never: decides anything.

mod histogram;
pub mod latency;
mod line;
mod openings;
mod past;
mod snapshot;
mod stages;
mod tls_fault;
mod traffic;
pub mod turn_time;
mod window;
mod worker;

pub use histogram::{Durations, Histogram, LONGEST_LOG2, SCHEMA, SHORTEST_LOG2};
pub use latency::{Latency, Measured};
pub use line::WorkerCounters;
pub use past::Past;
pub use snapshot::{ControlCounters, Difference, KernelQueues, PacketCount, Snapshot};
pub use stages::{Disposal, Measure, QueryTransport, Stage, Stages};
pub use tls_fault::TlsFault;
pub use traffic::{BackendLine, BackendLines, BackendSum, Traffic};
pub use window::Sparse;
pub use worker::Counter;
