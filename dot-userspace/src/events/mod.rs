//! Module `events`: what dotd does to clients, on its way to operators who want to see it.
//!
//! Before: a worker refuses a client, or a connection ends. After: the control thread has it, and a line of the log says it;
//! `dotd top` and `dotd trace` have their answers.
//! Holds: what operators have switched on ([`EventSink`]), and each worker's batch of refusals.
//! Never: waits, or grows with clients: an event that finds no room is counted and lost.

mod heavy;
mod keys;
mod refusals;
mod sketch;
pub mod tap;
mod trace;

pub use heavy::{Effort, Heaviest, Heavy, Part};
pub use keys::{key_of, key_of_packets};
pub use refusals::{EventSink, Events, Refused};
pub use sketch::{Estimate, merge};
pub use tap::TapSink;
pub use trace::{EVENTS_MAX, Subject, TRACES_MAX, Trace, TraceEvent, Tracing, What, now_us};
