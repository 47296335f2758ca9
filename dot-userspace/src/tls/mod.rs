//! Room `tls`: certificates, tickets, handshakes. The only room that names rustls.
//!
//! Before: `worker::accept` has a connection. After: `session` reads decrypted octets. Step 5 of 9.
//! Never: reads a DNS message, or lets a handshake outlive its deadline.

pub mod certificate;
mod client_ca;
mod handshake;
mod hello;
mod self_signed;
mod serving;
mod tickets;
mod upstream;

pub use client_ca::client_verifier;
pub use handshake::{Handshake, HandshakeFailure, HandshakeKind, Stream, accept, is_tls_error};
pub use serving::{Serving, ServingError, serving};
pub use tickets::{Tickets, TicketsError};
pub use upstream::Upstream;
