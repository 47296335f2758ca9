//! Seals TLS 1.3 records by hand: empty ones, floods of alerts, what no library would send.
//!
//! Before: a session, whose client gives its key away. After: records of any type and content, in their order.
//! Holds: the key, and the number of the next record. Never: opens a record, or follows a key update.
//!
//! Source: RFC 8446 §5.2, §5.3.

use std::{io::Write, net::TcpStream};

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;

/// Content types (RFC 8446 §5.1).
pub const ALERT: u8 = 21;
/// A handshake message.
pub const HANDSHAKE: u8 = 22;
/// What the application says.
pub const APPLICATION_DATA: u8 = 23;
/// The authentication tag of every suite of TLS 1.3.
const TAG_OCTETS: usize = 16;

/// The sending half of a client.
#[derive(Debug)]
pub struct Sealer {
    stream: TcpStream,
    key: LessSafeKey,
    iv: [u8; 12],
    number: u64,
}

impl Sealer {
    pub(super) fn new(stream: TcpStream, (number, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => panic!("no suite of ours"),
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).expect("of its length"));
        Self { stream, key, iv: iv.as_ref().try_into().expect("twelve octets"), number }
    }

    /// The next record.
    ///
    /// # Panics
    /// When it would be too long.
    pub fn seal(&mut self, content_type: u8, content: &[u8]) -> Vec<u8> {
        let mut inner = [content, &[content_type]].concat();
        let length = u16::try_from(inner.len() + TAG_OCTETS).expect("one record").to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, length[0], length[1]];
        let mut nonce = self.iv;
        for (octet, more) in nonce[4..].iter_mut().zip(self.number.to_be_bytes()) {
            *octet ^= more;
        }
        self.number += 1;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut inner).expect("it fits");
        [&header[..], &inner].concat()
    }

    /// Seals and sends; `false` when the connection is over.
    pub fn send(&mut self, content_type: u8, content: &[u8]) -> bool {
        let record = self.seal(content_type, content);
        self.stream.write_all(&record).is_ok()
    }

    /// The connection below TLS.
    pub const fn tcp(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}
