//! Room `tls`: certificates, tickets, handshakes. The only room that names rustls.
//!
//! Before: `worker::accept` has a connection. After: `session` reads decrypted octets. Step 5 of 9.
//! Never: reads a DNS message, or lets a handshake outlive its deadline.

pub mod certificate;
mod cipher;
mod client_ca;
mod dialogue;
mod handshake;
mod hello;
mod record;
mod records;
mod self_signed;
mod serving;
mod stream;
mod tickets;
mod turnstile;

pub use client_ca::client_verifier;
pub use handshake::{Handshake, HandshakeFailure, HandshakeKind, accept};
pub use serving::{Serving, ServingError, serving};
pub use stream::{ReadEnd, SCRATCH_OCTETS_MIN, Stream};
pub use tickets::{Tickets, TicketsError};
pub use turnstile::Turnstile;
