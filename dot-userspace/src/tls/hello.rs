//! Reads the ClientHello, and answers what is none with the alert that TLS has for it.
//!
//! Before: `handshake::accept` has a fresh connection. After: it knows the hello, or why there is none.
//! Never: keeps more than one hello's octets; rustls bounds them at 64 KiB.
//!
//! Source: RFC 8446 §4.1.2 and §6.2, appendix D.5.

use std::io::{self, Read};

use rustls::{
    Error as TlsError, PeerIncompatible,
    server::{Accepted, Acceptor},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// A fatal `protocol_version` alert in the record version that every TLS client reads.
const PROTOCOL_VERSION_ALERT: [u8; 7] = [0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 70];

/// Reads until the hello is whole.
///
/// # Errors
/// A `rustls::Error` inside when the octets are no hello that we can serve (the alert is then sent), else
/// the transport's.
///
/// # Cancel safety
/// What was read is lost with the connection; nothing else is.
pub(super) async fn read(tcp: &mut TcpStream) -> io::Result<Accepted> {
    let mut acceptor = Acceptor::default();
    loop {
        tcp.readable().await?;
        match acceptor.read_tls(&mut Ready(tcp)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut octets = Vec::new();
                alert.write_all(&mut octets)?;
                tcp.write_all(alert_for(&error).unwrap_or(&octets)).await?;
                // Our FIN behind the alert; the client's octets that we never read would turn it into a reset.
                tcp.shutdown().await?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}

/// The alert where rustls has a less fitting one: before TLS 1.2 a hello has no signature algorithms, and
/// what is wrong with it is its version.
fn alert_for(error: &TlsError) -> Option<&'static [u8]> {
    let is_old =
        matches!(error, TlsError::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired));
    is_old.then_some(&PROTOCOL_VERSION_ALERT)
}

/// Reads what is there, without waiting.
struct Ready<'a>(&'a TcpStream);

impl Read for Ready<'_> {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(octets)
    }
}
