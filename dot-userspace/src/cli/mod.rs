//! Room `cli`: being built.

pub mod logging;
