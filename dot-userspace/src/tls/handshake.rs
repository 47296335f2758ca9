//! Terminates TLS: a connection becomes a decrypted stream, or a failure with its cause.
//!
//! Before: `worker::accept` admitted the connection. After: `session::serve` has the stream. Step 5 of 9.
//! Never: waits past the deadline, which octets from the client do not move.
//!
//! Source: RFC 8446 §4, RFC 7858 §3.2, RFC 7301 §3.2.

use std::io;

use rustls::{Error as TlsError, PeerIncompatible, ProtocolVersion};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::StartHandshake;

use super::{Serving, hello};
use crate::{ledger::Counter, proxy::ClientTls};

/// A stream of decrypted octets.
pub type Stream = tokio_rustls::server::TlsStream<TcpStream>;

/// A handshake that is done.
pub struct Handshake {
    /// What the session reads and writes.
    pub stream: Stream,
    /// How it was done.
    pub kind: HandshakeKind,
}

impl Handshake {
    /// What a backend may learn of it.
    #[must_use]
    pub fn client_tls(&self) -> ClientTls {
        let (_, connection) = self.stream.get_ref();
        ClientTls {
            is_tls13: self.kind.is_tls13,
            has_alpn: connection.alpn_protocol().is_some(),
            is_certified: connection.peer_certificates().is_some(),
        }
    }
}

/// How a handshake was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeKind {
    /// By a ticket.
    pub is_resumed: bool,
    /// TLS 1.3; else 1.2.
    pub is_tls13: bool,
}

impl HandshakeKind {
    /// Its line in the ledger.
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

/// Why there is no stream. The alert, where TLS has one, was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// Not done by the deadline.
    Timeout,
    /// The client went away.
    Closed,
    /// The octets are not TLS.
    NotTls,
    /// No version in common.
    Version,
    /// No suite, group or scheme in common.
    NoCommonParameters,
    /// ALPN without `dot`.
    Alpn,
    /// Mutual TLS: no certificate, or none from `tls.client_ca`.
    ClientCertificate,
    /// The client sent an alert.
    ClientAlert,
    /// Anything else.
    Other,
}

impl HandshakeFailure {
    /// Its line in the ledger.
    #[must_use]
    pub fn counter(self) -> Counter {
        match self {
            Self::Timeout => Counter::HandshakeTimeout,
            Self::Closed => Counter::HandshakeClosed,
            Self::NotTls => Counter::HandshakeNotTls,
            Self::Version => Counter::HandshakeVersion,
            Self::NoCommonParameters => Counter::HandshakeNoCommon,
            Self::Alpn => Counter::HandshakeAlpn,
            Self::ClientCertificate => Counter::HandshakeClientCertificate,
            Self::ClientAlert => Counter::HandshakeAlert,
            Self::Other => Counter::HandshakeOther,
        }
    }
}

/// Does the handshake on `tcp` before `deadline`.
///
/// # Errors
/// [`HandshakeFailure`]; the connection is closed.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn accept(
    tcp: TcpStream,
    serving: &Serving,
    deadline: Instant,
) -> Result<Handshake, HandshakeFailure> {
    match timeout_at(deadline, shake_hands(tcp, serving)).await {
        Ok(Ok(stream)) => Ok(Handshake { kind: kind_of(&stream), stream }),
        Ok(Err(error)) => Err(cause_of(&error)),
        Err(_) => Err(HandshakeFailure::Timeout),
    }
}

async fn shake_hands(mut tcp: TcpStream, serving: &Serving) -> io::Result<Stream> {
    let accepted = hello::read(&mut tcp).await?;
    StartHandshake::from_parts(accepted, tcp).into_stream(serving.0.clone()).await
}

fn kind_of(stream: &Stream) -> HandshakeKind {
    let (_, connection) = stream.get_ref();
    HandshakeKind {
        is_resumed: matches!(connection.handshake_kind(), Some(rustls::HandshakeKind::Resumed)),
        is_tls13: connection.protocol_version() == Some(ProtocolVersion::TLSv1_3),
    }
}

fn cause_of(error: &io::Error) -> HandshakeFailure {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) else {
        return HandshakeFailure::Closed;
    };
    match error {
        TlsError::InvalidMessage(_) | TlsError::InappropriateMessage { .. } => HandshakeFailure::NotTls,
        TlsError::NoApplicationProtocol => HandshakeFailure::Alpn,
        TlsError::NoCertificatesPresented | TlsError::InvalidCertificate(_) => {
            HandshakeFailure::ClientCertificate
        }
        TlsError::AlertReceived(_) => HandshakeFailure::ClientAlert,
        TlsError::PeerIncompatible(reason) => match reason {
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled => HandshakeFailure::Version,
            _ => HandshakeFailure::NoCommonParameters,
        },
        _ => HandshakeFailure::Other,
    }
}

/// Whether an error of an established stream is the other side's TLS, not its transport.
#[must_use]
pub fn is_tls_error(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TlsError>())
}
