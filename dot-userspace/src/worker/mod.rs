//! Room `worker`: being built.
