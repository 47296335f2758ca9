//! Query and triage: a forwarded query is unchanged except for this hop's options, nothing moves to which a name
//! points, and dotd's own answers are valid.
//!
//! Before: one message of a client. After: `wire` read it too, and agrees with the disposition.
//! Never: knows what a record means.

use dot_userspace::dns::{
    Allowed, BACKEND_PAYLOAD_OCTETS, Disposition, DropReason, Hop, Query, Rcode, Reply, forward, synthesize,
    triage,
};

use super::response::leads_to;
use crate::wire;

const HOP: Hop = Hop { padding: true, keepalive_100ms: Some(300) };

/// Runs the target.
///
/// # Panics
/// When a disposition does not fit its message.
pub fn run(octets: &[u8]) {
    // Nothing longer has a length prefix.
    let message = &octets[..octets.len().min(65_535)];
    match triage(message, Allowed::default()) {
        Disposition::Forward(query) => assert_forwarded(message, &query),
        // dotd answers this by itself; the query was read like any other.
        Disposition::Describe(query) | Disposition::Notified(query) => {
            assert!(query.question_end <= message.len());
        }
        Disposition::Respond(reply) => assert_answered(message, &reply),
        Disposition::Drop(DropReason::IsResponse) => assert!(message.len() >= 12 && message[2] & 0x80 != 0),
        Disposition::Close(DropReason::Short) => assert!(message.len() < 12),
        other => panic!("{other:?} cannot be"),
    }
}

/// Asserts that `message` is a query, and that only this hop's options are changed.
pub(super) fn assert_forwarded(message: &[u8], query: &Query) {
    let read = wire::read(message).expect("what is forwarded is whole");
    assert!(read.end == query.end && read.counts[0] == 1 && message[2] & 0xf8 == 0);
    // Octets behind it are not forwarded.
    let message = &message[..query.end];
    assert_eq!(read.question_end, query.question_end);
    let opts = read.opts();
    assert!(opts.len() <= 1 && opts.iter().all(|opt| opt.is_additional && opt.owner_octets == 1));
    assert_eq!((opts.len() == 1, read.is_signed()), (query.opt.is_some(), query.is_signed));
    let mut out = Vec::new();
    forward(message, query, 0xbeef, true, &mut out);
    assert_eq!(out[..2], [0xbe, 0xef]);
    let Some(opt) = opts.first().filter(|_| !read.is_signed()) else {
        assert_eq!(out[2..], message[2..], "without an OPT, or signed: the ID alone");
        return;
    };
    let kept: Vec<u8> = wire::options(&message[opt.rdata.clone()])
        .expect("options of what is forwarded fit")
        .into_iter()
        .filter(|(code, _)| *code != 11 && *code != 12)
        .flat_map(|(code, value)| {
            let length = u16::try_from(value.len()).expect("it was read from two octets");
            [&code.to_be_bytes(), &length.to_be_bytes(), value].concat()
        })
        .collect();
    let length = u16::try_from(kept.len()).expect("no longer than before");
    let class_at = opt.place.start + 3;
    let expected = [
        &[0xbe, 0xef],
        &message[2..class_at],
        &BACKEND_PAYLOAD_OCTETS.to_be_bytes(),
        &message[class_at + 2..opt.rdata.start - 2],
        &length.to_be_bytes(),
        &kept,
        &message[opt.place.end..],
    ];
    assert_eq!(out, expected.concat());
    assert!(
        out.len() == message.len()
            || !read.records.iter().any(|record| leads_to(message, record, opt.place.start)),
        "nothing that a name points to has moved"
    );
    assert_eq!(opt.ttl >> 16 & 0xff, 0, "version 0");
}

/// Asserts that a query whose options could be read is FORMERR only if the records behind its OPT must not move.
fn assert_entangled(message: &[u8]) {
    let read = wire::read(message).expect("its options were read");
    let opt = read.opts()[0];
    assert!(wire::may_point_to(&message[opt.place.end..], opt.place.start), "it could have been edited");
}

fn assert_answered(message: &[u8], reply: &Reply) {
    if reply.rcode == Rcode::FORM_ERR && (reply.asked.keepalive || reply.asked.padding) {
        assert_entangled(message);
    }
    let mut out = Vec::new();
    synthesize(message, reply, HOP, &mut out);
    let read = wire::read(&out).expect("what we make is whole");
    assert_eq!((read.end, out[..2] == message[..2]), (out.len(), true));
    assert_eq!(out[2], 0x80 | message[2] & 0x79, "QR, and the query's opcode and RD");
    assert_eq!((read.counts[1], read.counts[2], read.counts[3]), (0, 0, u16::from(reply.asked.has_opt)));
    assert_eq!(
        out[12..read.question_end],
        message[12..usize::from(reply.asked.question_end)],
        "the question, case kept"
    );
    let Some(opt) = read.opts().first().copied().filter(|_| reply.asked.has_opt) else {
        assert!(read.opts().is_empty());
        return;
    };
    let options = wire::options(&out[opt.rdata.clone()]).expect("our options fit");
    assert_eq!(opt.ttl >> 16 & 0xff, 0, "our version is 0");
    if reply.asked.padding {
        assert_eq!(out.len() % 468, 0);
        wire::assert_padded(&options);
    }
    assert_eq!(options.iter().filter(|(code, _)| *code == 11).count(), usize::from(reply.asked.keepalive));
}
