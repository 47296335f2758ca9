//! Answers for the names below which an ACME authority looks for a proof: `_acme-challenge` and a name of the certificate. Pure.
//!
//! Before: the names of the config, and the records that the ACME process wants to be seen. After: TXT records, or NODATA.
//! Holds: names of the config alone. Never: has a record of another name, whatever the ACME process says.
//!
//! Source: RFC 8555 §8.4, RFC 1035 §3.3.14.

use super::{HEADER_OCTETS, Labels, Made, ResponseCode, qtype_of};

/// What is before a name of the certificate.
const PREFIX: &str = "_acme-challenge";
const TYPE_TXT: u16 = 16;
/// QTYPE of a question for every record.
const TYPE_ANY: u16 = 255;
/// A resolver asks again for the next proof.
const TTL_SECONDS: u32 = 1;
/// Records of one name: a name and its wildcard need two.
const RECORDS_MAX: usize = 8;
/// Octets of a record: a digest in Base64 has 43.
const RECORD_OCTETS_MAX: usize = 255;
/// AA: dotd is the authority for these names.
const AUTHORITATIVE: u8 = 0x04;

/// Names and their records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proofs(Vec<(Box<[u8]>, Records)>);

/// The data of a name's records.
type Records = Vec<Box<[u8]>>;

/// The name below which the proof of `name` is looked for, as text.
#[must_use]
pub fn proof_name(name: &str) -> String {
    let name = name.strip_prefix("*.").unwrap_or(name).trim_end_matches('.');
    format!("{PREFIX}.{}", name.to_ascii_lowercase())
}

impl Proofs {
    /// For the names of a certificate, without records. `None`: there is no such name.
    #[must_use]
    pub fn of<'n>(names: impl Iterator<Item = &'n str>) -> Option<Self> {
        let mut proofs = Self::default();
        for name in names {
            let Ok(owner) = Labels::parse(proof_name(name).as_bytes(), None) else { continue };
            if proofs.0.iter().all(|(own, _)| **own != *owner.octets()) {
                proofs.0.push((owner.octets().into(), Vec::new()));
            }
        }
        (!proofs.0.is_empty()).then_some(proofs)
    }

    /// Adds a record to one of these names. `false`: it is none of them, or the record is too much.
    pub fn add(&mut self, name: &str, text: &str) -> bool {
        let Ok(owner) = Labels::parse(name.as_bytes(), None) else { return false };
        let own = self.0.iter_mut().find(|(own, _)| **own == *owner.octets());
        let Some((_, records)) = own.filter(|(_, records)| records.len() < RECORDS_MAX) else { return false };
        let Ok(octets) = u8::try_from(text.len()) else { return false };
        if usize::from(octets) > RECORD_OCTETS_MAX || text.is_empty() {
            return false;
        }
        records.push([&[octets], text.as_bytes()].concat().into());
        true
    }

    /// Whether the name of the question is one of these.
    #[must_use]
    pub fn has(&self, message: &[u8]) -> bool {
        Labels::read(message, HEADER_OCTETS)
            .is_some_and(|name| self.0.iter().any(|(own, _)| **own == *name.octets()))
    }

    /// Writes the answer to the question in `front`.
    pub fn write(&self, front: &[u8], dnssec_ok: bool, out: &mut Vec<u8>) {
        let name = Labels::read(front, HEADER_OCTETS);
        let records = name.and_then(|name| self.0.iter().find(|(own, _)| **own == *name.octets()));
        let is_asked = matches!(qtype_of(front, front.len()), TYPE_TXT | TYPE_ANY);
        let mut made = Made::begin(front, 0, out);
        for rdata in records.iter().flat_map(|(_, records)| records).filter(|_| is_asked) {
            made.answer(None, TYPE_TXT, TTL_SECONDS, rdata);
        }
        made.finish(ResponseCode::NoError, None, dnssec_ok);
        if let Some(flags) = out.get_mut(2) {
            *flags |= AUTHORITATIVE;
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::Message,
        rr::{RData, RecordType},
    };

    use super::*;
    use crate::dns::{text_query, texts_in};

    /// Goal: the records of the config's names are answered, with AA, and no other name can be given one. Method: two records of one
    /// name, one of another name; TXT, A; upper case. Covers: A-747, C-755
    #[test]
    fn only_names_of_the_certificate_are_answered() {
        let names = ["dot.example", "*.dot.example", "Other.example"];
        let mut proofs = Proofs::of(names.into_iter()).unwrap();
        assert_eq!(proofs.0.len(), 2, "a wildcard has the name of its domain");
        assert!(
            proofs.add("_acme-challenge.dot.example", "one")
                && proofs.add("_acme-challenge.dot.example", "two")
        );
        for (name, text) in
            [("www.dot.example", "x"), ("_acme-challenge.example", "x"), ("_acme-challenge.dot.example", "")]
        {
            assert!(!proofs.add(name, text), "{name}");
        }
        assert!(!proofs.add("_acme-challenge.other.example", &"x".repeat(256)));
        let mut out = Vec::new();
        let query = text_query("_ACME-challenge.DOT.example", 7).unwrap();
        assert!(proofs.has(&query));
        proofs.write(&query, false, &mut out);
        let answer = Message::from_vec(&out).unwrap();
        assert!(answer.metadata.authoritative && answer.metadata.id == 7);
        assert_eq!(texts_in(&out).unwrap(), ["one", "two"]);
        assert!(answer.answers.iter().all(|record| matches!(record.data, RData::TXT(_))));
        let mut other = query.clone();
        let end = other.len();
        other[end - 4..end - 2].copy_from_slice(&u16::from(RecordType::A).to_be_bytes());
        proofs.write(&other, false, &mut out);
        assert!(Message::from_vec(&out).unwrap().answers.is_empty());
        assert!(!proofs.has(&text_query("dot.example", 7).unwrap()));
        assert_eq!(Proofs::of([].into_iter()), None);
    }
}
