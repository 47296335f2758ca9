//! Room `tls`: being built.

pub mod certificate;
mod self_signed;
