//! The kind of a finished handshake.
//!
//! Before: `dialogue` has the keys. After: the ledger counts it, and a backend may learn some of it.
//! Never: names the client.

use crate::{ledger::Counter, proxy::ClientTls};

/// The kind of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeKind {
    /// Resumed by a ticket or a session.
    pub is_resumed: bool,
    /// TLS 1.3; else 1.2.
    pub is_tls13: bool,
    /// ALPN `dot` was chosen.
    pub has_alpn: bool,
    /// The client showed a certificate, which was verified.
    pub is_certified: bool,
}

impl HandshakeKind {
    /// The parts that a backend may learn.
    #[must_use]
    pub fn client_tls(self) -> ClientTls {
        let Self { is_tls13, has_alpn, is_certified, .. } = self;
        ClientTls { is_tls13, has_alpn, is_certified }
    }

    /// Its counter in the ledger.
    #[must_use]
    pub fn counter(self) -> Counter {
        match (self.is_resumed, self.is_tls13) {
            (false, true) => Counter::HandshakeFull13,
            (true, true) => Counter::HandshakeResumed13,
            (false, false) => Counter::HandshakeFull12,
            (true, false) => Counter::HandshakeResumed12,
        }
    }
}
