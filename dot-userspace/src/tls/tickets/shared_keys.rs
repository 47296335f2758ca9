//! Ticket keys that every node derives in the same way, from a shared secret and the time.
//!
//! Before: the octets of `tls.ticket_secret`. After: a ticket from one node opens on every other.
//! Shape of a ticket: `[key name: 16 octets][nonce: 12][AES-256-GCM of the session][tag: 16]`, with the key name as
//! associated data. A period is `unix time / rotation`; its key and name are HKDF-SHA256(secret, "dotd ticket" ‖
//! period). The current period seals; the current, the previous, and the next one (of a node whose clock is ahead)
//! open.
//! Never: talks to another node; keeps a key whose period is over. A person with the secret has the keys of all
//! periods: change the secret to end them (RFC 5077 §5.5 has no better way for shared keys).
//!
//! Source: RFC 5077 §4, RFC 5869, RFC 8446 §4.6.1.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
};
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

/// Octets of a key's name in front of each ticket (RFC 5077 §4).
const NAME_OCTETS: usize = 16;
/// Octets of an AES-256 key.
const KEY_OCTETS: usize = 32;

/// Octets of a key and its name.
pub(super) const MATERIAL_OCTETS: usize = NAME_OCTETS + KEY_OCTETS;

/// Seals and opens tickets for all nodes.
pub(super) struct SharedKeys {
    secret: Prk,
    rotation_seconds: u64,
    keys: Mutex<Keys>,
}

impl fmt::Debug for SharedKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SharedKeys")
    }
}

/// The keys around one period.
struct Keys {
    period: u64,
    current: Key,
    /// The keys of the previous and of the next period.
    neighbours: [Key; 2],
}

/// The key of one period.
pub(super) struct Key {
    name: [u8; NAME_OCTETS],
    aead: LessSafeKey,
}

impl SharedKeys {
    /// Derives the keys of this moment. `None`: the library refuses.
    pub(super) fn new(secret: &[u8], rotation: Duration) -> Option<Self> {
        Self::at(secret, rotation, now())
    }

    fn at(secret: &[u8], rotation: Duration, seconds: u64) -> Option<Self> {
        let secret = Salt::new(HKDF_SHA256, b"dotd fleet").extract(secret);
        let rotation_seconds = rotation.as_secs().max(1);
        let keys = Mutex::new(Keys::derive(&secret, seconds / rotation_seconds)?);
        Some(Self { secret, rotation_seconds, keys })
    }

    /// Runs `work` with the keys of the period at `seconds`; keys of a period that is over are dropped first.
    /// Taken once a handshake, never for a query.
    fn with_keys<R>(&self, seconds: u64, work: impl FnOnce(&Keys) -> Option<R>) -> Option<R> {
        // A poisoned lock means a panic elsewhere; the keys are replaced as a whole.
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let period = seconds / self.rotation_seconds;
        if keys.period != period {
            *keys = Keys::derive(&self.secret, period)?;
        }
        work(&keys)
    }

    fn seal_at(&self, plain: &[u8], seconds: u64) -> Option<Vec<u8>> {
        self.with_keys(seconds, |keys| keys.current.seal(plain))
    }

    fn open_at(&self, ticket: &[u8], seconds: u64) -> Option<Vec<u8>> {
        self.with_keys(seconds, |keys| {
            std::iter::once(&keys.current).chain(&keys.neighbours).find_map(|key| key.open(ticket))
        })
    }
}

impl ProducesTickets for SharedKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        // Sealed in the last moment of its period, a ticket opens for one more.
        u32::try_from(self.rotation_seconds).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal_at(plain, now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open_at(cipher, now())
    }
}

impl Keys {
    fn derive(secret: &Prk, period: u64) -> Option<Self> {
        let neighbours =
            [Key::derive(secret, period.wrapping_sub(1))?, Key::derive(secret, period.wrapping_add(1))?];
        Some(Self { period, current: Key::derive(secret, period)?, neighbours })
    }
}

/// A length of key material.
struct Octets(usize);

impl KeyType for Octets {
    fn len(&self) -> usize {
        self.0
    }
}

impl Key {
    fn derive(secret: &Prk, period: u64) -> Option<Self> {
        let mut material = Zeroizing::new([0; MATERIAL_OCTETS]);
        let info = [b"dotd ticket".as_slice(), &period.to_be_bytes()];
        secret.expand(&info, Octets(material.len())).ok()?.fill(material.as_mut()).ok()?;
        Self::from_material(&material)
    }

    /// The key with these octets.
    pub(super) fn from_material(material: &[u8; MATERIAL_OCTETS]) -> Option<Self> {
        let (name, key) = material.split_first_chunk::<NAME_OCTETS>()?;
        Some(Self { name: *name, aead: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?) })
    }

    /// Seals `plain` as a ticket.
    pub(super) fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        self.aead.seal_in_place_append_tag(nonce_of, Aad::from(self.name), &mut sealed).ok()?;
        Some([&self.name, nonce.as_slice(), &sealed].concat())
    }

    /// The content of a ticket. `None`: another key sealed it, or it was changed.
    pub(super) fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) =
            ticket.split_first_chunk::<NAME_OCTETS>().filter(|(name, _)| **name == self.name)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.aead.open_in_place(nonce, Aad::from(*name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

/// Seconds since 1970. A clock before that gives period 0; tickets are then useless.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const ROTATION: Duration = Duration::from_secs(6 * HOUR);
    const SECRET: &[u8] = b"a secret of more than thirty-two octets";
    const START: u64 = 80_000 * 6 * HOUR;

    fn node(secret: &[u8]) -> SharedKeys {
        SharedKeys::at(secret, ROTATION, START).unwrap()
    }

    /// Goal: any node opens any node's ticket in this rotation and the next, also if its clock is somewhat behind;
    /// after two rotations no node does. Covers: C-70, A-51.
    #[test]
    fn a_ticket_opens_on_every_node_for_one_more_rotation() {
        let (near, far) = (node(SECRET), node(SECRET));
        let ticket = near.seal_at(b"session", START).unwrap();
        for hours in [0, 5, 6, 11] {
            assert_eq!(
                far.open_at(&ticket, START + hours * HOUR).as_deref(),
                Some(&b"session"[..]),
                "{hours} h"
            );
        }
        assert_eq!(far.open_at(&ticket, START - 1).as_deref(), Some(&b"session"[..]), "a clock behind");
        assert_eq!(far.open_at(&ticket, START + 12 * HOUR), None);
        assert_eq!(near.open_at(&ticket, START + 48 * HOUR), None, "the node's own keys went too");
    }

    /// Covers, C-71.
    #[test]
    fn a_changed_or_foreign_ticket_does_not_open() {
        let ours = node(SECRET);
        let ticket = ours.seal_at(b"session", START).unwrap();
        for position in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[position] ^= 1;
            assert_eq!(ours.open_at(&changed, START), None, "octet {position}");
        }
        for length in 0..ticket.len() {
            assert_eq!(ours.open_at(&ticket[..length], START), None, "{length} octets");
        }
        assert_eq!(node(b"another secret of thirty-two octets and more").open_at(&ticket, START), None);
        assert_eq!(ours.open_at(&vec![0; ticket.len()], START), None);
    }

    /// Goal: an attacker who seals with a key of zeros, under the name that dotd's tickets show, forges nothing, from
    /// the first moment on (that was CVE-2020-13777). Method: forgeries for shared keys, for a process's own, and for
    /// both as `Tickets` makes them.
    #[test]
    fn a_key_of_zeros_forges_nothing() {
        let forged = |genuine: &[u8]| {
            let mut material = [0; MATERIAL_OCTETS];
            material[..NAME_OCTETS].copy_from_slice(&genuine[..NAME_OCTETS]);
            Key::from_material(&material).unwrap().seal(b"session").unwrap()
        };
        let sharing = node(SECRET);
        assert_eq!(sharing.open_at(&forged(&sharing.seal_at(b"session", START).unwrap()), START), None);
        let own = Key::from_material(&[7; MATERIAL_OCTETS]).unwrap();
        assert_eq!(own.open(&forged(&own.seal(b"session").unwrap())), None);
        let tickets = super::super::Tickets::new(std::path::Path::new(""), ROTATION).unwrap().keys;
        let genuine = tickets.encrypt(b"session").unwrap();
        assert_eq!(tickets.decrypt(&genuine).as_deref(), Some(&b"session"[..]));
        assert_eq!(tickets.decrypt(&forged(&genuine)), None);
    }

    #[test]
    fn equal_sessions_make_different_tickets() {
        let ours = node(SECRET);
        assert_ne!(ours.seal_at(b"session", START), ours.seal_at(b"session", START));
    }
}
