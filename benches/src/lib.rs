//! Measures dotd from outside: the waiting time of clients, and the CPU cost of a query.
//!
//! Before: a DNS-over-TLS server, dotd or another. After: numbers, as text and as JSON.
//! Never: reaches into the engine: any server on port 853 can be compared.

pub mod attack;
pub mod endurance;
pub mod floor;
pub mod load;
pub mod misuse;
pub mod packaged;
pub mod peers;
pub mod plot;
pub mod policy;
pub mod responder;
pub mod restart;
pub mod scale;
