//! Writes responses with records of dotd's own: those of policy zones, and those about this resolver (RFC 9462).
//!
//! Before: a query, or a response of which the front is kept. After: a response as a backend would send it: `respond`
//! prepares it for the client.
//! Holds: the counts of the records so far.
//! Never: compresses a name except the question's, or moves a record to which another one points.
//!
//! Source: RFC 1035 §4.1, RFC 3597 §4, RFC 6891 §6.1, RFC 8914 §2.

use super::{
    Labels, ResponseCode,
    edns::write_ede_text,
    forward::BACKEND_PAYLOAD_OCTETS,
    records::{Counts, HEADER_OCTETS, Record, record_at, u16_at, write_at},
};

/// A pointer to the question's name.
const QUESTION: [u8; 2] = [0xc0, HEADER_OCTETS as u8];
const CLASS_IN: u16 = 1;

/// A response that is being written.
pub struct Made<'o> {
    out: &'o mut Vec<u8>,
    answers: u16,
    additional: u16,
}

impl<'o> Made<'o> {
    /// Begins with `front`: a message up to the end of its question, or up to the end of `answers` of its answers.
    #[must_use]
    pub fn begin(front: &[u8], answers: u16, out: &'o mut Vec<u8>) -> Self {
        out.clear();
        out.extend_from_slice(front);
        out.resize(out.len().max(HEADER_OCTETS), 0);
        let (flags, lower) =
            (out.get(2).copied().unwrap_or_default(), out.get(3).copied().unwrap_or_default());
        // QR=1; the query's opcode, RD and CD; RA, because dotd answers for a resolver.
        write_at(out, 2, u16::from_be_bytes([0x80 | flags & 0x79, 0x80 | lower & 0x10]));
        for (offset, count) in [(4, 1), (6, answers), (8, 0), (10, 0)] {
            write_at(out, offset, count);
        }
        Self { out, answers, additional: 0 }
    }

    /// Adds a record to the answer section; `owner` in wire format, `None`: the question's name.
    pub fn answer(&mut self, owner: Option<&[u8]>, rtype: u16, ttl: u32, rdata: &[u8]) {
        self.record(owner, rtype, ttl, rdata);
        self.answers = self.answers.saturating_add(1);
    }

    /// Adds a record to the additional section: no answer may be added after it.
    pub fn additional(&mut self, owner: Option<&[u8]>, rtype: u16, ttl: u32, rdata: &[u8]) {
        self.record(owner, rtype, ttl, rdata);
        self.additional = self.additional.saturating_add(1);
    }

    fn record(&mut self, owner: Option<&[u8]>, rtype: u16, ttl: u32, rdata: &[u8]) {
        self.out.extend_from_slice(owner.unwrap_or(&QUESTION));
        for number in [rtype, CLASS_IN] {
            self.out.extend_from_slice(&number.to_be_bytes());
        }
        self.out.extend_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(&u16::try_from(rdata.len()).unwrap_or_default().to_be_bytes());
        self.out.extend_from_slice(rdata);
    }

    /// Adds the answers of another response, whose question ends at `question_end`, with uncompressed names. `None`:
    /// it is broken.
    /// is broken.
    pub fn copy_answers(&mut self, response: &[u8], question_end: usize) -> Option<()> {
        let mut at = question_end;
        for _ in 0..Counts::read(response)?.answer {
            let record = record_at(response, at)?;
            self.copy(response, record)?;
            self.answers = self.answers.checked_add(1)?;
            at = record.end;
        }
        Some(())
    }

    fn copy(&mut self, message: &[u8], record: Record) -> Option<()> {
        self.out.extend_from_slice(Labels::read(message, record.start)?.octets());
        self.out.extend_from_slice(message.get(record.fixed..record.fixed + 8)?);
        let length_at = self.out.len();
        self.out.extend_from_slice(&[0, 0]);
        let (before, names) = compressible(record.rtype);
        let mut at = record.rdata + before;
        self.out.extend_from_slice(message.get(record.rdata..at)?);
        for _ in 0..names {
            self.out.extend_from_slice(Labels::read(message, at)?.octets());
            at = super::records::owner_name_end(message, at)?;
        }
        self.out.extend_from_slice(message.get(at..record.end)?);
        let octets = u16::try_from(self.out.len() - length_at - 2).ok()?;
        write_at(self.out, length_at, octets);
        Some(())
    }

    /// Ends with this rcode and an OPT, which contains the extended error if there is one: its code and its text.
    pub fn finish(self, rcode: ResponseCode, ede: Option<(u16, &str)>, dnssec_ok: bool) {
        if let Some(octet) = self.out.get_mut(3) {
            *octet = *octet & 0xf0 | rcode.low();
        }
        self.out.extend_from_slice(&[0, 0, 41]);
        self.out.extend_from_slice(&BACKEND_PAYLOAD_OCTETS.to_be_bytes());
        self.out.extend_from_slice(&[0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
        let rdata = self.out.len();
        if let Some((code, text)) = ede {
            write_ede_text(self.out, code, text);
        }
        let octets = u16::try_from(self.out.len() - rdata).unwrap_or_default();
        write_at(self.out, rdata - 2, octets);
        write_at(self.out, 6, self.answers);
        write_at(self.out, 10, self.additional.saturating_add(1));
    }
}

/// Octets of RDATA before the names that may be compressed, and how many names these are (RFC 3597 §4, RFC 2782).
pub(super) fn compressible(rtype: u16) -> (usize, usize) {
    match rtype {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME.
        2..=5 | 7..=9 | 12 | 39 => (0, 1),
        // SOA, MINFO, RP.
        6 | 14 | 17 => (0, 2),
        // MX, AFSDB, RT.
        15 | 18 | 21 => (2, 1),
        // PX, SRV.
        26 => (2, 2),
        33 => (6, 1),
        _ => (0, 0),
    }
}

/// A query for `name` (wire format), of the kind of the one in `front`, which ends with its question.
#[must_use]
pub fn query_for(name: &[u8], front: &[u8], question_end: usize, has_opt: bool, dnssec_ok: bool) -> Vec<u8> {
    let mut query = Vec::with_capacity(HEADER_OCTETS + name.len() + 15);
    query.extend_from_slice(front.get(..2).unwrap_or(&[0, 0]));
    let (flags, lower) =
        (front.get(2).copied().unwrap_or_default(), front.get(3).copied().unwrap_or_default());
    query.extend_from_slice(&[flags & 0x01, lower & 0x10, 0, 1, 0, 0, 0, 0, 0, u8::from(has_opt)]);
    query.extend_from_slice(name);
    let kind = question_end.checked_sub(4).and_then(|at| front.get(at..question_end));
    query.extend_from_slice(kind.unwrap_or(&[0, 1, 0, 1]));
    if has_opt {
        query.extend_from_slice(&[0, 0, 41]);
        query.extend_from_slice(&BACKEND_PAYLOAD_OCTETS.to_be_bytes());
        query.extend_from_slice(&[0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
    }
    query
}

/// QTYPE of the question that ends at `question_end`.
#[must_use]
pub fn qtype_of(message: &[u8], question_end: usize) -> u16 {
    question_end.checked_sub(4).and_then(|at| u16_at(message, at)).unwrap_or_default()
}
