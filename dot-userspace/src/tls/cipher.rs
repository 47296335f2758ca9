//! The content of TLS records: one key for each direction.
//!
//! Before: rustls agreed on the secrets. After: a record's octets are decrypted, or encrypted, in place.
//! Holds: a key, its IV and the number of the next record; at rest, the number and what the key does not say.
//! Never: uses a number twice, allocates for a record, or says why a record cannot be opened, because a forger must not learn it.
//!
//! Source: RFC 8446 §5.2 to §5.5, RFC 5246 §6.2.3.3, RFC 5288 §3, RFC 7905 §2.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::{ConnectionTrafficSecrets, Error as TlsError};

use super::record::{
    APPLICATION_DATA, HEADER_OCTETS, Header, LEGACY_VERSION, PLAINTEXT_OCTETS_MAX, put_header,
};

/// Octets of an AEAD's nonce, tag, and of the nonce's part that TLS 1.2 sends with AES-GCM.
pub(super) const NONCE_OCTETS: usize = 12;
const TAG_OCTETS: usize = 16;
const EXPLICIT_OCTETS: usize = 8;
/// Most records of application data under one key: less than the 2^24.5 of AES-GCM (RFC 8446 §5.5).
pub const RECORDS_MAX: u64 = 1 << 24;
/// Records that an exhausted key may still seal: close_notify or an alert, and the key update that replaces it.
pub(super) const LAST_RECORDS: u64 = 16;
/// The number of a key that another process now uses: above the number of every record that it may seal.
const GIVEN_AWAY: u64 = u64::MAX;
/// Additional data in TLS 1.2: number, type, version, length.
type Aad12 = [u8; 13];

/// The format of a connection's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// TLS 1.3: type and padding inside, only the tag outside.
    Tls13,
    /// TLS 1.2 with ChaCha20-Poly1305.
    Tls12,
    /// TLS 1.2 with AES-GCM: eight octets of the nonce in front.
    Tls12Explicit,
}

/// An AEAD that dotd offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// AES-128-GCM.
    Aes128Gcm,
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    Chacha20Poly1305,
}

impl Suite {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::Chacha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    /// Octets of its key.
    #[must_use]
    pub fn key_octets(self) -> usize {
        self.algorithm().key_len()
    }

    /// The format of its records.
    fn shape(self, is_tls13: bool) -> Shape {
        match (is_tls13, self) {
            (true, _) => Shape::Tls13,
            (false, Self::Chacha20Poly1305) => Shape::Tls12,
            (false, Self::Aes128Gcm | Self::Aes256Gcm) => Shape::Tls12Explicit,
        }
    }
}

/// A record could not be opened, or no further one may be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CipherError {
    /// It is forged or damaged.
    Forged,
    /// More plaintext than a record may hold, padding included.
    Overflow,
    /// A plaintext of TLS 1.3 without a content type: empty, or all zeros (RFC 8446 §5.4).
    Typeless,
    /// The key has been used for its number of records.
    WornOut,
    /// The key is at rest: nothing was done, and after [`Cipher::wake`] it can be.
    AtRest,
}

/// One direction's key.
pub struct Cipher {
    /// As the AEAD uses it, some 600 octets, which aws-lc overwrites when it frees them. `None`: at rest.
    key: Option<LessSafeKey>,
    iv: [u8; NONCE_OCTETS],
    number: u64,
    shape: Shape,
}

/// The content of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its real content type.
    pub content_type: u8,
    /// Offset of the plaintext from the record's first octet.
    pub start: usize,
    /// Its octets.
    pub octets: usize,
}

impl Cipher {
    /// Makes a key from rustls's secrets; `number` is the next record's.
    ///
    /// # Errors
    /// rustls and the AEAD disagree about a length; impossible with the suites that dotd offers.
    pub fn new((number, secrets): (u64, ConnectionTrafficSecrets), is_tls13: bool) -> Result<Self, TlsError> {
        let (suite, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Suite::Chacha20Poly1305, key, iv),
            _ => return Err(TlsError::General("a cipher suite that dotd does not offer".into())),
        };
        let iv = iv.as_ref().try_into().ok();
        let made = iv.and_then(|iv| Self::going_on(suite, key.as_ref(), iv, number, is_tls13));
        made.ok_or_else(|| TlsError::General("a key of a length that its cipher does not have".into()))
    }

    /// A key that was used before: `number` is the next record's. `None`: the key has another length than the
    /// suite's.
    #[must_use]
    pub fn going_on(
        suite: Suite,
        key: &[u8],
        iv: [u8; NONCE_OCTETS],
        number: u64,
        is_tls13: bool,
    ) -> Option<Self> {
        let mut made = Self::at_rest(suite, iv, number, is_tls13);
        made.wake(suite, key, iv)?;
        Some(made)
    }

    /// A key that is at rest: `number` is the next record's. `iv` may be zero if [`Cipher::wake`] will give it.
    #[must_use]
    pub fn at_rest(suite: Suite, iv: [u8; NONCE_OCTETS], number: u64, is_tls13: bool) -> Self {
        Self { key: None, iv, number, shape: suite.shape(is_tls13) }
    }

    /// Frees the key's memory, until [`Cipher::wake`] gives the key again. The number stays.
    pub fn rest(&mut self) {
        self.key = None;
    }

    /// Whether the key is at rest.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.key.is_none()
    }

    /// Ends the rest, or replaces the key by itself. `None`: the key has another length than the suite's, or was given
    /// away; nothing has changed.
    #[must_use]
    pub fn wake(&mut self, suite: Suite, key: &[u8], iv: [u8; NONCE_OCTETS]) -> Option<()> {
        if self.number == GIVEN_AWAY {
            return None;
        }
        let key = UnboundKey::new(suite.algorithm(), key).ok()?;
        (self.key, self.iv) = (Some(LessSafeKey::new(key)), iv);
        Some(())
    }

    /// The next key of a connection in TLS 1.3: its records count from 0. `None`: the key has another length than the
    /// suite's.
    #[must_use]
    pub fn renewed(suite: Suite, key: &[u8], iv: [u8; NONCE_OCTETS]) -> Option<Self> {
        Self::going_on(suite, key, iv, 0, true)
    }

    /// The number of the next record.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The IV.
    pub(super) fn iv(&self) -> [u8; NONCE_OCTETS] {
        self.iv
    }

    /// Makes this key seal and open nothing any more: another process continues with its numbers.
    pub(super) fn give_away(&mut self) {
        (self.key, self.iv, self.number) = (None, [0; NONCE_OCTETS], GIVEN_AWAY);
    }

    /// Opens the whole record in `record`, in place.
    ///
    /// # Errors
    /// [`CipherError`]; the connection must end, unless its key was at rest.
    pub fn open(&mut self, header: Header, record: &mut [u8]) -> Result<Opened, CipherError> {
        let key = self.key.as_ref().ok_or(CipherError::AtRest)?;
        let (front, body) = record.split_at_mut_checked(HEADER_OCTETS).ok_or(CipherError::Forged)?;
        let explicit = if self.shape == Shape::Tls12Explicit { EXPLICIT_OCTETS } else { 0 };
        let (explicit_nonce, body) = body.split_at_mut_checked(explicit).ok_or(CipherError::Forged)?;
        let inner = body.len().checked_sub(TAG_OCTETS).ok_or(CipherError::Forged)?;
        let nonce = match <[u8; EXPLICIT_OCTETS]>::try_from(&*explicit_nonce) {
            Ok(sent) => self.salted(sent),
            Err(_) => self.nonce(),
        };
        let plaintext = if self.shape == Shape::Tls13 {
            key.open_in_place(nonce, Aad::from(&*front), body)
        } else {
            let aad = self.aad12(header.content_type, received_version(front), inner);
            key.open_in_place(nonce, Aad::from(aad), body)
        };
        let plaintext = plaintext.map_err(|_| CipherError::Forged)?;
        self.number = self.number.saturating_add(1);
        // In TLS 1.3 the type and the padding count too, except for one octet (RFC 8446 §5.4).
        let type_octets = usize::from(self.shape == Shape::Tls13);
        if plaintext.len() > PLAINTEXT_OCTETS_MAX + type_octets {
            return Err(CipherError::Overflow);
        }
        let (content_type, octets) = match self.shape {
            Shape::Tls13 => inner_type(plaintext).ok_or(CipherError::Typeless)?,
            Shape::Tls12 | Shape::Tls12Explicit => (header.content_type, plaintext.len()),
        };
        Ok(Opened { content_type, start: HEADER_OCTETS + explicit, octets })
    }

    /// Appends `content` to `out` as records of `content_type`.
    ///
    /// # Errors
    /// [`CipherError::WornOut`]; records that were appended before are complete. [`CipherError::AtRest`]; none was
    /// appended.
    pub fn seal(&mut self, content_type: u8, content: &[u8], out: &mut Vec<u8>) -> Result<(), CipherError> {
        content.chunks(PLAINTEXT_OCTETS_MAX).try_for_each(|chunk| self.seal_one(content_type, chunk, out))
    }

    fn seal_one(&mut self, content_type: u8, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), CipherError> {
        let reserve = if content_type == APPLICATION_DATA { 0 } else { LAST_RECORDS };
        if self.number >= RECORDS_MAX + reserve {
            return Err(CipherError::WornOut);
        }
        let key = self.key.as_ref().ok_or(CipherError::AtRest)?;
        let (outer, trailer, explicit) = match self.shape {
            Shape::Tls13 => (APPLICATION_DATA, 1, 0),
            Shape::Tls12 => (content_type, 0, 0),
            Shape::Tls12Explicit => (content_type, 0, EXPLICIT_OCTETS),
        };
        let octets = explicit + chunk.len() + trailer + TAG_OCTETS;
        out.reserve(HEADER_OCTETS + octets);
        let header = put_header(out, outer, octets);
        let nonce = self.nonce();
        out.extend_from_slice(nonce.as_ref().get(NONCE_OCTETS - explicit..).unwrap_or_default());
        let start = out.len();
        out.extend_from_slice(chunk);
        if self.shape == Shape::Tls13 {
            out.push(content_type);
        }
        let body = out.get_mut(start..).unwrap_or_default();
        let tag = if self.shape == Shape::Tls13 {
            key.seal_in_place_separate_tag(nonce, Aad::from(header), body)
        } else {
            let aad = self.aad12(content_type, LEGACY_VERSION, chunk.len());
            key.seal_in_place_separate_tag(nonce, Aad::from(aad), body)
        };
        out.extend_from_slice(tag.map_err(|_| CipherError::WornOut)?.as_ref());
        self.number += 1;
        Ok(())
    }

    /// The IV combined with the record's number (RFC 8446 §5.3). For TLS 1.2 with AES-GCM rustls does the same, so the
    /// explicit part never repeats.
    fn nonce(&self) -> Nonce {
        let mut nonce = self.iv;
        for (octet, number) in nonce.iter_mut().rev().zip(self.number.to_be_bytes().iter().rev()) {
            *octet ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// The nonce of a received record of TLS 1.2 with AES-GCM: our salt and the explicit part (RFC 5288 §3).
    fn salted(&self, sent: [u8; EXPLICIT_OCTETS]) -> Nonce {
        let mut nonce = self.iv;
        for (octet, sent) in nonce.iter_mut().rev().zip(sent.iter().rev()) {
            *octet = *sent;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    fn aad12(&self, content_type: u8, [major, minor]: [u8; 2], octets: usize) -> Aad12 {
        let mut aad = [0; 13];
        let [high, low] = u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes();
        let rest = [content_type, major, minor, high, low];
        let all = self.number.to_be_bytes().into_iter().chain(rest);
        aad.iter_mut().zip(all).for_each(|(room, octet)| *room = octet);
        aad
    }
}

/// The version in a record's header, which TLS 1.2 authenticates as it came (RFC 5246 §6.2.3.3).
fn received_version(header: &[u8]) -> [u8; 2] {
    match header {
        [_, major, minor, ..] => [*major, *minor],
        _ => LEGACY_VERSION,
    }
}

/// Removes the padding of a TLS 1.3 plaintext: its type is the last octet that is not zero.
fn inner_type(plaintext: &[u8]) -> Option<(u8, usize)> {
    let last = plaintext.iter().rposition(|octet| *octet != 0)?;
    plaintext.get(last).map(|content_type| (*content_type, last))
}

#[cfg(test)]
mod tests;
