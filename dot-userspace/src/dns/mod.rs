//! Room `dns`: being built.
