//! The records of an answer section for policies: the offsets of each, its type and its RDATA.
//!
//! Before: a response of a backend, or of the cache. After: `policy` knows the names and addresses in it.
//! Never: allocates; continues after a record that does not fit.
//!
//! Source: RFC 1035 §4.1.3.

use super::records::{Counts, record_at};

/// TYPE of an address, of an alias, of an IPv6 address, and of a signature.
pub const TYPE_A: u16 = 1;
/// An alias.
pub const TYPE_CNAME: u16 = 5;
/// An IPv6 address.
pub const TYPE_AAAA: u16 = 28;
/// A signature.
const TYPE_RRSIG: u16 = 46;

/// One record of the answer section. Offsets are octets from the start of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// First octet of its owner name.
    pub start: usize,
    /// TYPE.
    pub rtype: u16,
    /// First octet of RDATA.
    pub rdata: usize,
    /// One past the last octet of RDATA.
    pub end: usize,
}

/// The records of the answer section of `response`, whose question ends at `question_end`.
pub fn answers(response: &[u8], question_end: usize) -> impl Iterator<Item = Answer> {
    let count = Counts::read(response).unwrap_or_default().answer;
    records(response, question_end, u32::from(count))
}

/// Whether a record of the answer or the authority section is signed (RFC 4034 §3).
#[must_use]
pub fn is_signed(response: &[u8], question_end: usize) -> bool {
    let counts = Counts::read(response).unwrap_or_default();
    let count = u32::from(counts.answer) + u32::from(counts.authority);
    records(response, question_end, count).any(|record| record.rtype == TYPE_RRSIG)
}

fn records(message: &[u8], start: usize, count: u32) -> impl Iterator<Item = Answer> {
    let (mut at, mut left) = (start, count);
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let record = record_at(message, at)?;
        at = record.end;
        Some(Answer { start: record.start, rtype: record.rtype, rdata: record.rdata, end: record.end })
    })
}
