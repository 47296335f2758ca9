//! The targets, a file each: their input, and their assertions.
//!
//! Before: octets. After: a panic if an assertion fails. Never: depends on an engine.

pub mod config;
pub mod framing;
pub mod hello;
pub mod lifetime;
pub mod options;
pub mod packet;
pub mod proxy;
pub mod query;
pub mod record;
pub mod response;
pub mod twins;
