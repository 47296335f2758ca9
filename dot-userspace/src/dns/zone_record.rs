//! Records of a zone that is transferred, and the queries that ask for them.
//!
//! Before: a policy zone has a primary server. After: `policy::copy` writes each record as a line of a zone file.
//! Holds: one record with uncompressed names.
//! Never: judges whether a record belongs to the zone.
//!
//! Source: RFC 1035 §3.3 and §5.1, RFC 1995 §3 (IXFR), RFC 5936 §2.1 (AXFR), RFC 3597 §5 (unknown types).

use std::fmt::Write as _;

use super::{
    HEADER_OCTETS, Labels, NAME_OCTETS_MAX, Rcode,
    made::compressible,
    name_in_words, question_matches, rcode_of,
    records::{owner_name_end, record_at, u16_at},
};

const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;
const CLASS_IN: u16 = 1;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneRecord {
    /// Its owner in wire format, lower case.
    pub owner: Box<[u8]>,
    /// TYPE.
    pub rtype: u16,
    /// CLASS.
    pub class: u16,
    /// TTL.
    pub ttl: u32,
    /// RDATA with uncompressed names.
    pub rdata: Vec<u8>,
}

impl ZoneRecord {
    /// Reads the record at `start` of `message`. `None`: it is broken.
    #[must_use]
    pub fn read(message: &[u8], start: usize) -> Option<Self> {
        let record = record_at(message, start)?;
        let class = u16_at(message, record.fixed + 2)?;
        let ttl = u32::from_be_bytes(*message.get(record.fixed + 4..)?.first_chunk()?);
        let (before, names) = compressible(record.rtype);
        let mut at = record.rdata.checked_add(before).filter(|at| *at <= record.end)?;
        let mut rdata = message.get(record.rdata..at)?.to_vec();
        for _ in 0..names {
            rdata.extend_from_slice(Labels::read(message, at)?.octets());
            at = owner_name_end(message, at).filter(|at| *at <= record.end)?;
        }
        rdata.extend_from_slice(message.get(at..record.end)?);
        let owner = Labels::read(message, start)?.octets().into();
        Some(Self { owner, rtype: record.rtype, class, ttl, rdata })
    }

    /// The fields of its SOA record. `None`: it has another type.
    #[must_use]
    pub fn soa(&self) -> Option<Soa> {
        if self.rtype == TYPE_SOA { Soa::read(&self.rdata) } else { None }
    }

    /// Owner and data in the form of a zone file, with the TTL between.
    #[must_use]
    pub fn words(&self) -> (String, String) {
        let mut text = String::new();
        match (self.rtype, <[u8; 4]>::try_from(self.rdata.as_slice())) {
            (TYPE_CNAME, _) if self.rdata.len() <= NAME_OCTETS_MAX => {
                let _ = write!(text, "CNAME {}", name_in_words(&self.rdata));
            }
            (TYPE_SOA, _) if self.soa().is_some() => {
                let (names, numbers) = self.rdata.split_at(self.rdata.len().saturating_sub(20));
                let mailbox = names.get(first_name_end(names)..).unwrap_or_default();
                let _ = write!(text, "SOA {} {}", name_in_words(names), name_in_words(mailbox));
                for number in numbers.chunks(4) {
                    let number = number.iter().fold(0_u32, |sum, octet| sum << 8 | u32::from(*octet));
                    let _ = write!(text, " {number}");
                }
            }
            (1, Ok(address)) => {
                let _ = write!(text, "A {}", std::net::Ipv4Addr::from(address));
            }
            _ => {
                let _ = write!(text, "TYPE{} \\# {} ", self.rtype, self.rdata.len());
                self.rdata.iter().for_each(|octet| {
                    let _ = write!(text, "{octet:02x}");
                });
            }
        }
        (name_in_words(&self.owner), text)
    }
}

/// The fields of a SOA record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Soa {
    /// The version.
    pub serial: u32,
    /// Seconds until the primary is asked again (REFRESH).
    pub refresh: u32,
    /// Seconds until then if it could not be asked (RETRY).
    pub retry: u32,
    /// Seconds without an answer after which the zone must not be used (EXPIRE).
    pub expire: u32,
}

impl Soa {
    /// Reads the data of a SOA record with uncompressed names.
    #[must_use]
    pub fn read(rdata: &[u8]) -> Option<Self> {
        let primary_end = first_name_end(rdata);
        let mailbox_end = primary_end + first_name_end(rdata.get(primary_end..)?);
        let numbers = rdata.get(mailbox_end..).filter(|numbers| numbers.len() == 20)?;
        let number = |index: usize| Some(u32::from_be_bytes(*numbers.get(index * 4..)?.first_chunk()?));
        Some(Self { serial: number(0)?, refresh: number(1)?, retry: number(2)?, expire: number(3)? })
    }

    /// Whether its version is newer than that with the serial `other` (RFC 1982).
    #[must_use]
    pub fn is_newer_than(&self, other: u32) -> bool {
        self.serial.wrapping_sub(other).cast_signed() > 0
    }
}

/// One past the uncompressed name at the start of `octets`.
fn first_name_end(octets: &[u8]) -> usize {
    let mut at = 0;
    while let Some(length) = octets.get(at) {
        at += 1 + usize::from(*length);
        if *length == 0 {
            break;
        }
    }
    at.min(octets.len())
}

/// A query for the SOA record of `zone` (wire format).
#[must_use]
pub fn soa_query(id: u16, zone: &[u8]) -> Vec<u8> {
    question(id, zone, TYPE_SOA)
}

/// A query for the whole zone (wire format), or for the differences from the version with this SOA record: TTL and data.
#[must_use]
pub fn transfer_query(id: u16, zone: &[u8], differences_from: Option<&[u8]>) -> Vec<u8> {
    let Some(rdata) = differences_from else { return question(id, zone, 252) };
    let mut query = question(id, zone, 251);
    query.extend_from_slice(&[0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 0]);
    query.extend_from_slice(&u16::try_from(rdata.len()).unwrap_or_default().to_be_bytes());
    query.extend_from_slice(rdata);
    if let Some(count) = query.get_mut(9) {
        *count = 1;
    }
    query
}

fn question(id: u16, zone: &[u8], qtype: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let header = [high, low, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    [&header[..], zone, &qtype.to_be_bytes(), &CLASS_IN.to_be_bytes()].concat()
}

/// Whether `response` answers `query`, which has a question and no record before its authority section.
///
/// # Errors
/// The mistake in it, for the operator.
pub fn is_response_to(
    response: &[u8],
    query: &[u8],
    question_octets: usize,
    is_first: bool,
) -> Result<(), String> {
    let question_end = HEADER_OCTETS + question_octets;
    let has_question = u16_at(response, 4) != Some(0);
    let is_its_own = response.first_chunk::<2>() == query.first_chunk::<2>()
        && response.get(2).is_some_and(|flags| flags & 0xfa == 0x80)
        && (question_matches(response, query, question_end) || !is_first && !has_question);
    if !is_its_own {
        return Err("a message came that answers another question".to_owned());
    }
    match rcode_of(response) {
        rcode if rcode.low() == Rcode::NO_ERROR.low() => Ok(()),
        rcode => Err(format!("the answer is {rcode}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::wire_name;

    /// Goal: records are read with uncompressed names, and written in the form of a zone file. Covers: C-562
    #[test]
    fn records_are_lines() {
        let name = wire_name("rpz.test").unwrap();
        let mut message = question(1, &name, 252);
        let records = message.len();
        // An alias with a name that points into the question; an address; a text of any octets.
        message.extend(b"\x03Bad\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x09\x06garden\xc0\x10");
        message.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x07");
        message.extend(b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x3c\x00\x03\x02a\xff");
        message.extend(b"\xc0\x0c\x00\x06\x00\x01\x00\x00\x00\x3c\x00\x17\xc0\x0c\x00");
        message.extend([7_u32, 10, 20, 30, 40].iter().flat_map(|number| number.to_be_bytes()));
        let mut at = records;
        let mut lines = Vec::new();
        while at < message.len() {
            let record = ZoneRecord::read(&message, at).unwrap();
            let (owner, data) = record.words();
            lines.push(format!("{owner} {} {data}", record.ttl));
            if let Some(soa) = record.soa() {
                assert_eq!(soa, Soa { serial: 7, refresh: 10, retry: 20, expire: 30 });
            }
            at = record_at(&message, at).unwrap().end;
        }
        let expected = [
            "bad.rpz.test. 60 CNAME garden.test.",
            "rpz.test. 60 A 192.0.2.7",
            "rpz.test. 60 TYPE16 \\# 3 0261ff",
            "rpz.test. 60 SOA rpz.test. . 7 10 20 30 40",
        ];
        assert_eq!(lines, expected);
        for end in records..message.len() {
            let _ = ZoneRecord::read(&message[..end], records);
        }
    }

    /// Goal: versions are compared as RFC 1982 says. Covers: C-563
    #[test]
    fn serials_wrap() {
        let soa = |serial| Soa { serial, refresh: 0, retry: 0, expire: 0 };
        assert!(soa(2).is_newer_than(1) && soa(1).is_newer_than(u32::MAX));
        assert!(!soa(1).is_newer_than(1) && !soa(1).is_newer_than(2) && !soa(u32::MAX).is_newer_than(0));
    }

    /// Goal: only the answer to the question is accepted, and a refusal is reported by its name. Covers: C-563
    #[test]
    fn answers_are_recognised() {
        let name = wire_name("rpz.test").unwrap();
        let query = transfer_query(7, &name, Some(b"\x00\x00rest"));
        let question_octets = name.len() + 4;
        let mut answer = question(7, &name, 251);
        answer[2] = 0x84;
        let of = |answer: &[u8], is_first| is_response_to(answer, &query, question_octets, is_first);
        assert_eq!(of(&answer, true), Ok(()));
        answer[3] = 5;
        assert_eq!(of(&answer, true), Err("the answer is Query Refused".to_owned()));
        answer[3] = 0;
        for at in [0, 2, 13, answer.len() - 3] {
            let mut other = answer.clone();
            other[at] ^= 0x40;
            assert!(of(&other, true).is_err() && of(&other, false).is_err(), "octet {at}");
        }
        let bare = [&answer[..4], &[0; 8]].concat();
        assert!(of(&bare, true).is_err() && of(&bare, false).is_ok());
    }
}
