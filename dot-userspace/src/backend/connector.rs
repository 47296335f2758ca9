//! TLS towards a backend, as a trait, so that this room knows no TLS library.
//!
//! Before: `start` made one from the config and the `tls` room. After: `dial` has a connection wrapped in it.
//! Never: falls back to cleartext.

use std::{fmt, future::Future, io, pin::Pin, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::config::OnTlsFailure;

/// A connection's octets, decrypted.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {
    /// The connection under it, for the options of its socket.
    fn socket(&self) -> &TcpStream;
}

/// A connection being secured.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Wire>>> + Send + 'a>>;

/// Does the handshake with one backend, and knows by what it is recognised.
pub trait Connector: Send + Sync {
    /// The stream is the backend's own, or there is none. Dropping the future closes the connection.
    fn connect(&self, tcp: TcpStream) -> Connecting<'_>;

    /// Differs where another backend would be believed.
    fn fingerprint(&self) -> u64;
}

/// One backend's TLS. Equal means that the same ones are believed, with the same consequence.
#[derive(Clone)]
pub struct Tls {
    /// Makes streams.
    pub connector: Arc<dyn Connector>,
    /// What becomes of a query when it cannot.
    pub on_failure: OnTlsFailure,
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
