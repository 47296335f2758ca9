//! Module `tls`: certificates, tickets, handshakes. The only module that names rustls.
//!
//! Before: `worker::accept` has a connection. After: `session` reads decrypted octets. Step 5 of 9.
//! Never: reads a DNS message, or lets a handshake outlive its deadline.
//!
//! Modules that parse untrusted octets are public, so that fuzz targets reach them.

pub mod alert;
mod backend_tls;
pub mod certificate;
mod certified;
pub mod cipher;
mod client_ca;
pub mod dialogue;
mod extended;
mod fault;
mod fingerprint;
mod fixed_keys;
mod handshake;
mod handshake_kind;
pub mod hello;
mod inquiry;
pub mod key_update;
pub mod record;
pub mod records;
mod request;
pub mod secrets;
mod server_verifier;
mod serving;
mod sessions;
mod steps;
mod stream;
mod tickets;
mod turnstile;
mod web;

pub use backend_tls::{BackendTls, BackendTlsStream, shown_by};
pub use certificate::{CertificateFacts, self_signed::FILE_NAME as SELF_SIGNED};
pub use certified::Certified;
pub use client_ca::client_verifier;
pub use fault::fault_of;
pub use fingerprint::Offer;
pub use handshake::{Handshake, HandshakeFailure, accept};
pub use handshake_kind::HandshakeKind;
pub use inquiry::{Inquiry, InquiryStream, Shown, Wanted};
pub use request::{Requested, request};
pub use serving::{Serving, ServingError, serving};
pub use stream::{Read, ReadEnd, SCRATCH_OCTETS_MIN, Stream};
pub use tickets::{Tickets, TicketsError};
pub use turnstile::Turnstile;
pub use web::{WebStream, WebTls};
/// Octets that are overwritten when they are given back.
pub use zeroize::Zeroizing;
