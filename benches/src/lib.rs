//! dotd measured from outside: what a client waits for, and what a query costs in CPU.
//!
//! Before: a DNS-over-TLS server, ours or another. After: numbers, as text and as JSON.
//! Never: reaches into the engine: any server on port 853 can be compared.

pub mod attack;
pub mod endurance;
pub mod floor;
pub mod load;
pub mod peers;
pub mod plot;
pub mod responder;
pub mod scale;
