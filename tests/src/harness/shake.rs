//! A client's handshake, flight by flight: a test decides which octets are sent, how they are cut, and whether they are
//! sent.
//!
//! Before: an offer. After: a session, or a connection that a test has left in the middle.
//! Holds: rustls's client and the socket. Never: sends anything on its own, or reads past a record.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::ClientConnection;

use super::{
    clients::{DOT_PORT, tcp},
    dot::{Dot, End},
    netns::Namespace,
    offer::{Offer, connection},
    sealer::Secrets,
};

/// A handshake in progress.
#[derive(Debug)]
pub struct Shake {
    /// The connection below TLS.
    pub stream: TcpStream,
    tls: ClientConnection,
    secrets: Arc<Secrets>,
}

impl Shake {
    /// Connects, and sends nothing.
    #[must_use]
    pub fn new(namespace: &Namespace, server: IpAddr, offer: &Offer) -> Self {
        let stream = tcp(namespace, SocketAddr::new(server, DOT_PORT));
        let (tls, secrets) = connection(server, offer);
        Self { stream, tls, secrets }
    }

    /// The octets that the client would send now: its hello, or its last flight.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    #[must_use]
    pub fn flight(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut octets).expect("memory does not fail");
        }
        octets
    }

    /// Sends any octets, each part in a segment of its own.
    ///
    /// # Errors
    /// The server does not accept them.
    pub fn send<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) -> io::Result<()> {
        parts.into_iter().try_for_each(|part| self.stream.write_all(part))
    }

    /// Reads until the client has another flight, and returns that.
    ///
    /// # Panics
    /// When the server ends the connection, or sends something that is no handshake.
    pub fn hear(&mut self) -> Vec<u8> {
        while !self.tls.wants_write() {
            let record = read_record(&mut self.stream).expect("the server goes on");
            self.tls.read_tls(&mut &*record).expect("memory does not fail");
            self.tls.process_new_packets().expect("a handshake");
        }
        self.flight()
    }

    /// Completes the handshake from its current state, and returns the session.
    ///
    /// # Errors
    /// How the handshake ended.
    pub fn finish(self) -> Result<Dot, End> {
        Dot::after(self.stream, (self.tls, self.secrets))
    }
}

/// One whole record.
fn read_record(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut record = vec![0; 5];
    stream.read_exact(&mut record)?;
    record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
    stream.read_exact(&mut record[5..])?;
    Ok(record)
}

/// Whole records at the front of `octets`: their types and contents.
#[must_use]
pub fn records(mut octets: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let Some(header) = octets.first_chunk::<5>() {
        let end = 5 + usize::from(u16::from_be_bytes([header[3], header[4]]));
        let Some(content) = octets.get(5..end) else { break };
        found.push((header[0], content));
        octets = &octets[end..];
    }
    found
}

/// A hello, cut into records of that many octets.
///
/// # Panics
/// When `octets` are not a record.
#[must_use]
pub fn recut(octets: &[u8], step: usize) -> Vec<u8> {
    let [(kind, hello)] = records(octets)[..] else { panic!("one record, not {octets:02x?}") };
    let cut = |part: &[u8]| {
        let length = u16::try_from(part.len()).expect("short").to_be_bytes();
        [&[kind, 3, 1][..], &length, part].concat()
    };
    hello.chunks(step).flat_map(cut).collect()
}
