//! dotd under test, from the outside: the real binary, real kernels, real clients, real backends.
//!
//! Before: `cargo test` built `dotd`. After: `tests/*.rs` say, file by file, which RFC or attack they cover.
//! Holds: what every test file shares. Never: links the engine into a test that means to watch it from outside.

pub mod frames;
pub mod harness;
pub mod xdp_field;
mod xdp_flows;
pub mod xdp_lab;
mod xdp_race;
pub mod xdp_settings;
