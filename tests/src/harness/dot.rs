//! The tests' own DNS-over-TLS client, which sees each record and sends exactly the octets that it is given.
//!
//! Before: a namespace and an address. After: messages, records, and how the session ended.
//! Holds: rustls without its stream: a test can count the octets in both directions.
//! Never: checks the certificate (kdig and getdns do), retries, or hides an alert.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use rustls::{ClientConnection, NamedGroup};
use socket2::SockRef;

use super::{
    clients::{DOT_PORT, tcp},
    message::framed,
    netns::Namespace,
    offer::{Offer, connection},
    response::Message,
    scripted::take_message,
    sealer::{Sealer, Secrets},
    uninterrupted,
};

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// close_notify, then FIN: as it should be.
    CloseNotify,
    /// FIN without close_notify: a truncation attack looks like this.
    BareFin,
    /// RST.
    Reset,
    /// An error of TLS, for example an alert from the server.
    Broken(String),
}

/// One session.
#[derive(Debug)]
pub struct Dot {
    stream: TcpStream,
    tls: ClientConnection,
    secrets: Arc<Secrets>,
    incoming: Vec<u8>,
    records: Vec<usize>,
    plain: Vec<u8>,
    end: Option<End>,
}

impl Dot {
    /// Connects, does the handshake with ALPN `dot` and no SNI.
    ///
    /// # Panics
    /// When the handshake fails.
    #[must_use]
    pub fn connect(namespace: &Namespace, server: IpAddr) -> Self {
        Self::attempt(namespace, server, &Offer::default()).unwrap_or_else(|end| panic!("handshake: {end:?}"))
    }

    /// The same, with this offer.
    ///
    /// # Errors
    /// How the handshake ended.
    pub fn attempt(namespace: &Namespace, server: IpAddr, offer: &Offer) -> Result<Self, End> {
        Self::over(tcp(namespace, SocketAddr::new(server, DOT_PORT)), server, offer)
    }

    /// The handshake over a connection that is open already.
    ///
    /// # Errors
    /// How the handshake ended.
    pub fn over(stream: TcpStream, server: IpAddr, offer: &Offer) -> Result<Self, End> {
        Self::after(stream, connection(server, offer))
    }

    /// Continues a handshake.
    pub(super) fn after(
        stream: TcpStream,
        (tls, secrets): (ClientConnection, Arc<Secrets>),
    ) -> Result<Self, End> {
        let (incoming, records, plain) = Default::default();
        let mut session = Self { stream, tls, secrets, incoming, records, plain, end: None };
        session.flush();
        while session.tls.is_handshaking() && session.end.is_none() {
            session.pump();
        }
        session.records.clear();
        session.end.take().map_or(Ok(session), Err)
    }

    /// Whether its handshake resumed an earlier session.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// The ALPN name the server chose.
    #[must_use]
    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.tls.alpn_protocol().map(<[u8]>::to_vec)
    }

    /// The group in which the keys were agreed.
    #[must_use]
    pub fn group(&self) -> Option<NamedGroup> {
        self.tls.negotiated_key_exchange_group().map(|group| group.name())
    }

    /// Changes the client's sending keys, and asks the server to change its own (RFC 8446 §4.6.3).
    ///
    /// # Panics
    /// Before TLS 1.3.
    pub fn update_keys(&mut self) {
        self.tls.refresh_traffic_keys().expect("TLS 1.3, after its handshake");
        self.flush();
    }

    /// The record of such a change, which the caller sends.
    ///
    /// # Panics
    /// Before TLS 1.3.
    pub fn key_update(&mut self) -> Vec<u8> {
        self.tls.refresh_traffic_keys().expect("TLS 1.3, after its handshake");
        let mut octets = Vec::new();
        self.tls.write_tls(&mut octets).expect("memory does not fail");
        octets
    }

    /// The same, with a pause before the record's last three octets.
    ///
    /// # Panics
    /// Before TLS 1.3, or when the connection is gone.
    pub fn update_keys_in_two_parts(&mut self, pause: Duration) {
        let octets = self.key_update();
        let (front, rest) = octets.split_at(octets.len() - 3);
        self.send_below_tls(front);
        thread::sleep(pause);
        self.send_below_tls(rest);
    }

    /// As [`Dot::update_keys`]; `false` when the socket accepted nothing for a while.
    pub fn try_update_keys(&mut self) -> bool {
        self.stream.set_write_timeout(Some(Duration::from_millis(100))).expect("not zero");
        self.update_keys();
        self.end.is_none()
    }

    /// The sealed octets as they would be sent, for a test that cuts them differently.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    #[must_use]
    pub fn seal(&mut self, octets: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(octets).expect("rustls takes it");
        let mut sealed = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut sealed).expect("memory does not fail");
        }
        sealed
    }

    /// Sends octets from a thread of their own, until the socket refuses them, so that the test can read answers
    /// meanwhile.
    ///
    /// # Panics
    /// When the socket cannot be shared.
    pub fn send_in_the_background(&mut self, octets: &[u8]) -> JoinHandle<()> {
        // rustls accepts no more at once.
        let sealed: Vec<u8> = octets.chunks(16_384).flat_map(|chunk| self.seal(chunk)).collect();
        let mut stream = self.stream.try_clone().expect("a socket");
        thread::spawn(move || drop(stream.write_all(&sealed)))
    }

    /// Sends octets outside of TLS, as an attacker on the path would.
    pub fn send_below_tls(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).expect("still open");
    }

    /// Sends one octet as urgent (RFC 9293 §3.8.5): it is no part of the stream.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn send_urgent(&mut self) {
        SockRef::from(&self.stream).send_out_of_band(&[0x55]).expect("still open");
    }

    /// The server's certificates, leaf first.
    #[must_use]
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        self.tls.peer_certificates().unwrap_or_default().iter().map(|der| der.to_vec()).collect()
    }

    /// Sends octets unchanged, in one record and one write (if they are at most 16 KiB).
    pub fn send(&mut self, octets: &[u8]) {
        self.tls.writer().write_all(octets).expect("rustls takes it");
        self.flush();
    }

    /// Sends one message with its length prefix.
    pub fn ask(&mut self, message: &[u8]) {
        self.send(&framed(message));
    }

    /// Sends many messages in one write.
    pub fn ask_all(&mut self, messages: &[Vec<u8>]) {
        let octets: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
        self.send(&octets);
    }

    /// The same, where the server may refuse to read more: `false` when the socket accepted nothing for a while, or the
    /// session is over.
    ///
    /// # Panics
    /// When the socket is broken.
    pub fn try_ask_all(&mut self, messages: &[Vec<u8>]) -> bool {
        self.stream.set_write_timeout(Some(Duration::from_millis(100))).expect("not zero");
        self.ask_all(messages);
        self.end.is_none()
    }

    /// The next message, octets only; `None` when the session ended first.
    pub fn receive_octets(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(message) = take_message(&mut self.plain) {
                return Some(message);
            }
            if self.end.is_some() {
                return None;
            }
            self.pump();
        }
    }

    /// The next message, parsed.
    ///
    /// # Panics
    /// When the session ends first or the message is not well-formed.
    pub fn receive(&mut self) -> Message {
        let octets = self.receive_octets().unwrap_or_else(|| panic!("a message, not {:?}", self.end));
        Message::parse(&octets).unwrap_or_else(|| panic!("not a DNS message: {octets:02x?}"))
    }

    /// Sends a query and returns its answer.
    ///
    /// # Panics
    /// As [`Dot::receive`].
    pub fn exchange(&mut self, message: &[u8]) -> Message {
        self.ask(message);
        self.receive()
    }

    /// Plaintext octets of each application record so far, since the handshake.
    #[must_use]
    pub fn records(&self) -> &[usize] {
        &self.records
    }

    /// Sends close_notify and FIN, and goes on reading.
    ///
    /// # Panics
    /// When the connection is gone already.
    pub fn half_close(&mut self) {
        self.tls.send_close_notify();
        self.flush();
        self.stream.shutdown(Shutdown::Write).expect("still open");
    }

    /// Gives away the keys of its records, for a test that seals records no library would.
    ///
    /// # Panics
    /// Never: the handshake is done.
    #[must_use]
    pub fn into_sealer(self) -> Sealer {
        let keys = self.tls.dangerous_extract_secrets().expect("after its handshake");
        Sealer::new(self.stream, keys, &self.secrets)
    }

    /// The connection below TLS, for a test that reads in a way no client would.
    #[must_use]
    pub const fn tcp(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Ends with RST, as a client that crashed.
    ///
    /// # Panics
    /// When the connection is gone already.
    pub fn abort(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    }

    /// Reads until the session ends; messages that arrive meanwhile are discarded.
    pub fn end(&mut self) -> End {
        loop {
            if let Some(end) = &self.end {
                return end.clone();
            }
            self.pump();
        }
    }

    /// Whether every message that arrived was returned; looks at the network too, and does not wait.
    #[must_use]
    pub fn is_quiet(&mut self) -> bool {
        let mut chunk = [0; 16_384];
        self.stream.set_nonblocking(true).expect("a socket");
        let read = uninterrupted(|| self.stream.read(&mut chunk));
        self.stream.set_nonblocking(false).expect("a socket");
        if !read.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            self.took(read, &chunk);
        }
        self.plain.is_empty() && self.end.is_none()
    }

    fn flush(&mut self) {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut self.stream).is_err() {
                self.end.get_or_insert(End::Reset);
                return;
            }
        }
    }

    /// Reads from the network once, and processes the octets record by record.
    fn pump(&mut self) {
        let mut chunk = [0; 16_384];
        let read = uninterrupted(|| self.stream.read(&mut chunk));
        self.took(read, &chunk);
    }

    fn took(&mut self, read: io::Result<usize>, chunk: &[u8]) {
        match read {
            Ok(0) => {
                self.end.get_or_insert(End::BareFin);
            }
            Ok(count) => self.incoming.extend(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.end.get_or_insert(End::Reset);
            }
            Err(error) => panic!("nothing came from the server: {error}"),
        }
        while let Some(record) = take_record(&mut self.incoming) {
            self.take(&record);
        }
        self.flush();
    }

    fn take(&mut self, record: &[u8]) {
        let mut rest = record;
        while !rest.is_empty() && self.end.is_none() {
            self.tls.read_tls(&mut rest).expect("memory does not fail");
            match self.tls.process_new_packets() {
                Ok(state) => {
                    let mut plain = vec![0; state.plaintext_bytes_to_read()];
                    self.tls.reader().read_exact(&mut plain).expect("as many as rustls says");
                    if !plain.is_empty() {
                        self.records.push(plain.len());
                    }
                    self.plain.extend(plain);
                    if state.peer_has_closed() {
                        self.end = Some(End::CloseNotify);
                    }
                }
                Err(error) => self.end = Some(End::Broken(error.to_string())),
            }
        }
    }
}

/// Takes one whole TLS record from the front, if it is there.
fn take_record(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes([*buffer.get(3)?, *buffer.get(4)?]));
    (buffer.len() >= 5 + length).then(|| buffer.drain(..5 + length).collect())
}
