//! Room `control`: being built.
