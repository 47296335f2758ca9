//! An established TLS connection without its socket: opens and seals records.
//!
//! Before: the handshake gave two keys. After: plaintext is at the place of its records; responses are sealed.
//! Holds: the keys, the means to make them and the next ones, and how often the peer has sent useless records. At rest:
//! those means alone; the first record of a direction makes its key again.
//! Never: reads, writes, waits, copies octets that it can decrypt in place, or goes on after an invalid record.
//!
//! Source: RFC 8446 §4.6.3, §5 and §6; RFC 5246 §6 and §7.2.

pub(super) mod octets;

use std::ops::Range;

use rustls::{Error as TlsError, ExtractedSecrets};

use super::{
    alert::{
        self, BAD_RECORD_MAC, CLOSE_NOTIFY, FATAL, INTERNAL_ERROR, Meaning, RECORD_OVERFLOW,
        UNEXPECTED_MESSAGE, WARNING,
    },
    cipher::{Cipher, CipherError},
    fixed_keys::FixedKeys,
    key_update::{self, NOT_REQUESTED, Partial},
    record::{self, ALERT, APPLICATION_DATA, HANDSHAKE, Header},
    secrets::{Side, TrafficSecrets},
    sessions::OfConnection,
};

/// Useless records in a row that a peer may send, such as key updates and empty records.
const IDLE_RECORDS_MAX: u8 = 32;
/// Key updates of one connection: far more than a client's own limits cause in the hour that a session may last.
const KEY_UPDATES_MAX: u16 = 256;
/// Warnings of one connection: rustls's limit.
const WARNINGS_MAX: u8 = 4;

/// The reason why no further record is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The peer sent close_notify.
    Notified,
    /// The peer sent another alert.
    Alerted,
    /// A record was invalid; the peer must get this alert.
    Broken(u8),
}

/// The result of opening a run of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where the application data is now.
    pub plaintext: Range<usize>,
    /// Octets of the opened records; the octets behind them are the beginning of another.
    pub used: usize,
    /// Number of these records.
    pub records: usize,
    /// Why it stopped, if not for lack of octets.
    pub closing: Option<Closing>,
}

/// The source of a connection's keys.
enum Keys {
    /// Secrets, from which the next keys are derived too (TLS 1.3).
    Changing(TrafficSecrets),
    /// The keys themselves (TLS 1.2).
    Fixed(FixedKeys),
}

/// Both directions of an established connection.
pub struct Records {
    opener: Cipher,
    sealer: Cipher,
    /// The source of both keys.
    keys: Box<Keys>,
    /// The front of a key update, if its record ended before it did.
    partial: Partial,
    idle_records: u8,
    warnings: u8,
    key_updates: u16,
    /// The session that ends if the connection fails (TLS 1.2).
    session: Option<Box<OfConnection>>,
}

impl Records {
    /// Takes over from rustls; `traffic`: in TLS 1.3.
    ///
    /// # Errors
    /// [`TlsError`]: a suite that we do not offer.
    pub fn new(secrets: ExtractedSecrets, traffic: Option<TrafficSecrets>) -> Result<Self, TlsError> {
        let is_tls13 = traffic.is_some();
        let fixed = || FixedKeys::of(&secrets.rx.1, &secrets.tx.1).map(Keys::Fixed);
        let keys = traffic.map(Keys::Changing).or_else(fixed);
        Ok(Self {
            keys: Box::new(keys.ok_or_else(|| TlsError::General("a suite that dotd does not offer".into()))?),
            opener: Cipher::new(secrets.rx, is_tls13)?,
            sealer: Cipher::new(secrets.tx, is_tls13)?,
            partial: Partial::default(),
            idle_records: 0,
            warnings: 0,
            key_updates: 0,
            session: None,
        })
    }

    fn is_tls13(&self) -> bool {
        matches!(*self.keys, Keys::Changing(_))
    }

    /// Frees the memory of both keys, until a record needs one. What makes them, and the numbers, stay.
    pub fn rest(&mut self) {
        self.opener.rest();
        self.sealer.rest();
    }

    /// Whether both keys are at rest.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.opener.is_at_rest() && self.sealer.is_at_rest()
    }

    /// Makes the key of one side again (RFC 8446 §7.3). The number goes on.
    #[cold]
    #[inline(never)]
    fn wake(&mut self, side: Side) -> Option<()> {
        let cipher = if side == Side::Client { &mut self.opener } else { &mut self.sealer };
        match &*self.keys {
            Keys::Changing(secrets) => secrets.current(side, |suite, key, iv| cipher.wake(suite, key, iv))?,
            Keys::Fixed(keys) => cipher.wake(keys.suite, keys.key(side), cipher.iv()),
        }
    }

    /// The session that the client may resume, unless the connection fails.
    pub(super) fn keep(&mut self, session: OfConnection) {
        self.session = Some(Box::new(session));
    }

    /// The connection has failed, and an alert has said or will say so (RFC 5246 §7.2.2).
    fn forget_session(&mut self) {
        if let Some(session) = self.session.take() {
            session.forget();
        }
    }

    /// Opens every whole record at the beginning of `octets`. Their application data is contiguous afterwards. Answers
    /// to records that need one are appended to `replies`.
    pub fn open(&mut self, octets: &mut [u8], replies: &mut Vec<u8>) -> Taken {
        let mut taken = Taken { plaintext: 0..0, used: 0, records: 0, closing: None };
        while taken.closing.is_none() {
            let rest = octets.get(taken.used..).unwrap_or_default();
            let header = match record::header(rest) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(record::Overflow) => {
                    taken.closing = Some(Closing::Broken(RECORD_OVERFLOW));
                    break;
                }
            };
            // A fault in a header is reported before the rest of its record comes.
            taken.closing = self.refuse(header).map(Closing::Broken);
            let end = record::HEADER_OCTETS + header.octets;
            if taken.closing.is_some() || end > rest.len() {
                break;
            }
            let record = taken.used..taken.used + end;
            taken.closing = self.open_one(header, record, octets, &mut taken.plaintext, replies);
            taken.used += end;
            taken.records += 1;
        }
        if matches!(taken.closing, Some(Closing::Alerted | Closing::Broken(_))) {
            self.forget_session();
        }
        taken
    }

    /// The alert for a record that must not come, by its header (RFC 8446 §5, §5.2; RFC 5246 §6).
    fn refuse(&self, header: Header) -> Option<u8> {
        match header.content_type {
            APPLICATION_DATA if self.is_tls13() => {
                (header.octets > record::CIPHERTEXT13_OCTETS_MAX).then_some(RECORD_OVERFLOW)
            }
            APPLICATION_DATA | ALERT if !self.is_tls13() => None,
            // Renegotiation, change_cipher_spec, and unknown types.
            _ => Some(UNEXPECTED_MESSAGE),
        }
    }

    fn open_one(
        &mut self,
        header: Header,
        place: Range<usize>,
        octets: &mut [u8],
        plaintext: &mut Range<usize>,
        replies: &mut Vec<u8>,
    ) -> Option<Closing> {
        let record = octets.get_mut(place.clone()).unwrap_or_default();
        let opened = loop {
            match self.opener.open(header, record) {
                Ok(opened) => break opened,
                Err(CipherError::AtRest) if self.wake(Side::Client).is_some() => {}
                Err(error) => return Some(Closing::Broken(alert_of(error))),
            }
        };
        let content = opened.start..opened.start + opened.octets;
        let is_of_use = opened.content_type == APPLICATION_DATA && opened.octets > 0;
        self.idle_records = if is_of_use { 0 } else { self.idle_records + 1 };
        let is_interrupting = self.partial.is_begun() && opened.content_type != HANDSHAKE;
        if self.idle_records > IDLE_RECORDS_MAX || is_interrupting {
            return Some(Closing::Broken(UNEXPECTED_MESSAGE));
        }
        match opened.content_type {
            APPLICATION_DATA => {
                join(plaintext, place.start + content.start..place.start + content.end, octets);
                None
            }
            ALERT => self.heed(record.get(content).unwrap_or_default()),
            HANDSHAKE if self.is_tls13() => self.update_key(record.get(content).unwrap_or_default(), replies),
            _ => Some(Closing::Broken(UNEXPECTED_MESSAGE)),
        }
    }

    fn heed(&mut self, content: &[u8]) -> Option<Closing> {
        match alert::meaning(content, self.is_tls13()) {
            Meaning::Closing => Some(Closing::Notified),
            Meaning::Error => Some(Closing::Alerted),
            Meaning::Broken(description) => Some(Closing::Broken(description)),
            Meaning::Warning => {
                self.warnings += 1;
                (self.warnings > WARNINGS_MAX).then_some(Closing::Broken(UNEXPECTED_MESSAGE))
            }
        }
    }

    fn update_key(&mut self, content: &[u8], replies: &mut Vec<u8>) -> Option<Closing> {
        let is_asked = match self.partial.take(content) {
            Ok(Some(is_asked)) => is_asked,
            Ok(None) => return None,
            Err(description) => return Some(Closing::Broken(description)),
        };
        self.key_updates += 1;
        if self.key_updates > KEY_UPDATES_MAX {
            return Some(Closing::Broken(UNEXPECTED_MESSAGE));
        }
        let renewed = self.renew_keys(is_asked, replies);
        renewed.is_none().then_some(Closing::Broken(INTERNAL_ERROR))
    }

    fn renew_keys(&mut self, is_asked: bool, replies: &mut Vec<u8>) -> Option<()> {
        self.opener = self.renewed(Side::Client)?;
        if is_asked {
            let [kind, high, middle, low] = key_update::FRONT;
            // Under the old key. Without this record the peer would not know the new key.
            self.seal_as(HANDSHAKE, &[kind, high, middle, low, NOT_REQUESTED], replies).ok()?;
            self.sealer = self.renewed(Side::Server)?;
        }
        Some(())
    }

    fn renewed(&mut self, side: Side) -> Option<Cipher> {
        let Keys::Changing(secrets) = &mut *self.keys else { return None };
        secrets.renew(side, Cipher::renewed)?
    }

    fn seal_as(&mut self, content_type: u8, content: &[u8], out: &mut Vec<u8>) -> Result<(), CipherError> {
        loop {
            match self.sealer.seal(content_type, content, out) {
                Err(CipherError::AtRest) if self.wake(Side::Server).is_some() => {}
                sealed => return sealed,
            }
        }
    }

    /// Appends `content` to `out` as application data.
    ///
    /// # Errors
    /// [`CipherError::WornOut`]: the session has lasted as long as its key.
    pub fn seal(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), CipherError> {
        self.seal_as(APPLICATION_DATA, content, out)
    }

    /// Appends the alert for `closing`: close_notify, or the fault.
    pub fn farewell(&mut self, closing: Option<Closing>, out: &mut Vec<u8>) {
        let alert = match closing {
            Some(Closing::Broken(description)) => [FATAL, description],
            Some(Closing::Alerted) => return,
            Some(Closing::Notified) | None => [WARNING, CLOSE_NOTIFY],
        };
        // An exhausted key sends no alert; the FIN is enough.
        let _ = self.seal_as(ALERT, &alert, out);
    }
}

/// Moves `more` behind `plaintext`. The first run stays where it was decrypted.
fn join(plaintext: &mut Range<usize>, more: Range<usize>, octets: &mut [u8]) {
    if plaintext.start == plaintext.end {
        *plaintext = more;
        return;
    }
    let (start, length) = (plaintext.end, more.len());
    // Records are longer than their content, so this only moves octets forward.
    octets.copy_within(more, start);
    plaintext.end = start + length;
}

fn alert_of(error: CipherError) -> u8 {
    match error {
        CipherError::Overflow => RECORD_OVERFLOW,
        CipherError::Typeless => UNEXPECTED_MESSAGE,
        CipherError::Forged | CipherError::WornOut => BAD_RECORD_MAC,
        // aws-lc had no memory for the key.
        CipherError::AtRest => INTERNAL_ERROR,
    }
}

#[cfg(test)]
mod tests;
