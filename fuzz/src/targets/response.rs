//! The response edit: any message of a backend is passed on whole and valid, or refused without a trace.
//!
//! Before: one octet for the client's query and this hop's options, then a message. After: `wire` read both.
//! Never: knows what a record means.

use dot_userspace::dns::{Asked, Hop, Query, respond};

use super::options::asking;
use crate::wire;

/// Runs the target.
///
/// # Panics
/// When a response is changed beyond this hop's options, or is not valid.
pub fn run(octets: &[u8]) {
    let Some((&wishes, rest)) = octets.split_first() else { return };
    let response = &rest[..rest.len().min(65_535)];
    let hop = Hop { padding: wishes & 1 != 0, keepalive_100ms: (wishes & 2 != 0).then_some(300) };
    let mut asked = Asked::by(&Query::parse(&asking(wishes)).expect("sound"));
    // A message that gets this far has repeated the question, so its question ends where the query's does.
    let question = wire::read(response).filter(|read| read.counts[0] == 1);
    let end = question.and_then(|read| u16::try_from(read.question_end).ok());
    asked.question_end = end.unwrap_or(asked.question_end);
    let mut out = vec![7; 3];
    if respond(response, asked, hop, &mut out).is_ok() {
        assert_eq!(out[..3], [7; 3], "what stood before stays");
        if end.is_some() {
            assert_responded(response, asked, hop, &out[3..]);
        }
    } else {
        assert_eq!(out, [7; 3], "what is refused leaves no trace");
        assert!(end.is_none() || has_broken_opt(response), "a whole response is passed on");
    }
}

/// An OPT in a wrong place, a second OPT, or one whose options do not fit.
fn has_broken_opt(response: &[u8]) -> bool {
    let Some(read) = wire::read(response) else { return true };
    let names_are_long = read.records.iter().any(|record| record.owner_octets > 250);
    let opts = read.opts();
    names_are_long
        || opts.len() > 1
        || opts.iter().any(|opt| {
            !opt.is_additional
                || opt.owner_octets != 1
                || wire::options(&response[opt.rdata.clone()]).is_none()
        })
}

/// Whether the owner name of a record that stands behind `start` ends in a pointer to there or beyond.
pub(super) fn leads_to(response: &[u8], record: &wire::Record, start: usize) -> bool {
    let owner = &response[record.place.start..record.place.start + record.owner_octets];
    record.place.start > start
        && owner.last_chunk::<2>().is_some_and(|end| end[0] >= 0xc0 && wire::may_point_to(end, start))
}

/// Asserts that `out` is `response` for the query in `asked`: with its ID, and this hop's options in its OPT.
pub(super) fn assert_responded(response: &[u8], asked: Asked, hop: Hop, out: &[u8]) {
    let (theirs, ours) =
        (wire::read(response).expect("whole"), wire::read(out).expect("what we write is whole"));
    assert_eq!(ours.end, out.len(), "nothing follows the last record");
    assert_eq!(out[..2], asked.id.to_be_bytes());
    let theirs_opt = theirs.opts().first().copied();
    let is_full = theirs_opt.is_none() && theirs.counts[3] == u16::MAX;
    if theirs.is_signed() || is_full {
        assert_eq!(out[2..], response[2..theirs.end], "signed, or no room for an OPT: the ID alone");
        return;
    }
    let behind = &response[theirs_opt.map_or(theirs.end, |opt| opt.place.end)..theirs.end];
    let body_end = theirs_opt.map_or(theirs.end, |opt| opt.place.start);
    if out.len() == theirs.end && wire::may_point_to(behind, body_end) && out[2..] == response[2..theirs.end]
    {
        return;
    }
    assert!(
        out.len() == theirs.end || !theirs.records.iter().any(|record| leads_to(response, record, body_end)),
        "nothing that a name points to has moved"
    );
    assert_eq!(out[2..10], response[2..10], "flags and the other counts");
    assert_eq!(out[12..body_end], response[12..body_end], "every record before the OPT, octet for octet");
    assert!(out.ends_with(behind), "every record behind it too");
    let opts = ours.opts();
    // A backend without EDNS says FORMERR or NOTIMP, without an OPT, and its client gets exactly that (RFC 6891 §7).
    let refuses_edns = matches!(response[3] & 0x0f, 1 | 4) && theirs_opt.is_none();
    assert_eq!(opts.len(), usize::from(asked.has_opt && !refuses_edns), "an OPT for a query with OPT");
    let Some(opt) = opts.first() else {
        assert_eq!(out.len(), body_end + behind.len(), "nothing between");
        return;
    };
    assert_eq!((opt.place.start, opt.place.end), (body_end, out.len() - behind.len()));
    if let Some(theirs_opt) = theirs_opt {
        assert_eq!((opt.class, opt.ttl), (theirs_opt.class, theirs_opt.ttl), "size, rcode, version, flags");
    }
    let theirs_options =
        theirs_opt.and_then(|opt| wire::options(&response[opt.rdata.clone()])).unwrap_or_default();
    let options = wire::options(&out[opt.rdata.clone()]);
    // Beyond 65,535 octets it has no length prefix, and `append_message` takes it back.
    let Some(options) = options.filter(|_| out.len() <= 65_535) else {
        assert!(out.len() > 65_535);
        return;
    };
    let is_end_to_end = |option: &&(u16, &[u8])| option.0 != 11 && option.0 != 12;
    assert!(theirs_options.iter().filter(is_end_to_end).eq(options.iter().filter(is_end_to_end)));
    let timeouts: Vec<&[u8]> =
        options.iter().filter(|option| option.0 == 11).map(|option| option.1).collect();
    let timeout = hop.keepalive_100ms.filter(|_| asked.keepalive).map(u16::to_be_bytes);
    assert_eq!(
        timeouts,
        timeout.iter().map(<[u8; 2]>::as_slice).collect::<Vec<_>>(),
        "our timeout, not theirs"
    );
    if asked.padding && hop.padding {
        let is_near_the_end = out.len() + 4 > 65_535;
        assert!(
            out.len().is_multiple_of(468) || out.len() == 65_535 || is_near_the_end,
            "{} octets",
            out.len()
        );
        if !is_near_the_end {
            wire::assert_padded(&options);
        }
    } else {
        assert!(options.iter().all(|option| option.0 != 12), "no padding that was not asked for");
    }
}
