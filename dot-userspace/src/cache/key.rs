//! The key of a query: everything in it that may change the answer, and nothing else.
//!
//! Before: `triage` said forward. After: the cache looks the key up, or the query bypasses the cache.
//! Holds: the question with its name in lower case, RD, AD, CD, DO, whether there is an OPT, and the client subnet
//! that a backend is sent: the client's own, or dotd's, or none.
//! Never: gives a key to a query with an element whose effect on the answer is unknown.
//!
//! Source: RFC 1035 §2.3.3, RFC 6895 §3.1, RFC 6840 §5.7, RFC 7871 §7.3, RFC 7873 §5.

use crate::dns::{
    HEADER_OCTETS, KEEPALIVE_OPTION, Opt, PADDING_OPTION, Query, SUBNET_OPTION, SubnetOption, Told,
    family_of, may_be_for_all, options,
};

/// Longest question: a name of 255 octets, QTYPE, QCLASS.
const QUESTION_OCTETS_MAX: usize = 259;
/// Longest client subnet: option header, family and prefix lengths, an IPv6 address.
const SUBNET_OCTETS_MAX: usize = 24;
/// Longest key.
const KEY_OCTETS_MAX: usize = QUESTION_OCTETS_MAX + 1 + SUBNET_OCTETS_MAX;
/// Only RD may be set in the first octet of flags; only AD and CD in the second.
const FLAGS_ALLOWED: [u8; 2] = [0x01, 0x30];
/// Stands for every client subnet. No subnet option begins like this, because it would have 65,535 octets.
const EVERY_SUBNET: [u8; 4] = [0, 8, 0xff, 0xff];
/// The query has an OPT.
const HAS_OPT: u8 = 0x02;
/// DO is set.
const DNSSEC_OK: u8 = 0x04;

/// A key, on the stack. Shape: `[question, its name in lower case][flags: u8][client subnet option, or nothing]`.
#[derive(Clone)]
pub struct Key {
    octets: [u8; KEY_OCTETS_MAX],
    length: usize,
    question_octets: usize,
}

impl Key {
    /// The key of `message`, which `query` describes. `told`: what backends learn of the client's subnet. `None`: the
    /// query is not for the cache.
    ///
    /// Not for the cache are signed queries, cookies (each answer is for one client), options and flags that dotd
    /// does not know, types that ask for more than records (128 to 255), and reserved classes.
    #[must_use]
    pub fn of(message: &[u8], query: &Query, told: Told) -> Option<Self> {
        let question = message.get(HEADER_OCTETS..query.question_end)?;
        let said = subnet(message, query)?;
        let added;
        let subnet = match told {
            Told::AsItCame => said,
            Told::Stripped => &[],
            Told::Added(client) => {
                added = SubnetOption::of(client);
                added.octets()
            }
        };
        let flags = flags(message, query)?;
        let is_of_records =
            !matches!(query.qtype, 0 | 41 | 128..=255) && !matches!(query.qclass, 0 | 254 | 255);
        if query.is_signed || query.opcode != 0 || !is_of_records {
            return None;
        }
        let mut octets = [0; KEY_OCTETS_MAX];
        let (head, tail) = octets.split_at_mut_checked(question.len())?;
        head.copy_from_slice(question);
        // The length octets of labels are below 64, so none of them is an upper-case letter.
        head.get_mut(..question.len().checked_sub(4)?)?.make_ascii_lowercase();
        let (flag, rest) = tail.split_first_mut()?;
        *flag = flags;
        rest.get_mut(..subnet.len())?.copy_from_slice(subnet);
        Some(Self { octets, length: question.len() + 1 + subnet.len(), question_octets: question.len() })
    }

    /// All octets of the key.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    /// The question in lower case, as a cached response contains it.
    #[must_use]
    pub fn question(&self) -> &[u8] {
        self.octets.get(..self.question_octets).unwrap_or_default()
    }

    /// The part of the key that is not in the question.
    #[must_use]
    pub fn circumstances(&self) -> &[u8] {
        self.octets.get(self.question_octets..self.length).unwrap_or_default()
    }

    /// Where the question of its message ends.
    #[must_use]
    pub fn question_end(&self) -> usize {
        HEADER_OCTETS + self.question_octets
    }

    /// The client subnet option in the query to the backend.
    #[must_use]
    pub fn subnet(&self) -> Option<&[u8]> {
        self.octets.get(self.question_octets + 1..self.length).filter(|option| !option.is_empty())
    }

    /// The key for an answer that is for every subnet of the same family. `None`: this key has no client subnet.
    #[must_use]
    pub fn shared(&self) -> Option<Self> {
        let subnet = self.subnet().filter(|option| may_be_for_all(option))?;
        let family = family_of(subnet);
        let mut shared = self.clone();
        shared.length = self.question_octets + 1 + EVERY_SUBNET.len() + family.len();
        let place = shared.octets.get_mut(self.question_octets + 1..shared.length)?;
        place
            .iter_mut()
            .zip(EVERY_SUBNET.into_iter().chain(family))
            .for_each(|(place, octet)| *place = octet);
        Some(shared)
    }

    /// QTYPE.
    #[must_use]
    pub fn qtype(&self) -> u16 {
        let pair = self.question().split_last_chunk::<4>().map(|(_, [high, low, ..])| [*high, *low]);
        pair.map_or(0, u16::from_be_bytes)
    }
}

/// RD, AD, CD, whether there is an OPT, and DO. `None`: any other bit is set, or there are other records.
fn flags(message: &[u8], query: &Query) -> Option<u8> {
    let [_, _, first, second, _, _, counts @ ..] = message.first_chunk::<HEADER_OCTETS>()?;
    let has_others = *counts != [0, 0, 0, 0, 0, u8::from(query.opt.is_some())];
    if first & !FLAGS_ALLOWED[0] != 0 || second & !FLAGS_ALLOWED[1] != 0 || has_others {
        return None;
    }
    let edns = query.opt.map_or(Some(0), |opt| edns_flags(message, opt))?;
    Some(first | second | edns)
}

fn edns_flags(message: &[u8], opt: Opt) -> Option<u8> {
    // After the root label, TYPE and CLASS come the extended rcode, the version, and two octets of flags.
    let [rcode, _, high, low] = message.get(opt.start + 5..)?.first_chunk::<4>()?;
    let is_known = (*rcode, high & 0x7f, *low) == (0, 0, 0);
    is_known.then_some(HAS_OPT | if opt.dnssec_ok { DNSSEC_OK } else { 0 })
}

/// The client subnet option; empty without one. `None`: there is an option that is not for the cache.
fn subnet<'a>(message: &'a [u8], query: &Query) -> Option<&'a [u8]> {
    let Some(opt) = query.opt else { return Some(&[]) };
    let mut found: &[u8] = &[];
    for option in options(message.get(opt.rdata..opt.end)?) {
        match option? {
            (KEEPALIVE_OPTION | PADDING_OPTION, _) => {}
            (SUBNET_OPTION, octets) if found.is_empty() && octets.len() <= SUBNET_OCTETS_MAX => {
                found = octets
            }
            _ => return None,
        }
    }
    Some(found)
}
