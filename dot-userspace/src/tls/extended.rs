//! No resumption in TLS 1.2 for sessions without the extended master secret, where `require_ems` is off.
//!
//! Before: rustls wants to keep a session, as a ticket or by its ID. After: `tickets` or `sessions` keeps it, or it is
//! not kept and its client makes a full handshake again.
//! Holds: the place of the version and the extension in rustls's format of a session.
//! Never: reads more of a session; keeps one that it cannot read.
//!
//! Source: RFC 7627 §5.3: a server should not resume such a session.

use std::sync::Arc;

use rustls::server::{ProducesTickets, StoresServerSessions};

/// The octets of a version, and of a cipher suite.
const VERSION_OCTETS: usize = 2;
const SUITE_OCTETS: usize = 2;
const TLS13: [u8; 2] = [3, 4];

/// Passes a session to the inner store if it may be resumed.
#[derive(Debug)]
pub(super) struct Extended<T: ?Sized>(pub(super) Arc<T>);

impl ProducesTickets for Extended<dyn ProducesTickets> {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    /// Without a ticket rustls sends an empty one, which a client ignores (RFC 5077 §3.3).
    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        if may_resume(session) { self.0.encrypt(session) } else { None }
    }

    /// Another node with the same keys, of another version, may have sealed a ticket for any session.
    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(ticket).filter(|session| may_resume(session))
    }
}

impl<S: StoresServerSessions> StoresServerSessions for Extended<S> {
    fn put(&self, key: Vec<u8>, session: Vec<u8>) -> bool {
        may_resume(&session) && self.0.put(key, session)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.take(key)
    }

    fn can_cache(&self) -> bool {
        self.0.can_cache()
    }
}

/// Whether a session is TLS 1.3, or has the extended master secret.
fn may_resume(session: &[u8]) -> bool {
    version_and_extended(session).is_some_and(|(version, extended)| version == TLS13 || extended)
}

/// Format, as rustls writes it: `[1][octets: u8][server name]` or `[0]`, `[version: u16][suite: u16]` `[octets:
/// u8][master secret]`, `[extended: u8]`, and more.
fn version_and_extended(session: &[u8]) -> Option<([u8; 2], bool)> {
    let (has_name, rest) = session.split_first()?;
    let rest = if *has_name == 1 { after_vector(rest)? } else { rest };
    let version = *rest.first_chunk::<VERSION_OCTETS>()?;
    let rest = after_vector(rest.get(VERSION_OCTETS + SUITE_OCTETS..)?)?;
    Some((version, *rest.first()? == 1))
}

/// The octets behind a vector with a length of one octet.
fn after_vector(octets: &[u8]) -> Option<&[u8]> {
    let (length, rest) = octets.split_first()?;
    rest.get(usize::from(*length)..)
}
