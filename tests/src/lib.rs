//! dotd, tested from the outside: the real binary, real kernels, real clients, real backends.
//!
//! Before: `cargo test` built `dotd`. After: each file in `tests/tests/it/` states which RFC or attack it covers.
//! Holds: the code that test files share. Never: links the engine into a test that observes it from outside.

pub mod cards;
pub mod frames;
pub mod harness;
pub mod xdp_field;
mod xdp_flows;
pub mod xdp_lab;
mod xdp_race;
pub mod xdp_settings;
pub mod xdp_traces;
