//! Room `tls`: being built.
