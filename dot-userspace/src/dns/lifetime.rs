//! How long a response may be cached, and where its TTLs are. Pure.
//!
//! Before: a backend's response, matched to its query. After: `cache` keeps it, or not.
//! Never: follows a name, trusts a count, or calls the TTL field of an OPT record a TTL.
//!
//! Source: RFC 2308 §3 and §5, RFC 2181 §8, RFC 8767 §4, RFC 9520 §3.2, RFC 6891 §6.1.3,
//! RFC 7871 §7.3.

use hickory_proto::op::ResponseCode;

use super::{
    edns::{self, options},
    is_truncated, rcode_of,
    records::{Counts, Record, TYPE_OPT, TYPE_SIG, TYPE_TSIG, record_at, u16_at},
    subnet::{Scope, scope_of},
};

/// Limits of a lifetime, in seconds, for any TTLs of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Least, for any answer, even with a smaller TTL or zero.
    pub least: u32,
    /// Most, for a positive answer. RFC 8767 §4 asks for a cap.
    pub most: u32,
    /// Most, for a negative answer: RFC 2308 §5 considers one to three hours sensible.
    pub negative_most: u32,
}

/// SERVFAIL: the shortest time that RFC 9520 §3.2 allows, so that a backend that recovered is asked at once.
const FAILURE_SECONDS: u32 = 1;
/// Most records of a response that is kept; counting TTLs down costs a little each.
pub const TTLS_MAX: usize = 256;
/// TYPE of the start of a zone's authority.
const TYPE_SOA: u16 = 6;
/// Octets of MINIMUM, the last field of a SOA.
const MINIMUM_OCTETS: usize = 4;

/// How a response may be cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Its lifetime, at least one second.
    pub seconds: u32,
    /// SERVFAIL: it never replaces a better answer.
    pub is_failure: bool,
    /// Its clients, if the query carried a client subnet.
    pub scope: Scope,
}

/// Decides whether `response` to a question of type `qtype` that ends at `question_end` may be cached.
///
/// `ttls` then holds the offset of every TTL. `subnet`: the client subnet option in the query to the backend (RFC
/// 7871). `None`: it must not be cached, or its records do not fit into it.
#[must_use]
pub fn lifetime(
    response: &[u8],
    question_end: usize,
    qtype: u16,
    subnet: Option<&[u8]>,
    bounds: Bounds,
    ttls: &mut Vec<u16>,
) -> Option<Lifetime> {
    ttls.clear();
    let found = Found::walk(response, question_end, qtype, subnet, ttls)?;
    // QR, opcode QUERY, not truncated.
    if response.get(2)? & 0xf8 != 0x80 || is_truncated(response) {
        return None;
    }
    let scope = found.scope;
    let kept = |seconds: u32, most: u32| {
        let seconds = seconds.min(most).max(bounds.least);
        (seconds > 0).then_some(Lifetime { seconds, is_failure: false, scope })
    };
    match rcode_of(response) {
        ResponseCode::NoError if found.has_answer => kept(found.least, bounds.most),
        // Without a SOA the lifetime of a negative answer is unknown (RFC 2308 §5).
        ResponseCode::NoError | ResponseCode::NXDomain => {
            kept(found.negative?.min(found.least), bounds.negative_most)
        }
        ResponseCode::ServFail => Some(Lifetime { seconds: FAILURE_SECONDS, is_failure: true, scope }),
        _ => None,
    }
}

/// The result of a walk over all records.
struct Found {
    /// The answer section has a record of the queried type.
    has_answer: bool,
    /// The smallest TTL.
    least: u32,
    /// The smaller of TTL and MINIMUM of the SOA in the authority section.
    negative: Option<u32>,
    /// The scope of the client subnet in the OPT.
    scope: Scope,
}

impl Found {
    fn walk(
        response: &[u8],
        question_end: usize,
        qtype: u16,
        subnet: Option<&[u8]>,
        ttls: &mut Vec<u16>,
    ) -> Option<Self> {
        let counts = Counts::read(response)?;
        let (answers, authority) = (u32::from(counts.answer), u32::from(counts.authority));
        let mut found = Self { has_answer: false, least: u32::MAX, negative: None, scope: Scope::Unsaid };
        let (mut end, mut has_opt) = (question_end, false);
        for position in 0..answers + authority + u32::from(counts.additional) {
            let record = record_at(response, end)?;
            end = record.end;
            match record.rtype {
                TYPE_TSIG | TYPE_SIG => return None,
                TYPE_OPT if !has_opt && position >= answers + authority => {
                    found.scope = plain_opt(response, record, subnet)?;
                    has_opt = true;
                    continue;
                }
                TYPE_OPT => return None,
                _ => {}
            }
            let ttl = ttl_of(response, record)?;
            found.least = found.least.min(ttl);
            found.has_answer |= position < answers && record.rtype == qtype;
            if record.rtype == TYPE_SOA && (answers..answers + authority).contains(&position) {
                found.negative = Some(ttl.min(minimum_of(response, record)?));
            }
            if ttls.len() >= TTLS_MAX {
                return None;
            }
            ttls.push(u16::try_from(record.fixed + TTL_OFFSET).ok()?);
        }
        (end == response.len()).then_some(found)
    }
}

/// Octets from TYPE to TTL.
const TTL_OFFSET: usize = 4;

/// The TTL of `record`; one with the highest bit set is zero (RFC 2181 §8).
fn ttl_of(response: &[u8], record: Record) -> Option<u32> {
    let ttl = u32_at(response, record.fixed + TTL_OFFSET)?;
    Some(if ttl >> 31 == 0 { ttl } else { 0 })
}

fn minimum_of(response: &[u8], record: Record) -> Option<u32> {
    let start = record.end.checked_sub(MINIMUM_OCTETS).filter(|start| *start >= record.rdata)?;
    u32_at(response, start)
}

fn u32_at(message: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from(u16_at(message, offset)?) << 16 | u32::from(u16_at(message, offset + 2)?))
}

/// The scope of `subnet` in an OPT at the root without an extended rcode. `None`: some option is for one client only:
/// cookies are, and unknown options may be.
fn plain_opt(response: &[u8], record: Record, subnet: Option<&[u8]>) -> Option<Scope> {
    let mut scope = Scope::Unsaid;
    for option in options(response.get(record.rdata..record.end)?) {
        match option? {
            (edns::SUBNET_OPTION, answered) => scope = scope_of(answered, subnet?)?,
            (code, _) if edns::is_for_all(code) => {}
            _ => return None,
        }
    }
    let is_of_root = record.fixed == record.start + 1;
    (is_of_root && response.get(record.fixed + TTL_OFFSET) == Some(&0)).then_some(scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u16 = 1;
    const CNAME: u16 = 5;
    const SOA: u16 = 6;
    const RRSIG: u16 = 46;
    const QUESTION_END: usize = 12 + 5;

    /// A response to `. qtype IN` with this rcode; records by section: type, TTL, RDATA.
    fn message(rcode: u8, qtype: u16, sections: [&[(u16, u32, &[u8])]; 3]) -> Vec<u8> {
        let count = |section: &[_]| u8::try_from(section.len()).unwrap();
        let [answers, authority, additional] = sections.map(count);
        let mut octets = vec![0, 1, 0x81, 0x80 | rcode, 0, 1, 0, answers, 0, authority, 0, additional, 0];
        octets.extend_from_slice(&qtype.to_be_bytes());
        octets.extend_from_slice(&[0, 1]);
        for (rtype, ttl, rdata) in sections.into_iter().flatten() {
            octets.push(0);
            octets.extend_from_slice(&rtype.to_be_bytes());
            octets.extend_from_slice(&[0, 1]);
            octets.extend_from_slice(&ttl.to_be_bytes());
            octets.extend_from_slice(&u16::try_from(rdata.len()).unwrap().to_be_bytes());
            octets.extend_from_slice(rdata);
        }
        octets
    }

    fn soa(minimum: u32) -> Vec<u8> {
        [&[0; 18][..], &minimum.to_be_bytes()].concat()
    }

    const BOUNDS: Bounds = Bounds { least: 0, most: 86_400, negative_most: 3600 };

    fn seconds(message: &[u8], qtype: u16) -> Option<u32> {
        seconds_within(message, qtype, BOUNDS)
    }

    fn seconds_within(message: &[u8], qtype: u16, bounds: Bounds) -> Option<u32> {
        let found = lifetime(message, QUESTION_END, qtype, None, bounds, &mut Vec::new());
        found.map(|lifetime| lifetime.seconds)
    }

    /// Goal: limits apply to a response's own lifetime: it is raised, even from zero, and lowered, with separate limits
    /// for positive and negative answers. Method: TTLs around each limit.
    #[test]
    fn bounds_hold() {
        let bounds = Bounds { least: 30, most: 600, negative_most: 120 };
        for (ttl, positive, negative) in
            [(0, 30, 30), (29, 30, 30), (100, 100, 100), (300, 300, 120), (900, 600, 120)]
        {
            let answer = message(0, A, [&[(A, ttl, &[1; 4])], &[], &[]]);
            assert_eq!(seconds_within(&answer, A, bounds), Some(positive));
            let nothing = message(3, A, [&[], &[(SOA, ttl, &soa(ttl))], &[]]);
            assert_eq!(seconds_within(&nothing, A, bounds), Some(negative));
        }
        assert_eq!(seconds_within(&message(3, A, [&[], &[], &[]]), A, bounds), None, "no record has a TTL");
    }

    /// Goal: a response is for all clients if its scope is zero or absent, for some clients otherwise, and useless if
    /// it is about another subnet (RFC 7871 §7.3). Method: options for 192.0.2.0/24.
    #[test]
    fn the_scope_is_read() {
        let asked = [0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];
        let scope = |options: &[u8]| {
            let message = message(0, A, [&[(A, 60, &[1; 4])], &[], &[(TYPE_OPT, 0, options)]]);
            lifetime(&message, QUESTION_END, A, Some(&asked), BOUNDS, &mut Vec::new())
                .map(|found| found.scope)
        };
        assert_eq!((scope(&[]), scope(&asked)), (Some(Scope::Unsaid), Some(Scope::All)));
        assert_eq!(scope(&[0, 8, 0, 7, 0, 1, 24, 16, 192, 0, 2]), Some(Scope::Some));
        for other in [
            &[0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 3][..],
            &[0, 8, 0, 7, 0, 2, 24, 0, 192, 0, 2],
            &[0, 8, 0, 6, 0, 1, 16, 0, 192, 0],
            &[0, 8, 0, 4, 0, 1, 0, 0],
            &[0, 8, 0, 0],
        ] {
            assert_eq!(scope(other), None, "{other:?}");
        }
    }

    /// Goal: an answer lives as long as its smallest TTL, in whatever section, except the OPT's; at most a day, and not
    /// at all at zero (RFC 2181 §8: the highest bit makes it zero). Its TTLs are found.
    #[test]
    fn an_answer_lasts_as_long_as_its_shortest_ttl() {
        let long = message(
            0,
            A,
            [&[(A, 300, &[1; 4]), (RRSIG, 120, &[2; 20])], &[(2, 60, &[0])], &[(A, 90, &[3; 4])]],
        );
        let mut ttls = Vec::new();
        let found = lifetime(&long, QUESTION_END, A, None, BOUNDS, &mut ttls);
        assert_eq!(found, Some(Lifetime { seconds: 60, is_failure: false, scope: Scope::Unsaid }));
        let read = ttls.iter().map(|offset| u32_at(&long, usize::from(*offset)).unwrap());
        assert_eq!(read.collect::<Vec<_>>(), [300, 120, 60, 90]);
        let ede = [0, 15, 0, 2, 0, 3];
        assert_eq!(seconds(&message(0, A, [&[(A, 70, &[1; 4])], &[], &[(TYPE_OPT, 0, &ede)]]), A), Some(70));
        assert_eq!(seconds(&message(0, A, [&[(A, 1 << 30, &[1; 4])], &[], &[]]), A), Some(86_400));
        assert_eq!(seconds(&message(0, A, [&[(A, 0, &[1; 4])], &[], &[]]), A), None);
        assert_eq!(seconds(&message(0, A, [&[(A, 1 << 31, &[1; 4])], &[], &[]]), A), None);
    }

    /// Goal: a negative answer lives as long as its SOA says, the smaller of TTL and MINIMUM, at most an hour; without
    /// a SOA it is not cached (RFC 2308 §5). A CNAME without a target is a negative answer too.
    #[test]
    fn a_negative_answer_lasts_as_long_as_its_soa_says() {
        let (short, long) = (soa(60), soa(90_000));
        let alias: (u16, u32, &[u8]) = (CNAME, 40, &[0]);
        for (rcode, answers, authority, expected) in [
            (3, &[][..], &[(SOA, 300, &short[..])][..], Some(60)),
            (3, &[], &[(SOA, 30, &short)], Some(30)),
            (0, &[], &[(SOA, 300, &short)], Some(60)),
            (0, &[], &[(SOA, 90_000, &long)], Some(3600)),
            (0, &[alias], &[(SOA, 300, &short)], Some(40)),
            (0, &[alias], &[], None),
            (3, &[], &[], None),
            (0, &[], &[(2, 300, &[0])], None),
            (3, &[], &[(SOA, 300, &[0, 0])], None),
        ] {
            assert_eq!(
                seconds(&message(rcode, A, [answers, authority, &[]]), A),
                expected,
                "{rcode} {answers:?}"
            );
        }
        assert_eq!(
            seconds(&message(0, CNAME, [&[alias], &[], &[]]), CNAME),
            Some(40),
            "asked for, it is an answer"
        );
    }

    /// Goal: these are not cached: other rcodes, TC=1, other opcodes, signed messages, cookies, a subnet that was not
    /// asked for, extended rcodes, a misplaced or second OPT, records that do not fit, octets behind them, and more
    /// records than dotd counts down.
    #[test]
    fn what_must_not_be_kept_is_not() {
        let record: (u16, u32, &[u8]) = (A, 60, &[1; 4]);
        let opt: (u16, u32, &[u8]) = (TYPE_OPT, 0, &[]);
        let with = |additional: &[(u16, u32, &[u8])]| message(0, A, [&[record], &[], additional]);
        let good = with(&[opt]);
        assert_eq!(seconds(&good, A), Some(60));
        let patched = |at: usize, octet: u8| {
            let mut message = good.clone();
            message[at] = octet;
            message
        };
        for bad in [
            message(5, A, [&[record], &[], &[]]),
            message(1, A, [&[], &[], &[]]),
            patched(2, 0x83),
            patched(2, 0xa1),
            patched(2, 0x01),
            with(&[(TYPE_TSIG, 0, &[0; 20])]),
            with(&[(TYPE_SIG, 0, &[0; 20])]),
            with(&[(TYPE_OPT, 0, &[0, 10, 0, 1, 9])]),
            with(&[(TYPE_OPT, 0, &[0, 8, 0, 4, 0, 1, 0, 0])]),
            with(&[(TYPE_OPT, 0, &[0, 15, 0, 9, 0, 3])]),
            with(&[(TYPE_OPT, 1 << 24, &[])]),
            with(&[opt, opt]),
            message(0, A, [&[record, opt], &[], &[]]),
            good[..good.len() - 1].to_vec(),
            [&good[..], &[0]].concat(),
            message(0, A, [&vec![record; 200], &vec![record; 57], &[]]),
        ] {
            assert_eq!(seconds(&bad, A), None, "{bad:02x?}");
        }
        let failure = message(2, A, [&[], &[], &[]]);
        let failure = lifetime(&failure, QUESTION_END, A, None, BOUNDS, &mut Vec::new());
        assert_eq!(failure, Some(Lifetime { seconds: 1, is_failure: true, scope: Scope::Unsaid }));
    }
}
