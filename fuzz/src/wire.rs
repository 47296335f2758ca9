//! Parses DNS messages again, slowly and independently: the oracle of the targets.
//!
//! Before: octets that dotd read or wrote. After: every record with its place, or `None`: no whole message.
//! Never: shares code with dotd, follows a compression pointer, allocates by a count of the header.
//!
//! Source: RFC 1035 §4.1, RFC 6891 §6.1.2.

use std::ops::Range;

/// TYPE of an OPT record.
pub(crate) const OPT: u16 = 41;

/// One resource record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its octets, owner name included.
    pub(crate) place: Range<usize>,
    pub(crate) owner_octets: usize,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) rdata: Range<usize>,
    pub(crate) is_additional: bool,
}

/// A parsed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) counts: [u16; 4],
    pub(crate) question_end: usize,
    pub(crate) records: Vec<Record>,
    /// One past the last record; octets may follow.
    pub(crate) end: usize,
}

pub(crate) fn word(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from(*octets.get(at)?) << 8 | u16::from(*octets.get(at + 1)?))
}

/// Reads a message; the caller judges octets behind its last record.
pub(crate) fn read(octets: &[u8]) -> Option<Message> {
    let counts = [word(octets, 4)?, word(octets, 6)?, word(octets, 8)?, word(octets, 10)?];
    let mut at = 12;
    for _ in 0..counts[0] {
        at = name_end(octets, at)? + 4;
        octets.get(..at)?;
    }
    let question_end = at;
    let first_additional = u32::from(counts[1]) + u32::from(counts[2]);
    let mut records = Vec::new();
    for index in 0..first_additional + u32::from(counts[3]) {
        let record = record(octets, at, index >= first_additional)?;
        at = record.place.end;
        records.push(record);
    }
    Some(Message { counts, question_end, records, end: at })
}

impl Message {
    /// All OPT records, wherever they stand.
    pub(crate) fn opts(&self) -> Vec<&Record> {
        self.records.iter().filter(|record| record.rtype == OPT).collect()
    }

    /// A TSIG or a SIG among the additional records.
    pub(crate) fn is_signed(&self) -> bool {
        self.records.iter().any(|record| record.is_additional && matches!(record.rtype, 24 | 250))
    }
}

/// Whether two octets of these would be a compression pointer to `start` or beyond in a name.
pub(crate) fn may_point_to(octets: &[u8], start: usize) -> bool {
    (1..octets.len()).any(|at| {
        octets[at - 1] >= 0xc0 && word(octets, at - 1).is_some_and(|word| usize::from(word & 0x3fff) >= start)
    })
}

/// Code and value of each option; `None` when one does not fit.
pub(crate) fn options(rdata: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let (mut at, mut found) = (0, Vec::new());
    while at < rdata.len() {
        let (code, length) = (word(rdata, at)?, usize::from(word(rdata, at + 2)?));
        found.push((code, rdata.get(at + 4..at + 4 + length)?));
        at += 4 + length;
    }
    Some(found)
}

/// Asserts that `options` end with one padding option of zeros, and have no other.
pub(crate) fn assert_padded(options: &[(u16, &[u8])]) {
    let (last, others) = options.split_last().expect("padding was due");
    assert!(last.0 == 12 && last.1.iter().all(|octet| *octet == 0), "the last option is zero-filled padding");
    assert!(others.iter().all(|(code, _)| *code != 12), "padding stands once");
}

fn name_end(octets: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match *octets.get(at)? {
            0 => return Some(at + 1),
            0xc0.. => return octets.get(at + 1).map(|_| at + 2),
            label @ 1..=63 => at += 1 + usize::from(label),
            _ => return None,
        }
    }
}

fn record(octets: &[u8], start: usize, is_additional: bool) -> Option<Record> {
    let at = name_end(octets, start)?;
    let ttl = u32::from(word(octets, at + 4)?) << 16 | u32::from(word(octets, at + 6)?);
    let rdata = at + 10..at + 10 + usize::from(word(octets, at + 8)?);
    octets.get(rdata.clone())?;
    Some(Record {
        place: start..rdata.end,
        owner_octets: at - start,
        rtype: word(octets, at)?,
        class: word(octets, at + 2)?,
        ttl,
        rdata,
        is_additional,
    })
}
