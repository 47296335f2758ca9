//! The keys of a TLS 1.2 connection, which never change.
//!
//! Before: rustls has extracted them. After: another process can continue the connection.
//! Holds: the two keys as octets, because an AEAD does not give its key back.
//! Never: leaves a copy of a key in memory after it was dropped; writes or shows a key.

use std::fmt;

use rustls::ConnectionTrafficSecrets;
use zeroize::Zeroize;

use super::{cipher::Suite, secrets::Side};

/// The longest key of a suite that dotd offers.
const KEY_OCTETS_MAX: usize = 32;

/// The client's key, and the server's.
pub struct FixedKeys {
    /// Their suite.
    pub suite: Suite,
    keys: [[u8; KEY_OCTETS_MAX]; 2],
}

impl fmt::Debug for FixedKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FixedKeys")
    }
}

impl Drop for FixedKeys {
    fn drop(&mut self) {
        self.keys.zeroize();
    }
}

impl FixedKeys {
    /// These keys. `None`: a length is not that of the suite.
    #[must_use]
    pub fn new(suite: Suite, client: &[u8], server: &[u8]) -> Option<Self> {
        let mut made = Self { suite, keys: [[0; KEY_OCTETS_MAX]; 2] };
        for (room, key) in made.keys.iter_mut().zip([client, server]) {
            let room = room.get_mut(..suite.key_octets()).filter(|room| room.len() == key.len())?;
            room.copy_from_slice(key);
        }
        Some(made)
    }

    /// The keys that rustls has extracted.
    #[must_use]
    pub fn of(client: &ConnectionTrafficSecrets, server: &ConnectionTrafficSecrets) -> Option<Self> {
        Self::new(Suite::of(server)?, key_of(client)?, key_of(server)?)
    }

    /// The key of one side.
    #[must_use]
    pub fn key(&self, side: Side) -> &[u8] {
        let [client, server] = &self.keys;
        let key = if side == Side::Client { client } else { server };
        key.get(..self.suite.key_octets()).unwrap_or_default()
    }
}

fn key_of(secrets: &ConnectionTrafficSecrets) -> Option<&[u8]> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, .. }
        | ConnectionTrafficSecrets::Aes256Gcm { key, .. }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, .. } => Some(key.as_ref()),
        _ => None,
    }
}
