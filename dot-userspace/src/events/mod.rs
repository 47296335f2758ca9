//! Module `events`: reports dotd's actions towards clients to operators.
//!
//! Before: a worker refuses a client, or a connection ends. After: the control thread has the event and writes a log
//! line; `dotd top` and `dotd trace` have their answers.
//! Holds: the reports that operators have switched on ([`EventSink`]), and each worker's batch of refusals.
//! Never: waits, or grows with the number of clients: an event that finds no room is counted as lost.

mod answering;
mod heavy;
mod keys;
mod refusals;
mod sketch;
pub mod tap;
mod trace;
pub mod traceparent;

pub use answering::{answered_by, answering, is_tracing};
pub use heavy::{Effort, Heaviest, Heavy, Part};
pub use keys::{key_of, key_of_packets};
pub use refusals::{EventSink, Events, Refused};
pub use sketch::{Estimate, merge};
pub use tap::TapSink;
pub use trace::{EVENTS_MAX, Subject, TRACES_MAX, Trace, TraceEvent, Tracing, What, now_us};
pub use traceparent::SpanIds;
