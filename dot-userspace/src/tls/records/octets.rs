//! The encoding of a connection's records, for a process that continues the connection.
//!
//! Before: a connection between two records, or in the middle of one; also one at rest. After: this object seals and
//! opens nothing any more; another one, decoded from the octets, continues with the next number. It is at rest until its
//! first record.
//! Holds: the encoding: `[version: 12 or 13][suite][number in: u64][number out: u64]`, in TLS 1.3 the two secrets, in
//! TLS 1.2 key and IV of each side, then `[octets of a KeyUpdate][useless records][warnings][key updates: u16]`.
//! Never: lets two processes seal under one number: a process that writes the octets has given its keys away.
//!
//! Source: RFC 8446 §5.3, RFC 5288 §3: a nonce is never used twice.

use super::{
    super::{
        cipher::{Cipher, LAST_RECORDS, NONCE_OCTETS, RECORDS_MAX, Suite},
        fixed_keys::FixedKeys,
        key_update::Partial,
        secrets::{Side, TrafficSecrets},
    },
    IDLE_RECORDS_MAX, KEY_UPDATES_MAX, Keys, Records, WARNINGS_MAX,
};
use crate::octets::Octets;

/// Most octets of the encoding: two secrets of SHA-384, and the fields around them.
pub const RECORDS_OCTETS_MAX: usize = 160;

const TLS12: u8 = 12;
const TLS13: u8 = 13;
/// In the order of their numbers.
const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::Chacha20Poly1305];

impl Records {
    /// Appends the encoding to `out`, which must have room for [`RECORDS_OCTETS_MAX`], because a vector that grows
    /// leaves copies of secrets behind. The object neither opens nor seals afterwards.
    pub fn hand_over(&mut self, out: &mut Vec<u8>) {
        let (version, suite) = match &*self.keys {
            Keys::Changing(secrets) => (TLS13, secrets.suite()),
            Keys::Fixed(keys) => (TLS12, keys.suite),
        };
        let suite = SUITES.iter().position(|known| *known == suite).unwrap_or_default();
        out.extend_from_slice(&[version, u8::try_from(suite).unwrap_or_default()]);
        out.extend_from_slice(&self.opener.number().to_be_bytes());
        out.extend_from_slice(&self.sealer.number().to_be_bytes());
        match &*self.keys {
            Keys::Changing(secrets) => secrets.write(out),
            Keys::Fixed(keys) => {
                for (side, cipher) in [(Side::Client, &self.opener), (Side::Server, &self.sealer)] {
                    out.extend_from_slice(keys.key(side));
                    out.extend_from_slice(&cipher.iv());
                }
            }
        }
        out.extend_from_slice(&[self.partial.octets(), self.idle_records, self.warnings]);
        out.extend_from_slice(&self.key_updates.to_be_bytes());
        self.opener.give_away();
        self.sealer.give_away();
        // The next process has no session store in which this session could be resumed.
        self.session = None;
    }

    /// Decodes the octets of [`Records::hand_over`]. `None`: they are invalid.
    #[must_use]
    pub fn read(octets: &mut Octets<'_>) -> Option<Self> {
        let version = octets.u8().filter(|version| matches!(*version, TLS12 | TLS13))?;
        let suite = *SUITES.get(usize::from(octets.u8()?))?;
        let (number_in, number_out) = (octets.u64()?, octets.u64()?);
        if number_out > RECORDS_MAX + LAST_RECORDS || number_in == u64::MAX {
            return None;
        }
        let (keys, opener, sealer) = if version == TLS13 {
            let secrets = TrafficSecrets::read(suite, octets)?;
            // The secrets give the IVs too.
            let cipher = |number| Cipher::at_rest(suite, [0; NONCE_OCTETS], number, true);
            (Keys::Changing(secrets), cipher(number_in), cipher(number_out))
        } else {
            let mut side = |number| {
                let key = octets.take(suite.key_octets())?;
                let iv = octets.take(NONCE_OCTETS)?.try_into().ok()?;
                Some((key, Cipher::at_rest(suite, iv, number, false)))
            };
            let ((client, opener), (server, sealer)) = (side(number_in)?, side(number_out)?);
            (Keys::Fixed(FixedKeys::new(suite, client, server)?), opener, sealer)
        };
        Some(Self {
            opener,
            sealer,
            keys: Box::new(keys),
            partial: Partial::of(octets.u8()?)?,
            idle_records: octets.u8().filter(|count| *count <= IDLE_RECORDS_MAX)?,
            warnings: octets.u8().filter(|count| *count <= WARNINGS_MAX)?,
            key_updates: octets.u16().filter(|count| *count <= KEY_UPDATES_MAX)?,
            session: None,
        })
    }
}
