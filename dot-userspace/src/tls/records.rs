//! An established TLS connection without its socket: records in, plaintext out, and the other way round.
//!
//! Before: the handshake gave two keys. After: plaintext stands where its records stood; responses are sealed.
//! Holds: the keys, what makes the next ones, and how often the peer has sent nothing of use.
//! Never: reads, writes, waits, copies what it can open in place, or goes on after a record that is not right.
//!
//! Source: RFC 8446 §4.6.3, §5 and §6; RFC 5246 §6 and §7.2.

use std::ops::Range;

use rustls::{
    Error as TlsError, ExtractedSecrets, ProtocolVersion, kernel::KernelConnection,
    server::ServerConnectionData,
};

use super::{
    cipher::{Cipher, CipherError},
    record::{self, ALERT, APPLICATION_DATA, HANDSHAKE, Header},
};

/// Records without application data that a peer may send before some come again: key updates, empty records.
const IDLE_RECORDS_MAX: u8 = 32;
/// Key updates of one connection: far more than a client's own limits ask for in the hour that a session may last.
const KEY_UPDATES_MAX: u16 = 256;
/// A whole KeyUpdate but for its last octet, which asks for one in return, or does not.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
const NOT_REQUESTED: u8 = 0;
const REQUESTED: u8 = 1;

/// Alerts. Source: RFC 8446 §6.
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const RECORD_OVERFLOW: u8 = 22;
const DECODE_ERROR: u8 = 50;
const INTERNAL_ERROR: u8 = 80;
const USER_CANCELED: u8 = 90;

/// Why no further record is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The peer said close_notify.
    Notified,
    /// The peer sent another alert.
    Alerted,
    /// A record was not right; the peer is owed this alert.
    Broken(u8),
}

/// What a run of records held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where the application data is now.
    pub plaintext: Range<usize>,
    /// Octets of the records that were opened; what is behind them is the front of another.
    pub used: usize,
    /// How many records these are.
    pub records: usize,
    /// Why it stopped, if not for want of octets.
    pub closing: Option<Closing>,
}

/// Both directions of an established connection.
pub struct Records {
    opener: Cipher,
    sealer: Cipher,
    /// Makes the next keys (TLS 1.3).
    keys: Box<KernelConnection<ServerConnectionData>>,
    is_tls13: bool,
    idle_records: u8,
    key_updates: u16,
}

impl Records {
    /// Takes over from rustls.
    ///
    /// # Errors
    /// [`TlsError`]: a suite that we do not offer.
    pub fn new(
        secrets: ExtractedSecrets,
        keys: KernelConnection<ServerConnectionData>,
    ) -> Result<Self, TlsError> {
        let is_tls13 = keys.protocol_version() == ProtocolVersion::TLSv1_3;
        Ok(Self {
            opener: Cipher::new(secrets.rx, is_tls13)?,
            sealer: Cipher::new(secrets.tx, is_tls13)?,
            keys: Box::new(keys),
            is_tls13,
            idle_records: 0,
            key_updates: 0,
        })
    }

    /// Opens every whole record in front of `octets`. Their application data stands together afterwards.
    /// A record that must be answered is: the answer is appended to `replies`.
    pub fn open(&mut self, octets: &mut [u8], replies: &mut Vec<u8>) -> Taken {
        let mut taken = Taken { plaintext: 0..0, used: 0, records: 0, closing: None };
        while taken.closing.is_none() {
            let rest = octets.get(taken.used..).unwrap_or_default();
            match record::whole(rest) {
                Ok(Some((header, end))) => {
                    let record = taken.used..taken.used + end;
                    taken.closing = self.open_one(header, record, octets, &mut taken.plaintext, replies);
                    taken.used += end;
                    taken.records += 1;
                }
                Ok(None) => break,
                Err(record::Overflow) => taken.closing = Some(Closing::Broken(RECORD_OVERFLOW)),
            }
        }
        taken
    }

    fn open_one(
        &mut self,
        header: Header,
        place: Range<usize>,
        octets: &mut [u8],
        plaintext: &mut Range<usize>,
        replies: &mut Vec<u8>,
    ) -> Option<Closing> {
        if self.is_tls13 && header.content_type != APPLICATION_DATA {
            return Some(Closing::Broken(UNEXPECTED_MESSAGE));
        }
        if self.is_tls13 && header.octets > record::CIPHERTEXT13_OCTETS_MAX {
            return Some(Closing::Broken(RECORD_OVERFLOW));
        }
        let record = octets.get_mut(place.clone()).unwrap_or_default();
        let opened = match self.opener.open(header, record) {
            Ok(opened) => opened,
            Err(CipherError::Overflow) => return Some(Closing::Broken(RECORD_OVERFLOW)),
            Err(CipherError::Forged | CipherError::WornOut) => return Some(Closing::Broken(BAD_RECORD_MAC)),
        };
        let content = opened.start..opened.start + opened.octets;
        let is_of_use = opened.content_type == APPLICATION_DATA && opened.octets > 0;
        self.idle_records = if is_of_use { 0 } else { self.idle_records + 1 };
        if self.idle_records > IDLE_RECORDS_MAX {
            return Some(Closing::Broken(UNEXPECTED_MESSAGE));
        }
        match opened.content_type {
            APPLICATION_DATA => {
                join(plaintext, place.start + content.start..place.start + content.end, octets);
                None
            }
            ALERT => alert(record.get(content).unwrap_or_default()),
            HANDSHAKE if self.is_tls13 => self.update_key(record.get(content).unwrap_or_default(), replies),
            _ => Some(Closing::Broken(UNEXPECTED_MESSAGE)),
        }
    }

    /// The only handshake message that a client may still send. It must fill its record: the next one has
    /// another key (RFC 8446 §5.1); nobody splits five octets.
    fn update_key(&mut self, message: &[u8], replies: &mut Vec<u8>) -> Option<Closing> {
        let is_asked = match message.strip_prefix(&KEY_UPDATE) {
            Some([NOT_REQUESTED]) => false,
            Some([REQUESTED]) => true,
            Some(_) => return Some(Closing::Broken(DECODE_ERROR)),
            None => return Some(Closing::Broken(UNEXPECTED_MESSAGE)),
        };
        self.key_updates += 1;
        if self.key_updates > KEY_UPDATES_MAX {
            return Some(Closing::Broken(UNEXPECTED_MESSAGE));
        }
        let renewed = self.renew_keys(is_asked, replies);
        renewed.is_err().then_some(Closing::Broken(INTERNAL_ERROR))
    }

    fn renew_keys(&mut self, is_asked: bool, replies: &mut Vec<u8>) -> Result<(), TlsError> {
        self.opener = Cipher::new(self.keys.update_rx_secret()?, self.is_tls13)?;
        if is_asked {
            let [kind, high, middle, low] = KEY_UPDATE;
            // Under the old key; a worn one ends the session at its next response.
            let _ = self.sealer.seal(HANDSHAKE, &[kind, high, middle, low, NOT_REQUESTED], replies);
            self.sealer = Cipher::new(self.keys.update_tx_secret()?, self.is_tls13)?;
        }
        Ok(())
    }

    /// Appends `content` to `out` as application data.
    ///
    /// # Errors
    /// [`CipherError::WornOut`]: the session has lasted as long as its key.
    pub fn seal(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), CipherError> {
        self.sealer.seal(APPLICATION_DATA, content, out)
    }

    /// Appends the alert that `closing` owes the peer: close_notify, or what was wrong.
    pub fn farewell(&mut self, closing: Option<Closing>, out: &mut Vec<u8>) {
        let alert = match closing {
            Some(Closing::Broken(description)) => [FATAL, description],
            Some(Closing::Alerted) => return,
            Some(Closing::Notified) | None => [WARNING, CLOSE_NOTIFY],
        };
        // A worn key says nothing more; the FIN does.
        let _ = self.sealer.seal(ALERT, &alert, out);
    }
}

/// Moves `more` behind what `plaintext` already covers. The first run stays where it was decrypted.
fn join(plaintext: &mut Range<usize>, more: Range<usize>, octets: &mut [u8]) {
    if plaintext.start == plaintext.end {
        *plaintext = more;
        return;
    }
    let (start, length) = (plaintext.end, more.len());
    // Records are longer than what they hold, so this only ever moves to the front.
    octets.copy_within(more, start);
    plaintext.end = start + length;
}

fn alert(content: &[u8]) -> Option<Closing> {
    match content {
        [_, CLOSE_NOTIFY] => Some(Closing::Notified),
        // It says that close_notify comes.
        [_, USER_CANCELED] => None,
        [_, _] => Some(Closing::Alerted),
        _ => Some(Closing::Broken(DECODE_ERROR)),
    }
}

#[cfg(test)]
#[path = "records/tests.rs"]
mod tests;
