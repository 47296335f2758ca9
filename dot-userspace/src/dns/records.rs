//! Walks the sections of a message: finds where each record lies, without parsing most of them.
//!
//! Before: whole messages from clients and backends. After: `query` and `respond` know offsets.
//! Never: follows a compression pointer (a pointer ends a name here), so no walk can loop; each step moves forward, and
//! counts in the header never determine the size of an allocation.
//!
//! Source: RFC 1035 §4.1.

use super::NAME_OCTETS_MAX;

/// Octets of a DNS header.
pub const HEADER_OCTETS: usize = 12;
/// TYPE of an OPT record.
pub(super) const TYPE_OPT: u16 = 41;
/// TYPE of a SIG(0) record (RFC 2931).
pub(super) const TYPE_SIG: u16 = 24;
/// TYPE of a TSIG record (RFC 8945).
pub(super) const TYPE_TSIG: u16 = 250;

/// Reads a big-endian number, if it is there.
pub(super) fn u16_at(message: &[u8], offset: usize) -> Option<u16> {
    let octets = message.get(offset..offset.checked_add(2)?)?;
    Some(u16::from_be_bytes(octets.try_into().ok()?))
}

/// Overwrites two octets, where they exist.
pub(super) fn write_at(out: &mut [u8], offset: usize, value: u16) {
    if let Some(octets) = out.get_mut(offset..offset + 2) {
        octets.copy_from_slice(&value.to_be_bytes());
    }
}

/// The end of the question's name. There is nothing that it could point to, so compression is an error.
pub(super) fn question_name_end(message: &[u8], start: usize) -> Option<usize> {
    let mut offset = start;
    loop {
        let label_octets = usize::from(*message.get(offset)?);
        if label_octets > 63 {
            return None;
        }
        offset = offset.checked_add(1)?.checked_add(label_octets)?;
        if offset - start > NAME_OCTETS_MAX {
            return None;
        }
        if label_octets == 0 {
            return Some(offset);
        }
    }
}

/// The end of an owner name: its root label, or the pointer in place of its rest.
pub(super) fn owner_name_end(message: &[u8], start: usize) -> Option<usize> {
    let mut offset = start;
    loop {
        let label_octets = usize::from(*message.get(offset)?);
        match label_octets {
            0 => return Some(offset + 1),
            0xc0..=0xff => return (offset + 2 <= message.len()).then_some(offset + 2),
            64..0xc0 => return None,
            _ => offset = offset.checked_add(1)?.checked_add(label_octets)?,
        }
        if offset - start > NAME_OCTETS_MAX {
            return None;
        }
    }
}

/// One past this many questions, or zones of an UPDATE. Linear in the octets of the message, whatever `count` says.
pub(super) fn questions_end(message: &[u8], count: u16) -> Option<usize> {
    let mut end = HEADER_OCTETS;
    for _ in 0..count {
        end = owner_name_end(message, end)?.checked_add(4).filter(|end| *end <= message.len())?;
    }
    Some(end)
}

/// Where one record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// First octet of the owner name.
    pub start: usize,
    /// First octet of TYPE.
    pub fixed: usize,
    /// TYPE.
    pub rtype: u16,
    /// First octet of RDATA.
    pub rdata: usize,
    /// One past the last octet of RDATA.
    pub end: usize,
}

/// Reads the record at `start`.
pub(super) fn record_at(message: &[u8], start: usize) -> Option<Record> {
    let fixed = owner_name_end(message, start)?;
    let rtype = u16_at(message, fixed)?;
    let rdata = fixed.checked_add(10)?;
    let end = rdata.checked_add(usize::from(u16_at(message, fixed + 8)?))?;
    (end <= message.len()).then_some(Record { start, fixed, rtype, rdata, end })
}

/// The four counts of a header: question, answer, authority, additional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub question: u16,
    pub answer: u16,
    pub authority: u16,
    pub additional: u16,
}

impl Counts {
    /// Reads the counts.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        Some(Self {
            question: u16_at(message, 4)?,
            answer: u16_at(message, 6)?,
            authority: u16_at(message, 8)?,
            additional: u16_at(message, 10)?,
        })
    }
}

/// The parts behind the question that an EDNS edit needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// The OPT record, which stands in the additional section with the root as owner.
    pub opt: Option<Record>,
    /// A TSIG or SIG(0) record signs the octets as they are.
    pub is_signed: bool,
    /// One past the last record.
    pub end: usize,
}

/// Why the records are invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TailError {
    /// A record does not fit into the message.
    Broken,
    /// An OPT record outside the additional section, with an owner name other than the root, or a second one.
    MisplacedOpt,
}

/// Walks every record behind the question. Linear in the octets of the message.
pub(super) fn walk_tail(message: &[u8], question_end: usize, counts: Counts) -> Result<Tail, TailError> {
    let mut tail = Tail { end: question_end, ..Tail::default() };
    for _ in 0..u32::from(counts.answer) + u32::from(counts.authority) {
        let record = record_at(message, tail.end).ok_or(TailError::Broken)?;
        if record.rtype == TYPE_OPT {
            return Err(TailError::MisplacedOpt);
        }
        tail.end = record.end;
    }
    for _ in 0..counts.additional {
        let record = record_at(message, tail.end).ok_or(TailError::Broken)?;
        match record.rtype {
            TYPE_OPT if tail.opt.is_some() || record.fixed != record.start + 1 => {
                return Err(TailError::MisplacedOpt);
            }
            TYPE_OPT => tail.opt = Some(record),
            TYPE_TSIG | TYPE_SIG => tail.is_signed = true,
            _ => {}
        }
        tail.end = record.end;
    }
    Ok(tail)
}

/// Whether `response` answers the question of `query`: same name (case kept or not), type and class.
///
/// `question_end` is the offset behind the question of `query`. Source: RFC 5452 §9.1.
#[must_use]
pub fn question_matches(response: &[u8], query: &[u8], question_end: usize) -> bool {
    // QR, and the opcode of the query.
    let opcode = query.get(2).map_or(0, |flags| flags & 0x78);
    let is_response = response.get(2).is_some_and(|flags| flags & 0xf8 == 0x80 | opcode);
    let asked = query.get(HEADER_OCTETS..question_end).and_then(<[u8]>::split_last_chunk::<4>);
    let answered = response.get(HEADER_OCTETS..question_end).and_then(<[u8]>::split_last_chunk::<4>);
    match (asked, answered) {
        // Only names are compared without case: type 65 is not type 97.
        (Some((name, fixed)), Some((other_name, other_fixed))) => {
            is_response
                && u16_at(response, 4) == Some(1)
                && fixed == other_fixed
                && name.eq_ignore_ascii_case(other_name)
        }
        _ => false,
    }
}

/// Whether `message` is a response without a question section.
#[must_use]
pub fn has_no_question(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && u16_at(message, 4) == Some(0)
        && message.len() >= HEADER_OCTETS
}

/// Whether TC is set.
#[must_use]
pub fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}
