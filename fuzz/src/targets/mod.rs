//! The targets, a file each: what they are given, and what must hold.
//!
//! Before: octets. After: a panic where a promise is broken. Never: depends on an engine.

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
