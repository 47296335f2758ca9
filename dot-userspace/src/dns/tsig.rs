//! Signs and verifies messages with a key that two servers share (TSIG).
//!
//! Before: a zone transfer has a query, or a NOTIFY has come. After: the query is signed; each response is verified.
//! Holds: the key, and during a transfer the digest of the messages since the last signature.
//! Never: accepts a shortened signature, HMAC-MD5, or a transfer whose last message has no signature.
//!
//! Source: RFC 8945 §4.2 (record), §4.3 (digest), §5.2 and §5.3 (responses, several messages), §6 (algorithms).

use std::fmt;

use aws_lc_rs::hmac;
use thiserror::Error;

use super::{
    HEADER_OCTETS, Labels,
    records::{Counts, Record, TYPE_TSIG, questions_end, record_at, u16_at, write_at},
    wire_name,
};

/// Seconds by which clocks may differ (RFC 8945 §10).
const FUDGE_SECONDS: u16 = 300;
/// Most messages without a signature between two that have one (RFC 8945 §5.3.1).
const UNSIGNED_MAX: usize = 99;
const CLASS_ANY: u16 = 255;

/// Name in messages, name in configs, and algorithm.
const ALGORITHMS: [(&[u8], &str, hmac::Algorithm); 5] = [
    (b"\x0bhmac-sha256\x00", "hmac-sha256", hmac::HMAC_SHA256),
    (b"\x0bhmac-sha384\x00", "hmac-sha384", hmac::HMAC_SHA384),
    (b"\x0bhmac-sha512\x00", "hmac-sha512", hmac::HMAC_SHA512),
    (b"\x0bhmac-sha224\x00", "hmac-sha224", hmac::HMAC_SHA224),
    (b"\x09hmac-sha1\x00", "hmac-sha1", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
];

/// The reason why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TsigError {
    /// It has no signature, or too many messages before it have none.
    #[error("TSIG: a response has no signature")]
    Unsigned,
    /// Its TSIG record cannot be read, or is not the last record.
    #[error("TSIG: the record is broken")]
    Broken,
    /// It is signed by another key or algorithm.
    #[error("TSIG: signed by another key or algorithm")]
    OtherKey,
    /// The signature was not made with this key.
    #[error("TSIG: the signature is not this key's")]
    BadSignature,
    /// The clocks differ by more than the fudge.
    #[error("TSIG: the clocks of the two servers differ by {0} s")]
    BadTime(u64),
    /// The other server refuses dotd's signature.
    #[error("TSIG: the server refuses the key: {0}")]
    Refused(&'static str),
}

/// A key that two servers share.
#[derive(Clone)]
pub struct TsigKey {
    name: Box<[u8]>,
    algorithm: &'static [u8],
    key: hmac::Key,
}

impl fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TsigKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl TsigKey {
    /// The key `name` with this algorithm and secret.
    ///
    /// # Errors
    /// The name is not a domain name, or the algorithm is not known.
    pub fn new(name: &str, algorithm: &str, secret: &[u8]) -> Result<Self, String> {
        let wanted = algorithm.trim_end_matches('.').to_ascii_lowercase();
        let found = ALGORITHMS.iter().find(|(_, name, _)| *name == wanted);
        let Some((wire, _, hmac)) = found else {
            let known = ALGORITHMS.map(|(_, name, _)| name).join(", ");
            return Err(format!("\"{algorithm}\" is not a known algorithm: use one of {known}"));
        };
        if secret.is_empty() {
            return Err("the secret is empty".to_owned());
        }
        Ok(Self { name: wire_name(name)?, algorithm: wire, key: hmac::Key::new(*hmac, secret) })
    }

    /// Signs a query, and returns the state that verifies its responses.
    pub fn sign_query(&self, message: &mut Vec<u8>, now: u64) -> TsigStream {
        let mac = self.sign(message, None, now);
        TsigStream {
            context: self.begin(&mac),
            key: self.clone(),
            unsigned: 0,
            is_first: true,
            is_signed: false,
        }
    }

    /// Signs the response to a query whose signature is `request`.
    pub fn sign_response(&self, message: &mut Vec<u8>, request: &[u8], now: u64) {
        self.sign(message, Some(request), now);
    }

    fn sign(&self, message: &mut Vec<u8>, request: Option<&[u8]>, now: u64) -> Vec<u8> {
        let mut context = request.map_or_else(|| hmac::Context::with_key(&self.key), |mac| self.begin(mac));
        context.update(message);
        let times = times(now);
        self.digest_variables(&mut context, &times, 0, &[]);
        let mac = context.sign();
        let mac = mac.as_ref();
        let id = u16_at(message, 0).unwrap_or_default();
        message.extend_from_slice(&self.name);
        message.extend_from_slice(&[TYPE_TSIG.to_be_bytes(), CLASS_ANY.to_be_bytes()].concat());
        message.extend_from_slice(&[0; 4]);
        let octets = |slice: &[u8]| u16::try_from(slice.len()).unwrap_or_default();
        let rdata =
            [self.algorithm, &times, &octets(mac).to_be_bytes(), mac, &id.to_be_bytes(), &[0; 4]].concat();
        message.extend_from_slice(&octets(&rdata).to_be_bytes());
        message.extend_from_slice(&rdata);
        let additional = u16_at(message, 10).unwrap_or_default();
        write_at(message, 10, additional.saturating_add(1));
        mac.to_vec()
    }

    /// A digest that begins with an earlier signature.
    fn begin(&self, mac: &[u8]) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&u16::try_from(mac.len()).unwrap_or_default().to_be_bytes());
        context.update(mac);
        context
    }

    fn digest_variables(&self, context: &mut hmac::Context, times: &[u8], error: u16, other: &[u8]) {
        context.update(&self.name);
        context.update(&CLASS_ANY.to_be_bytes());
        context.update(&[0; 4]);
        context.update(self.algorithm);
        context.update(times);
        context.update(&error.to_be_bytes());
        context.update(&u16::try_from(other.len()).unwrap_or_default().to_be_bytes());
        context.update(other);
    }

    /// Verifies a query; returns its signature, which that of the response covers.
    ///
    /// # Errors
    /// [`TsigError`].
    pub fn verify_query(&self, message: &[u8], now: u64) -> Result<Vec<u8>, TsigError> {
        let tsig = Tsig::read(message)?.ok_or(TsigError::Unsigned)?;
        self.recognises(&tsig)?;
        let mut context = hmac::Context::with_key(&self.key);
        tsig.digest_message(message, &mut context);
        self.digest_variables(&mut context, tsig.times, tsig.error, tsig.other);
        tsig.agrees(context, now)?;
        Ok(tsig.mac.to_vec())
    }

    fn recognises(&self, tsig: &Tsig<'_>) -> Result<(), TsigError> {
        match tsig.error {
            0 => {}
            16 => return Err(TsigError::Refused("the signature is wrong there (BADSIG): another secret")),
            17 => return Err(TsigError::Refused("no such key is known there (BADKEY)")),
            18 => return Err(TsigError::Refused("the clocks differ (BADTIME)")),
            22 => return Err(TsigError::Refused("the signature is too short there (BADTRUNC)")),
            _ => return Err(TsigError::Refused("an error that is not known")),
        }
        let is_own = tsig.name.octets() == &*self.name && tsig.algorithm.octets() == self.algorithm;
        if is_own { Ok(()) } else { Err(TsigError::OtherKey) }
    }
}

/// Verifies the responses to one query, in their order.
pub struct TsigStream {
    key: TsigKey,
    context: hmac::Context,
    unsigned: usize,
    is_first: bool,
    is_signed: bool,
}

impl TsigStream {
    /// Takes the next response.
    ///
    /// # Errors
    /// [`TsigError`]; no message since the last signature may be used.
    pub fn take(&mut self, message: &[u8], now: u64) -> Result<(), TsigError> {
        let Some(tsig) = Tsig::read(message)? else {
            // The first one must have a signature (RFC 8945 §5.3.1).
            if self.is_first || self.unsigned >= UNSIGNED_MAX {
                return Err(TsigError::Unsigned);
            }
            self.unsigned += 1;
            self.is_signed = false;
            self.context.update(message);
            return Ok(());
        };
        self.key.recognises(&tsig)?;
        let next = self.key.begin(tsig.mac);
        let mut context = std::mem::replace(&mut self.context, next);
        tsig.digest_message(message, &mut context);
        match self.is_first {
            true => self.key.digest_variables(&mut context, tsig.times, tsig.error, tsig.other),
            false => context.update(tsig.times),
        }
        tsig.agrees(context, now)?;
        (self.is_first, self.unsigned, self.is_signed) = (false, 0, true);
        Ok(())
    }

    /// Whether all responses so far are covered by a signature.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        self.is_signed
    }
}

/// The TSIG record of a message.
struct Tsig<'m> {
    start: usize,
    name: Labels,
    algorithm: Labels,
    /// Time signed and fudge.
    times: &'m [u8],
    mac: &'m [u8],
    original_id: u16,
    error: u16,
    other: &'m [u8],
}

impl<'m> Tsig<'m> {
    /// Reads the record. `None`: there is none.
    fn read(message: &'m [u8]) -> Result<Option<Self>, TsigError> {
        let last = last_record(message)?;
        let Some(record) = last.filter(|record| record.rtype == TYPE_TSIG) else { return Ok(None) };
        Self::parse(message, record).map(Some).ok_or(TsigError::Broken)
    }

    fn parse(message: &'m [u8], record: Record) -> Option<Self> {
        if u16_at(message, record.fixed + 2)? != CLASS_ANY
            || message.get(record.fixed + 4..record.fixed + 8)? != [0; 4]
        {
            return None;
        }
        let (name, algorithm) = (Labels::read(message, record.start)?, Labels::read(message, record.rdata)?);
        let rdata = message.get(record.rdata..record.end)?;
        let algorithm_octets = algorithm.octets().len();
        // Names in TSIG records are not compressed (RFC 8945 §4.2).
        let rest = rdata.get(algorithm_octets..)?;
        let (times, rest) = rest.split_at_checked(8)?;
        let (mac, rest) = sized(rest)?;
        let (fixed, rest) = rest.split_at_checked(4)?;
        let (other, rest) = sized(rest)?;
        let (original_id, error) = (u16_at(fixed, 0)?, u16_at(fixed, 2)?);
        let tsig = Self { start: record.start, name, algorithm, times, mac, original_id, error, other };
        rest.is_empty().then_some(tsig)
    }

    /// The message before it was signed.
    fn digest_message(&self, message: &[u8], context: &mut hmac::Context) {
        let mut header = [0; HEADER_OCTETS];
        header.iter_mut().zip(message).for_each(|(place, octet)| *place = *octet);
        write_at(&mut header, 0, self.original_id);
        let additional = u16_at(&header, 10).unwrap_or_default();
        write_at(&mut header, 10, additional.saturating_sub(1));
        context.update(&header);
        context.update(message.get(HEADER_OCTETS..self.start).unwrap_or_default());
    }

    /// Whether the signature matches the digest, and is not too old.
    fn agrees(&self, context: hmac::Context, now: u64) -> Result<(), TsigError> {
        let expected = context.sign();
        if aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_ref(), self.mac).is_err() {
            return Err(TsigError::BadSignature);
        }
        let signed = self.times.iter().take(6).fold(0, |sum, octet| sum << 8 | u64::from(*octet));
        let fudge = u16_at(self.times, 6).unwrap_or_default();
        match now.abs_diff(signed) {
            apart if apart > u64::from(fudge) => Err(TsigError::BadTime(apart)),
            _ => Ok(()),
        }
    }
}

/// Time signed and fudge.
fn times(now: u64) -> [u8; 8] {
    let [_, _, a, b, c, d, e, f] = now.to_be_bytes();
    let [g, h] = FUDGE_SECONDS.to_be_bytes();
    [a, b, c, d, e, f, g, h]
}

/// Octets with their length in front, and the rest.
fn sized(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    octets.get(2..)?.split_at_checked(usize::from(u16_at(octets, 0)?))
}

/// The last record of a message; a TSIG record elsewhere is an error. `None`: there is no record.
fn last_record(message: &[u8]) -> Result<Option<Record>, TsigError> {
    let counts = Counts::read(message).ok_or(TsigError::Broken)?;
    let mut at = questions_end(message, counts.question).ok_or(TsigError::Broken)?;
    let count = u32::from(counts.answer) + u32::from(counts.authority) + u32::from(counts.additional);
    let mut last: Option<Record> = None;
    for _ in 0..count {
        if last.is_some_and(|record| record.rtype == TYPE_TSIG) {
            return Err(TsigError::Broken);
        }
        let record = record_at(message, at).ok_or(TsigError::Broken)?;
        at = record.end;
        last = Some(record);
    }
    match last {
        Some(record) if record.rtype == TYPE_TSIG && counts.additional == 0 => Err(TsigError::Broken),
        last => Ok(last),
    }
}

#[cfg(test)]
mod tests;
