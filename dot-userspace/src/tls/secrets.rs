//! The two traffic secrets of a TLS 1.3 connection, from which its keys and the next keys are derived.
//!
//! Before: rustls derives them in a handshake and logs them, on the thread that drives it. After: `records` has the
//! keys after a KeyUpdate.
//! Holds: two secrets, some 100 octets; rustls's own state for this would be a key schedule, the client's
//! certificates and more.
//! Never: leaves a copy of a secret in memory after it was dropped; writes or shows one.
//!
//! Source: RFC 8446 §7.1 to §7.3.

use std::{cell::Cell, fmt};

use aws_lc_rs::hkdf::{Algorithm, HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use rustls::{ConnectionTrafficSecrets, KeyLog};
use zeroize::Zeroize;

use super::cipher::{NONCE_OCTETS, Suite};
use crate::octets::Octets;

/// The longest hash of a suite that dotd offers: SHA-384.
const SECRET_OCTETS_MAX: usize = 48;
/// The labels of rustls.
const LABELS: [&str; 2] = ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"];

thread_local! {
    /// The secrets that the last handshake on this thread logged, until it takes them. rustls reports them only
    /// through the log.
    static LOGGED: Cell<[Secret; 2]> = const { Cell::new([Secret::NONE; 2]) };
}

/// One traffic secret; empty if there is none.
struct Secret {
    octets: [u8; SECRET_OCTETS_MAX],
    length: u8,
}

impl Secret {
    const NONE: Self = Self { octets: [0; SECRET_OCTETS_MAX], length: 0 };

    fn of(secret: &[u8]) -> Option<Self> {
        let mut octets = [0; SECRET_OCTETS_MAX];
        octets.get_mut(..secret.len())?.copy_from_slice(secret);
        Some(Self { octets, length: u8::try_from(secret.len()).ok()? })
    }

    fn octets(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Derives the key and the IV of the secret (RFC 8446 §7.3).
    fn with_key<R>(
        &self,
        suite: Suite,
        with: impl FnOnce(Suite, &[u8], [u8; NONCE_OCTETS]) -> R,
    ) -> Option<R> {
        let (mut key, mut iv) = ([0; 32], [0; NONCE_OCTETS]);
        let room = key.get_mut(..suite.key_octets())?;
        expand(suite, self.octets(), b"tls13 key", room)?;
        expand(suite, self.octets(), b"tls13 iv", &mut iv)?;
        let made = with(suite, room, iv);
        key.zeroize();
        iv.zeroize();
        Some(made)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.octets.zeroize();
    }
}

/// The secrets that a handshake has logged: the client's, and the server's.
pub struct Handed([Secret; 2]);

/// The secrets that rustls has just logged on this thread. `None`: it has not.
#[must_use]
pub fn take_logged() -> Option<Handed> {
    let logged = LOGGED.replace([Secret::NONE; 2]);
    logged.iter().all(|secret| secret.length > 0).then_some(Handed(logged))
}

/// The traffic secrets of a connection.
pub struct TrafficSecrets {
    suite: Suite,
    client: Secret,
    server: Secret,
}

impl fmt::Debug for TrafficSecrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TrafficSecrets")
    }
}

/// The side whose records a key protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's records.
    Client,
    /// The server's records.
    Server,
}

impl TrafficSecrets {
    /// The secrets that a handshake has logged, for a connection of this suite. `None`: they have another length.
    #[must_use]
    pub fn new(suite: Suite, Handed([client, server]): Handed) -> Option<Self> {
        let octets = secret_octets(suite);
        let is_whole = [&client, &server].iter().all(|secret| secret.octets().len() == octets);
        is_whole.then_some(Self { suite, client, server })
    }

    /// Replaces the secret of one side by the next one (RFC 8446 §7.2); derives its key and IV.
    pub fn renew<R>(
        &mut self,
        side: Side,
        with: impl FnOnce(Suite, &[u8], [u8; NONCE_OCTETS]) -> R,
    ) -> Option<R> {
        let (suite, secret) = match side {
            Side::Client => (self.suite, &mut self.client),
            Side::Server => (self.suite, &mut self.server),
        };
        let mut next = Secret { octets: [0; SECRET_OCTETS_MAX], length: secret.length };
        let room = next.octets.get_mut(..usize::from(secret.length))?;
        expand(suite, secret.octets(), b"tls13 traffic upd", room)?;
        let made = next.with_key(suite, with)?;
        *secret = next;
        Some(made)
    }

    /// Derives the key and the IV that one side uses now.
    pub fn current<R>(
        &self,
        side: Side,
        with: impl FnOnce(Suite, &[u8], [u8; NONCE_OCTETS]) -> R,
    ) -> Option<R> {
        let secret = if side == Side::Client { &self.client } else { &self.server };
        secret.with_key(self.suite, with)
    }

    /// Their suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Appends both secrets, the client's first.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.client.octets());
        out.extend_from_slice(self.server.octets());
    }

    /// Decodes the octets of [`TrafficSecrets::write`] for a connection of this suite.
    #[must_use]
    pub fn read(suite: Suite, octets: &mut Octets<'_>) -> Option<Self> {
        let count = secret_octets(suite);
        let (client, server) = (Secret::of(octets.take(count)?)?, Secret::of(octets.take(count)?)?);
        Some(Self { suite, client, server })
    }
}

impl Suite {
    /// The suite of secrets that rustls has extracted.
    #[must_use]
    pub fn of(secrets: &ConnectionTrafficSecrets) -> Option<Self> {
        match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { .. } => Some(Self::Aes128Gcm),
            ConnectionTrafficSecrets::Aes256Gcm { .. } => Some(Self::Aes256Gcm),
            ConnectionTrafficSecrets::Chacha20Poly1305 { .. } => Some(Self::Chacha20Poly1305),
            _ => None,
        }
    }
}

/// Octets of a secret of this suite: the output length of its hash.
fn secret_octets(suite: Suite) -> usize {
    hash(suite).hmac_algorithm().digest_algorithm().output_len()
}

/// The hash of a suite of TLS 1.3 (RFC 8446 §B.4).
fn hash(suite: Suite) -> Algorithm {
    match suite {
        Suite::Aes128Gcm | Suite::Chacha20Poly1305 => HKDF_SHA256,
        Suite::Aes256Gcm => HKDF_SHA384,
    }
}

/// A length for aws-lc's HKDF.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 §7.1); `label` with its prefix.
fn expand(suite: Suite, secret: &[u8], label: &[u8], out: &mut [u8]) -> Option<()> {
    let length = u16::try_from(out.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(label.len()).ok()?];
    let label = [&length[..], &label_length, label, &[0]];
    let secret = Prk::new_less_safe(hash(suite), secret);
    secret.expand(&label, Length(out.len())).ok()?.fill(out).ok()
}

/// Keeps the secrets that a handshake logs, for that handshake.
#[derive(Debug)]
pub struct Logged;

impl KeyLog for Logged {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let Some(place) = LABELS.iter().position(|known| *known == label) else { return };
        let Some(secret) = Secret::of(secret) else { return };
        let mut logged = LOGGED.replace([Secret::NONE; 2]);
        if let Some(room) = logged.get_mut(place) {
            *room = secret;
        }
        LOGGED.set(logged);
    }

    fn will_log(&self, label: &str) -> bool {
        LABELS.contains(&label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: keys are derived from secrets as RFC 8446 says. Method: the octets of RFC 8448 §3: the server's first
    /// traffic secret and its key and IV, by the labels that a KeyUpdate uses. Covers: C-502
    #[test]
    fn keys_are_those_of_rfc_8448() {
        let secret = [
            0xa1, 0x1a, 0xf9, 0xf0, 0x55, 0x31, 0xf8, 0x56, 0xad, 0x47, 0x11, 0x6b, 0x45, 0xa9, 0x50, 0x32,
            0x82, 0x04, 0xb4, 0xf4, 0x4b, 0xfb, 0x6b, 0x3a, 0x4b, 0x4f, 0x1f, 0x3f, 0xcb, 0x63, 0x16, 0x43,
        ];
        let (mut key, mut iv) = ([0; 16], [0; NONCE_OCTETS]);
        expand(Suite::Aes128Gcm, &secret, b"tls13 key", &mut key).unwrap();
        expand(Suite::Aes128Gcm, &secret, b"tls13 iv", &mut iv).unwrap();
        assert_eq!(key, 0x9f02_283b_6c9c_07ef_c26b_b9f2_ac92_e356_u128.to_be_bytes());
        assert_eq!(iv, [0xcf, 0x78, 0x2b, 0x88, 0xdd, 0x83, 0x54, 0x9a, 0xad, 0xf1, 0xe9, 0x84]);
    }

    /// Goal: a handshake gets the secrets that it logged, once, and only if they fit its suite. Method: secrets of
    /// each length.
    #[test]
    fn logged_secrets_are_taken_once() {
        let log = |octets: usize| LABELS.iter().for_each(|label| Logged.log(label, &[], &vec![7; octets]));
        for (octets, suite, fits) in [
            (32, Suite::Aes128Gcm, true),
            (32, Suite::Chacha20Poly1305, true),
            (32, Suite::Aes256Gcm, false),
            (48, Suite::Aes256Gcm, true),
        ] {
            log(octets);
            let handed = take_logged().expect("both were logged");
            assert_eq!(TrafficSecrets::new(suite, handed).is_some(), fits, "{octets} {suite:?}");
            assert!(take_logged().is_none());
        }
        log(49);
        assert!(take_logged().is_none());
    }
}
