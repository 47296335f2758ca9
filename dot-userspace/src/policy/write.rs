//! Writes the response of a rule.
//!
//! Before: `screen` found the rule. After: `session` passes the response on as if a backend had sent it.
//! Never: keeps any record of the answer after the name that the rule is about.
//!
//! Source: draft-vixie-dnsop-dns-rpz-00 §3 and §6 (SOA in the additional section), RFC 8914 §4.16 to §4.18.

use super::{rules::Action, screen::Ruling};
use crate::dns::{Labels, Made, ResponseCode, TYPE_CNAME, qtype_of};

const TYPE_SOA: u16 = 6;
const TYPE_ANY: u16 = 255;

/// The place of a rule's records in a response: the octets before them, and their owner.
#[derive(Clone, Copy)]
pub struct Place<'m> {
    /// A message up to the end of its question, or up to the end of `answers` of its answers.
    pub front: &'m [u8],
    /// Answers in `front`.
    pub answers: u16,
    /// One past the question.
    pub question_end: usize,
    /// The name that the rule is about. `None`: the qname.
    pub owner: Option<&'m Labels>,
    /// Whether the client asks for signatures: DO is set in the response too.
    pub dnssec_ok: bool,
}

/// Writes the response of a rule that needs no backend. `false`: the rule has no response of its own.
pub fn write(ruling: &Ruling<'_>, place: Place<'_>, out: &mut Vec<u8>) -> bool {
    let Place { front, answers, question_end, owner, dnssec_ok } = place;
    let qtype = qtype_of(front, question_end);
    let owner = owner.map(Labels::octets);
    let mut made = Made::begin(front, answers, out);
    let rcode = match ruling.action {
        Action::NxDomain => ResponseCode::NXDomain,
        Action::NoData => ResponseCode::NoError,
        Action::Records(records) => {
            for (rtype, ttl, rdata) in
                records.all().filter(|(rtype, ..)| qtype == *rtype || qtype == TYPE_ANY)
            {
                made.answer(owner, rtype, ttl, rdata);
            }
            ResponseCode::NoError
        }
        Action::Alias(..) => match alias_of(ruling, place) {
            Some((target, ttl)) => {
                made.answer(owner, TYPE_CNAME, ttl, target.octets());
                ResponseCode::NoError
            }
            // The name would be too long.
            None => ResponseCode::NXDomain,
        },
        Action::Passthru | Action::Drop | Action::TcpOnly => return false,
    };
    if let Some((ttl, soa)) = &ruling.zone.rules().start().soa {
        made.additional(Some(ruling.zone.wire()), TYPE_SOA, *ttl, soa);
    }
    made.finish(rcode, ruling.zone.ede(), dnssec_ok);
    true
}

/// The target of a rule's alias, and its TTL. `None`: it is no alias, or the name would be too long.
#[must_use]
pub fn alias_of(ruling: &Ruling<'_>, place: Place<'_>) -> Option<(Labels, u32)> {
    let Action::Alias(target, ttl) = ruling.action else { return None };
    let name = match target.strip_prefix(b"\x01*") {
        Some(garden) => {
            let asked;
            let owner = match place.owner {
                Some(owner) => owner,
                None => {
                    asked = Labels::read(place.front, crate::dns::HEADER_OCTETS)?;
                    &asked
                }
            };
            Labels::read(garden, 0)?.below(owner.octets())?
        }
        None => Labels::read(target, 0)?,
    };
    Some((name, ttl))
}
