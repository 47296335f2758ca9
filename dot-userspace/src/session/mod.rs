//! Room `session`: being built.
