//! Room `cli`: being built.
