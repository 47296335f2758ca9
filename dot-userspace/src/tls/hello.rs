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
    let mut opening = Opening::default();
    loop {
        tcp.readable().await?;
        match acceptor.read_tls(&mut Ready { tcp, opening: &mut opening }) {
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
                let is_old = opening.is_before_tls12();
                tcp.write_all(if is_old { &PROTOCOL_VERSION_ALERT } else { &octets }).await?;
                // Our FIN behind the alert; the client's octets that we never read would turn it into a reset.
                tcp.shutdown().await?;
                let error = if is_old { PeerIncompatible::Tls12NotOffered.into() } else { error };
                return Err(io::Error::new::<TlsError>(io::ErrorKind::InvalidData, error));
            }
        }
    }
}

/// The first octets of a connection, as far as they tell a hello's version: a record header, a handshake
/// header, `legacy_version`.
#[derive(Default)]
struct Opening {
    octets: [u8; 11],
    length: usize,
}

impl Opening {
    fn note(&mut self, octets: &[u8]) {
        for (room, octet) in self.octets.iter_mut().skip(self.length).zip(octets) {
            *room = *octet;
            self.length += 1;
        }
    }

    /// A ClientHello of SSL 3, TLS 1.0 or 1.1. It has no signature algorithms, which is what rustls would
    /// complain about; what is wrong with it is its version.
    fn is_before_tls12(&self) -> bool {
        matches!(self.octets, [22, 3, _, _, _, 1, _, _, _, 3, minor] if self.length == 11 && minor < 3)
    }
}

/// Reads what is there, without waiting.
struct Ready<'a> {
    tcp: &'a TcpStream,
    opening: &'a mut Opening,
}

impl Read for Ready<'_> {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        let count = self.tcp.try_read(octets)?;
        self.opening.note(octets.get(..count).unwrap_or_default());
        Ok(count)
    }
}
