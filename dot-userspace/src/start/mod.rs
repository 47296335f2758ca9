//! Room `start`: being built.
