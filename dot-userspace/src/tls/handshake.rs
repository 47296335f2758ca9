//! Terminates TLS: makes a decrypted stream of a connection, or a failure with its cause.
//!
//! Before: `worker::accept` admitted the connection. After: `session::serve` has the stream. Step 5 of 9.
//! Never: waits past the deadline, which the client's octets do not extend.
//!
//! Source: RFC 8446 §4, RFC 7858 §3.2, RFC 7301 §3.2.

use std::{io, time::Duration};

use bytes::BufMut as _;
use rustls::{Error as TlsError, PeerIncompatible, PeerMisbehaved};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    HandshakeKind, Offer, Serving, Stream, Turnstile,
    dialogue::{Dialogue, Shown, Step},
    records::Records,
};
use crate::ledger::Counter;

/// Octets read at a time: a ClientHello with a post-quantum share, or a client's last flight with queries behind it.
const READ_OCTETS: usize = 4096;

/// How long a failed client is read, so that octets which it had sent do not turn the alert into a reset.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// Most octets of such a client that are read: as long as a ClientHello may be.
const LINGER_OCTETS_MAX: usize = 64 * 1024;

/// A finished handshake.
pub struct Handshake {
    /// The stream for the session.
    pub stream: Stream,
    /// The kind of handshake.
    pub kind: HandshakeKind,
    /// When the first octets of the ClientHello came.
    pub heard_at: Instant,
    /// The server name that the client asked for, in lower case.
    pub server_name: Option<Box<str>>,
    /// What the client offered, where an operator traces clients.
    pub offer: Option<Box<Offer>>,
    /// The names in its certificate.
    pub client_names: Vec<String>,
    /// The common name of its subject.
    pub common_name: Option<String>,
}

/// Why there is no stream. The alert was sent, if TLS has one for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// Not done by the deadline.
    Timeout,
    /// The client went away.
    Closed,
    /// The client went away before its first octet, as a load balancer's health check does.
    Probe,
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
    /// A server name that is no host name.
    ServerName,
    /// The client sent this alert.
    ClientAlert(u8),
    /// Anything else.
    Other,
}

impl HandshakeFailure {
    /// The alert that the client sent.
    #[must_use]
    pub fn alert(self) -> Option<u8> {
        if let Self::ClientAlert(alert) = self { Some(alert) } else { None }
    }

    /// Its counter in the ledger.
    #[must_use]
    pub fn counter(self) -> Counter {
        match self {
            Self::Timeout => Counter::HandshakeTimeout,
            Self::Closed | Self::Probe => Counter::HandshakeClosed,
            Self::NotTls => Counter::HandshakeNotTls,
            Self::Version => Counter::HandshakeVersion,
            Self::NoCommonParameters => Counter::HandshakeNoCommon,
            Self::Alpn => Counter::HandshakeAlpn,
            Self::ClientCertificate => Counter::HandshakeClientCertificate,
            Self::ServerName => Counter::HandshakeServerName,
            Self::ClientAlert(_) => Counter::HandshakeAlert,
            Self::Other => Counter::HandshakeOther,
        }
    }
}

/// Makes the handshake on `tcp` before `deadline`.
///
/// # Errors
/// [`HandshakeFailure`]; the connection is closed, with the alert that TLS has for it.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn accept(
    mut tcp: TcpStream,
    serving: &Serving,
    turnstile: &Turnstile,
    deadline: Instant,
) -> Result<Handshake, HandshakeFailure> {
    match timeout_at(deadline, shake_hands(&mut tcp, serving, turnstile)).await {
        Ok(Ok(Shaken { kind, shown, records, carry, unsent, heard_at })) => {
            let Shown { server_name, offer, client_names, common_name } = shown;
            let stream = Stream::new(tcp, records, carry, unsent);
            Ok(Handshake { stream, kind, heard_at, server_name, offer, client_names, common_name })
        }
        Ok(Err(Failed::Tls(error))) => {
            // Boxed: a handshake needs this memory only at its end.
            let _ = Box::pin(timeout(LINGER_MAX, linger(&mut tcp))).await;
            Err(cause_of(&error))
        }
        Ok(Err(Failed::Transport)) => Err(HandshakeFailure::Closed),
        Ok(Err(Failed::Silent)) => Err(HandshakeFailure::Probe),
        Err(_) => Err(HandshakeFailure::Timeout),
    }
}

/// The result of a handshake.
struct Shaken {
    kind: HandshakeKind,
    shown: Shown,
    records: Records,
    carry: Vec<u8>,
    unsent: Vec<u8>,
    heard_at: Instant,
}

/// Why it ended early.
enum Failed {
    Tls(TlsError),
    Transport,
    /// The transport ended before the first octet.
    Silent,
}

impl From<TlsError> for Failed {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl From<io::Error> for Failed {
    fn from(_: io::Error) -> Self {
        Self::Transport
    }
}

async fn shake_hands(
    tcp: &mut TcpStream,
    serving: &Serving,
    turnstile: &Turnstile,
) -> Result<Shaken, Failed> {
    let mut dialogue = Dialogue::new(serving)?;
    let mut heard_at = None;
    loop {
        match dialogue.step() {
            Ok(Step::Turn { is_short }) => turnstile.pass(is_short).await,
            Ok(Step::Read) => {
                flush(tcp, &mut dialogue.outbound).await?;
                let heard = read(tcp, dialogue.inbound()).await;
                heard.map_err(|error| if heard_at.is_some() { error.into() } else { Failed::Silent })?;
                heard_at.get_or_insert_with(Instant::now);
            }
            Ok(Step::Done) => break,
            Err(error) => {
                // Sends our FIN behind the alert. Whether it arrives does not change the cause.
                if flush(tcp, &mut dialogue.outbound).await.is_ok() {
                    let _ = tcp.shutdown().await;
                }
                return Err(error.into());
            }
        }
    }
    let shown = dialogue.shown();
    let (kind, records, carry, mut unsent) = dialogue.finish()?;
    if !kind.is_tls13 {
        // The client waits for our Finished; in TLS 1.3 only a ticket is left.
        flush(tcp, &mut unsent).await?;
    }
    let heard_at = heard_at.unwrap_or_else(Instant::now);
    Ok(Shaken { kind, shown, records, carry, unsent, heard_at })
}

/// Reads what a client still sends after its failure, until its FIN or a limit. Closing a socket with unread octets
/// sends RST, which destroys an alert that the peer has not read.
async fn linger(tcp: &mut TcpStream) {
    let (mut octets, mut taken) = ([0; READ_OCTETS], 0);
    while taken < LINGER_OCTETS_MAX {
        match tcp.read(&mut octets).await {
            Ok(0) | Err(_) => return,
            Ok(more) => taken += more,
        }
    }
}

async fn flush(tcp: &mut TcpStream, octets: &mut Vec<u8>) -> io::Result<()> {
    if !octets.is_empty() {
        tcp.write_all(octets).await?;
        octets.clear();
    }
    Ok(())
}

/// Appends received octets to `inbound`.
async fn read(tcp: &mut TcpStream, inbound: &mut Vec<u8>) -> io::Result<()> {
    inbound.reserve(READ_OCTETS);
    // No more, whatever space a large ClientHello has left: the octets behind the handshake must fit a session's
    // buffer.
    match tcp.read_buf(&mut inbound.limit(READ_OCTETS)).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn cause_of(error: &TlsError) -> HandshakeFailure {
    match error {
        TlsError::InvalidMessage(_) | TlsError::InappropriateMessage { .. } => HandshakeFailure::NotTls,
        TlsError::NoApplicationProtocol => HandshakeFailure::Alpn,
        TlsError::NoCertificatesPresented | TlsError::InvalidCertificate(_) => {
            HandshakeFailure::ClientCertificate
        }
        TlsError::AlertReceived(alert) => HandshakeFailure::ClientAlert(u8::from(*alert)),
        TlsError::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName) => {
            HandshakeFailure::ServerName
        }
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
