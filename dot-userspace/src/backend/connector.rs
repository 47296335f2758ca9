//! TLS towards a backend, as a trait, so that this module needs no TLS library.
//!
//! Before: `start` made one from the config and the module `tls`. After: `dial` has a TLS connection.
//! Never: falls back to cleartext: that is a backend of its own (`worker_backend`), which the memory permits.

use std::{fmt, future::Future, io, pin::Pin, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::TlsMemory;
use crate::{
    config::{OnTlsFailure, TlsVersion},
    ledger::TlsFault,
};

/// A connection that decrypts what it reads and encrypts what it writes.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {
    /// The TCP connection under it, for its socket options.
    fn socket(&self) -> &TcpStream;

    /// The version of TLS, and the pin of the peer's key; `None`: it cannot be read.
    fn shown(&self) -> (TlsVersion, Option<String>);
}

/// A handshake under way.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Wire>>> + Send + 'a>>;

/// Makes TLS connections to one backend, and authenticates it.
pub trait Connector: Send + Sync {
    /// Makes the handshake. Fails if the peer is not the backend that the config describes. Dropping the future
    /// closes the connection.
    fn connect(&self, tcp: TcpStream) -> Connecting<'_>;

    /// The kind of failure that a handshake ended with.
    fn fault(&self, error: &io::Error) -> TlsFault;

    /// Two connectors that accept different backends have different fingerprints.
    fn fingerprint(&self) -> u64;
}

/// One backend's TLS settings. Two are equal if they accept the same backends, with the same consequence on
/// failure.
#[derive(Clone)]
pub struct Tls {
    /// Makes the connections.
    pub connector: Arc<dyn Connector>,
    /// What happens to a query when TLS fails.
    pub on_failure: OnTlsFailure,
    /// What is remembered of its handshakes.
    pub memory: TlsMemory,
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        (self.connector.fingerprint(), self.on_failure) == (other.connector.fingerprint(), other.on_failure)
    }
}

impl Eq for Tls {}

impl fmt::Debug for Tls {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        form.debug_struct("Tls").field("on_failure", &self.on_failure).finish_non_exhaustive()
    }
}
