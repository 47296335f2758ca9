//! Seals and opens records by hand: empty records, floods of alerts and others that no library would send, and the
//! server's answers.
//!
//! Before: a session whose client gives its keys away. After: records of any type, version and content were sent in
//! order, and the server's answers were read.
//! Holds: both keys, the numbers of their next records, and in TLS 1.3 the secrets that make the next keys.
//! Never: sends a record that a test did not ask for: it follows a key update of the server, and does not answer it.
//!
//! Source: RFC 8446 §5.2, §5.3, §7.2, §7.3; RFC 5246 §6.2.3.3; RFC 5288 §3; RFC 7905 §2.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::Mutex,
};

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, HKDF_SHA384, KeyType, Prk},
};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets, KeyLog};

/// Content types (RFC 8446 §5.1).
pub const ALERT: u8 = 21;
/// A handshake message.
pub const HANDSHAKE: u8 = 22;
/// Application data.
pub const APPLICATION_DATA: u8 = 23;
/// The authentication tag of every supported suite.
const TAG_OCTETS: usize = 16;
/// A KeyUpdate without its last octet.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];

/// The traffic secrets of one client, client's first, as rustls tells them.
#[derive(Debug, Default)]
pub struct Secrets(Mutex<[Vec<u8>; 2]>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let mut secrets = self.0.lock().expect("no test panics while it holds it");
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => secrets[0] = secret.to_vec(),
            "SERVER_TRAFFIC_SECRET_0" => secrets[1] = secret.to_vec(),
            _ => {}
        }
    }
}

/// How a connection ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fin {
    /// By FIN.
    Fin,
    /// By RST.
    Reset,
}

/// The keys of one direction.
#[derive(Debug)]
struct Key {
    key: LessSafeKey,
    algorithm: &'static Algorithm,
    iv: [u8; 12],
    number: u64,
    /// Empty in TLS 1.2.
    secret: Vec<u8>,
}

/// A label's output length.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Key {
    fn new((number, secrets): (u64, ConnectionTrafficSecrets), secret: &[u8]) -> Self {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => panic!("no suite of ours"),
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).expect("of its length"));
        let iv = iv.as_ref().try_into().expect("twelve octets");
        Self { key, algorithm, iv, number, secret: secret.to_vec() }
    }

    /// HKDF-Expand-Label without a context.
    fn expand(&self, label: &str, octets: usize) -> Vec<u8> {
        let hash = if self.secret.len() == 48 { HKDF_SHA384 } else { HKDF_SHA256 };
        let label = format!("tls13 {label}");
        let [high, low] = u16::try_from(octets).expect("short").to_be_bytes();
        let sized = u8::try_from(label.len()).expect("short");
        let parts: [&[u8]; 4] = [&[high, low], &[sized], label.as_bytes(), &[0]];
        let mut out = vec![0; octets];
        let prk = Prk::new_less_safe(hash, &self.secret);
        prk.expand(&parts, Length(octets)).expect("short").fill(&mut out).expect("of its length");
        out
    }

    /// The next generation (RFC 8446 §7.2).
    fn update(&mut self) {
        self.secret = self.expand("traffic upd", self.secret.len());
        let key = self.expand("key", self.algorithm.key_len());
        self.iv = self.expand("iv", 12).try_into().expect("twelve octets");
        self.key = LessSafeKey::new(UnboundKey::new(self.algorithm, &key).expect("of its length"));
        self.number = 0;
    }

    /// The explicit part of the nonce, in TLS 1.2 with AES-GCM.
    fn explicit_octets(&self, is_tls13: bool) -> usize {
        if is_tls13 || self.algorithm == &CHACHA20_POLY1305 { 0 } else { 8 }
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (octet, more) in nonce[4..].iter_mut().zip(self.number.to_be_bytes()) {
            *octet ^= more;
        }
        nonce
    }

    fn aad12(&self, content_type: u8, version: [u8; 2], octets: usize) -> Vec<u8> {
        let length = u16::try_from(octets).expect("one record").to_be_bytes();
        [&self.number.to_be_bytes()[..], &[content_type], &version, &length].concat()
    }
}

/// Seals a client's records.
#[derive(Debug)]
pub struct Pen {
    is_tls13: bool,
    key: Key,
}

impl Pen {
    pub(super) fn new(keys: (u64, ConnectionTrafficSecrets), secrets: &Secrets) -> Self {
        let secrets = secrets.0.lock().expect("no test panics while it holds it");
        Self { is_tls13: !secrets[0].is_empty(), key: Key::new(keys, &secrets[0]) }
    }

    /// The next record, of this version.
    ///
    /// # Panics
    /// When it would be too long.
    pub fn seal_as(&mut self, version: [u8; 2], content_type: u8, content: &[u8]) -> Vec<u8> {
        if self.is_tls13 {
            return self.seal_inside(version, &[content, &[content_type]].concat());
        }
        let explicit = self.key.explicit_octets(false);
        let nonce = self.key.nonce();
        let mut body = content.to_vec();
        let aad = self.key.aad12(content_type, version, content.len());
        let nonce_on_wire = nonce[12 - explicit..].to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut body).expect("it fits");
        self.key.number += 1;
        let length = u16::try_from(explicit + body.len()).expect("one record").to_be_bytes();
        [&[content_type], &version[..], &length, &nonce_on_wire, &body].concat()
    }

    /// The next record of TLS 1.3 with a complete TLSInnerPlaintext: content, type and padding, or less.
    ///
    /// # Panics
    /// When it would be too long.
    pub fn seal_inside(&mut self, version: [u8; 2], inside: &[u8]) -> Vec<u8> {
        let length = u16::try_from(inside.len() + TAG_OCTETS).expect("one record").to_be_bytes();
        let header = [&[APPLICATION_DATA], &version[..], &length].concat();
        let nonce = Nonce::assume_unique_for_key(self.key.nonce());
        let mut body = inside.to_vec();
        self.key.key.seal_in_place_append_tag(nonce, Aad::from(&*header), &mut body).expect("it fits");
        self.key.number += 1;
        [header, body].concat()
    }

    /// Seals the records from now on with the next key.
    pub fn update_key(&mut self) {
        self.key.update();
    }
}

/// The keys of both directions of a client.
#[derive(Debug)]
pub struct Sealer {
    stream: TcpStream,
    is_tls13: bool,
    pen: Pen,
    receiving: Key,
}

impl Sealer {
    pub(super) fn new(stream: TcpStream, keys: ExtractedSecrets, secrets: &Secrets) -> Self {
        let pen = Pen::new(keys.tx, secrets);
        let secrets = secrets.0.lock().expect("no test panics while it holds it");
        Self { stream, is_tls13: pen.is_tls13, pen, receiving: Key::new(keys.rx, &secrets[1]) }
    }

    /// The next record.
    ///
    /// # Panics
    /// When it would be too long.
    pub fn seal(&mut self, content_type: u8, content: &[u8]) -> Vec<u8> {
        self.pen.seal_as([3, 3], content_type, content)
    }

    /// The next record, of another version.
    ///
    /// # Panics
    /// As [`Sealer::seal`].
    pub fn seal_as(&mut self, version: [u8; 2], content_type: u8, content: &[u8]) -> Vec<u8> {
        self.pen.seal_as(version, content_type, content)
    }

    /// The next record of TLS 1.3 with a complete TLSInnerPlaintext: content, type and padding, or less.
    ///
    /// # Panics
    /// As [`Sealer::seal`].
    pub fn seal_inside(&mut self, version: [u8; 2], inside: &[u8]) -> Vec<u8> {
        self.pen.seal_inside(version, inside)
    }

    /// Seals the records from now on with the next key.
    pub fn update_key(&mut self) {
        self.pen.update_key();
    }

    /// Seals and sends; `false` when the connection is over.
    pub fn send(&mut self, content_type: u8, content: &[u8]) -> bool {
        let record = self.seal(content_type, content);
        self.send_octets(&record)
    }

    /// Sends octets unchanged; `false` when the connection is over.
    pub fn send_octets(&mut self, octets: &[u8]) -> bool {
        self.stream.write_all(octets).is_ok()
    }

    /// The next record of the server: its type and content. The server's key updates are followed.
    ///
    /// # Errors
    /// How the connection ended.
    ///
    /// # Panics
    /// When no record comes, or the record does not open.
    pub fn hear(&mut self) -> Result<(u8, Vec<u8>), Fin> {
        let mut header = [0; 5];
        self.read(&mut header)?;
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        self.read(&mut body)?;
        let explicit = self.receiving.explicit_octets(self.is_tls13);
        let mut nonce = self.receiving.nonce();
        nonce[12 - explicit..].copy_from_slice(&body[..explicit]);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let mut body = body.split_off(explicit);
        let octets = body.len() - TAG_OCTETS;
        let aad = match self.is_tls13 {
            true => header.to_vec(),
            false => self.receiving.aad12(header[0], [header[1], header[2]], octets),
        };
        self.receiving.key.open_in_place(nonce, Aad::from(aad), &mut body).expect("the server's own record");
        self.receiving.number += 1;
        body.truncate(octets);
        if !self.is_tls13 {
            return Ok((header[0], body));
        }
        let place = body.iter().rposition(|octet| *octet != 0).expect("a type");
        let content_type = body[place];
        body.truncate(place);
        if content_type == HANDSHAKE && body.starts_with(&KEY_UPDATE) {
            self.receiving.update();
        }
        Ok((content_type, body))
    }

    /// Everything that the server still sends, without tickets, and how the connection ends.
    ///
    /// # Panics
    /// As [`Sealer::hear`].
    pub fn hear_all(&mut self) -> (Vec<(u8, Vec<u8>)>, Fin) {
        let mut heard = Vec::new();
        loop {
            match self.hear() {
                Ok((HANDSHAKE, message)) if message.first() == Some(&4) => {}
                Ok(record) => heard.push(record),
                Err(end) => return (heard, end),
            }
        }
    }

    fn read(&mut self, octets: &mut [u8]) -> Result<(), Fin> {
        self.stream.read_exact(octets).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Fin::Fin,
            ErrorKind::ConnectionReset => Fin::Reset,
            _ => panic!("nothing came from the server: {error}"),
        })
    }

    /// The connection below TLS.
    pub const fn tcp(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}
