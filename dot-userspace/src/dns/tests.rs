//! Tests of the pure half of the query path, with built messages and with random octets.
//!
//! hickory-proto is the oracle: it encodes what our code reads, and reads what our code writes.

mod edit;
mod pointers_past_opt;

use hickory_proto::{
    op::{Edns, Message, OpCode, Query as Question, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, opt::EdnsOption},
    },
};
use proptest::prelude::*;

use super::{edns::read_hop_options, *};

const HOP: Hop = Hop { padding: true, keepalive_100ms: Some(300) };
const BARE_HOP: Hop = Hop { padding: false, keepalive_100ms: None };

/// A query for `name` with these EDNS options; none: no OPT.
fn query(name: &str, options: Option<&[(u16, Vec<u8>)]>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(Name::from_ascii(name).unwrap(), RecordType::A));
    if let Some(options) = options {
        message.set_edns(edns(options));
    }
    message.to_vec().unwrap()
}

fn edns(options: &[(u16, Vec<u8>)]) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    for (code, value) in options {
        edns.options_mut().insert(EdnsOption::Unknown(*code, value.clone()));
    }
    edns
}

fn response(name: &str, answers: u8, options: Option<&[(u16, Vec<u8>)]>) -> Vec<u8> {
    let asked = Message::from_vec(&query(name, None)).unwrap();
    let mut message = Message::response(asked.metadata.id, OpCode::Query);
    message.add_query(asked.queries[0].clone());
    for last in 0..answers {
        let data = RData::A(A::new(192, 0, 2, last));
        message.add_answer(Record::from_rdata(asked.queries[0].name().clone(), 60, data));
    }
    if let Some(options) = options {
        message.set_edns(edns(options));
    }
    message.to_vec().unwrap()
}

fn forwarded(message: &[u8]) -> Vec<u8> {
    let query = Query::parse(message).unwrap();
    let mut out = Vec::new();
    forward(message, &query, 0xbeef, true, &mut out);
    out
}

fn responded(response: &[u8], asked_by: &[u8], hop: Hop) -> Vec<u8> {
    let mut out = vec![7, 7, 7];
    respond(response, Asked::by(&Query::parse(asked_by).unwrap()), hop, &mut out).unwrap();
    out.split_off(3)
}

fn reply_to(message: &[u8]) -> Message {
    let Disposition::Respond(reply) = triage(message, Allowed::default()) else {
        panic!("{:?}", triage(message, Allowed::default()))
    };
    let mut out = Vec::new();
    synthesize(message, &reply, HOP, &mut out);
    Message::from_vec(&out).unwrap()
}

/// Goal: without EDNS nothing but the ID changes. Covers: C-53.
#[test]
fn a_query_without_opt_passes_but_for_its_id() {
    let message = query("WwW.dotd.test.", None);
    let out = forwarded(&message);
    assert_eq!(out[..2], [0xbe, 0xef]);
    assert_eq!(out[2..], message[2..]);
}

/// Goal: keepalive and padding stop here, other options pass octet for octet, our payload size is set.
/// Covers: C-35, C-38, C-44, C-56.
#[test]
fn hop_by_hop_options_stop_here() {
    let ecs = (8, vec![0, 1, 24, 0, 192, 0, 2]);
    let message =
        query("dotd.test.", Some(&[(12, vec![0; 40]), ecs.clone(), (11, vec![]), (65001, vec![1, 2])]));
    let out = forwarded(&message);
    let opt = Query::parse(&out).unwrap().opt.unwrap();
    assert!(!opt.keepalive && !opt.padding);
    let read = Message::from_vec(&out).unwrap();
    let read = read.edns.unwrap();
    assert_eq!(read.max_payload(), BACKEND_PAYLOAD_OCTETS);
    let rdata = &out[opt.rdata..opt.end];
    let mut expected = Vec::new();
    for (code, value) in [ecs, (65001, vec![1, 2])] {
        expected.extend_from_slice(&u16::to_be_bytes(code));
        expected.extend_from_slice(&u16::to_be_bytes(value.len().try_into().unwrap()));
        expected.extend_from_slice(&value);
    }
    let mut sorted = [rdata.to_vec(), expected];
    sorted.iter_mut().for_each(|octets| octets.sort_unstable());
    assert_eq!(sorted[0], sorted[1], "hickory orders options as it likes; the octets are the same");
}

/// Covers: C-50.
#[test]
fn a_signed_query_passes_but_for_its_id() {
    let mut message = query("dotd.test.", Some(&[(12, vec![0; 9])]));
    message[11] += 1;
    // A TSIG record, as far as a front end reads one: root owner, type 250, class ANY, no RDATA.
    message.extend_from_slice(&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0]);
    let out = forwarded(&message);
    assert_eq!(out[2..], message[2..]);
}

/// Goal: responses to padded queries come in blocks of 468 octets, zero-filled, padding last and once; others
/// are not padded. Covers: C-36, C-37, C-39, C-40.
#[test]
fn responses_are_padded_when_the_query_was() {
    let padded = query("dotd.test.", Some(&[(12, vec![9; 31])]));
    let plain = query("dotd.test.", Some(&[]));
    for answers in [0, 1, 30, 60] {
        let from_backend = response("dotd.test.", answers, Some(&[(12, vec![5; 3]), (11, vec![0, 9])]));
        let out = responded(&from_backend, &padded, HOP);
        assert_eq!(out.len() % PADDING_BLOCK_OCTETS, 0);
        let read = Message::from_vec(&out).unwrap();
        assert_eq!(read.answers.len(), usize::from(answers));
        let out = responded(&from_backend, &plain, HOP);
        let opt = Query::parse(&as_query(&out)).unwrap().opt.unwrap();
        assert!(!opt.padding && !opt.keepalive, "the backend's own options are not copied");
    }
    let alone = responded(&response("dotd.test.", 1, None), &query("dotd.test.", None), HOP);
    assert_eq!(alone.len(), response("dotd.test.", 1, None).len());
}

/// Goal: a client with EDNS gets an OPT from a backend without, and the other way round.
/// Covers: C-41.
#[test]
fn an_opt_is_for_who_sent_one() {
    let (with, without) = (query("dotd.test.", Some(&[(12, vec![0; 3])])), query("dotd.test.", None));
    let out = responded(&response("dotd.test.", 2, None), &with, HOP);
    let read = Message::from_vec(&out).unwrap();
    assert!(read.edns.is_some() && read.answers.len() == 2 && out.len() == PADDING_BLOCK_OCTETS);
    let out = responded(&response("dotd.test.", 2, Some(&[(65_001, vec![1])])), &without, HOP);
    assert_eq!(out[2..], response("dotd.test.", 2, None)[2..]);
}

/// A response with QR and the answers' place cleared, so that the query reader reads its OPT.
fn as_query(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2] &= 0x7f;
    message
}

/// Covers: C-31, C-33.
#[test]
fn keepalive_is_told_to_who_asks() {
    let asks = query("dotd.test.", Some(&[(11, vec![])]));
    let out = responded(&response("dotd.test.", 1, Some(&[])), &asks, HOP);
    assert!(out.ends_with(&[0, 11, 0, 2, 1, 44]), "{out:02x?}");
    let out = responded(&response("dotd.test.", 1, Some(&[])), &asks, BARE_HOP);
    assert!(out.ends_with(&[0, 0]));
}

/// Goal: padding never makes a message that has no length prefix. Covers: C-16.
#[test]
fn the_largest_response_is_not_padded_beyond_itself() {
    let padded = query("dotd.test.", Some(&[(12, vec![])]));
    let mut large = response("dotd.test.", 1, None);
    large[11] = 1;
    let filler = 65_535 - large.len() - 11;
    large.extend_from_slice(&[0, 0, 41, 5, 120, 0, 0, 0, 0]);
    large.extend_from_slice(&u16::try_from(filler).unwrap().to_be_bytes());
    large.extend_from_slice(&65_001u16.to_be_bytes());
    large.extend_from_slice(&u16::try_from(filler - 4).unwrap().to_be_bytes());
    large.resize(65_535, 1);
    assert_eq!(responded(&large, &padded, HOP).len(), 65_535);
}

/// Covers, C-42, C-43, C-45, C-47, C-48, C-49.
#[test]
fn what_is_no_query_is_judged_by_its_header() {
    for octets in 1..12 {
        assert_eq!(
            triage(&query("a.", None)[..octets], Allowed::default()),
            Disposition::Close(DropReason::Short)
        );
    }
    let mut message = query("dotd.test.", None);
    message[2] |= 0x80;
    assert_eq!(triage(&message, Allowed::default()), Disposition::Drop(DropReason::IsResponse));
    for (opcode, rcode) in [
        (1, ResponseCode::NotImp),
        (2, ResponseCode::NotImp),
        (4, ResponseCode::Refused),
        (5, ResponseCode::Refused),
        (6, ResponseCode::NotImp),
        (15, ResponseCode::NotImp),
    ] {
        let mut message = query("dotd.test.", Some(&[]));
        message[2] = (message[2] & 0x87) | (opcode << 3);
        let mut out = Vec::new();
        let Disposition::Respond(reply) = triage(&message, Allowed::default()) else { panic!() };
        synthesize(&message, &reply, HOP, &mut out);
        let ede = Ede::BLOCKED_OPCODE;
        let octets = if rcode == ResponseCode::Refused { 12 + 11 + 6 + ede.text.len() } else { 12 };
        assert_eq!((out.len(), rcode_of(&out)), (octets, rcode), "opcode {opcode}: no question is echoed");
        assert_eq!(reply.ede, (rcode == ResponseCode::Refused).then_some(ede));
    }
    assert_eq!(reply_to(&query("dotd.test.", None)[..12]).metadata.response_code, ResponseCode::FormErr);
    for count in [[0, 0], [0, 2], [255, 255]] {
        let mut message = query("dotd.test.", None);
        message[4..6].copy_from_slice(&count);
        assert_eq!(reply_to(&message).metadata.response_code, ResponseCode::FormErr);
    }
    let mut counts = query("dotd.test.", None);
    counts[6..12].fill(0xff);
    assert_eq!(reply_to(&counts).metadata.response_code, ResponseCode::FormErr);
}

/// Covers: C-41, C-42, C-43, C-45, A-27, A-29, A-30.
#[test]
fn a_broken_opt_is_answered_with_an_opt() {
    let sound = query("dotd.test.", Some(&[(65_001, vec![1, 2, 3])]));
    let opt = Query::parse(&sound).unwrap().opt.unwrap();
    let mut version = sound.clone();
    version[opt.start + 6] = 1;
    // 16 has two names: BADVERS in an OPT, BADSIG in a TSIG.
    assert_eq!(u16::from(reply_to(&version).metadata.response_code), 16);
    let mut twice = sound.clone();
    twice[11] = 2;
    twice.extend_from_slice(&sound[opt.start..opt.end]);
    let mut past = sound.clone();
    past[opt.rdata + 3] = 9;
    for message in [twice, past] {
        let reply = reply_to(&message);
        assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
        assert!(reply.edns.is_some());
    }
    let trailing = [&*sound, &[0, 9]].concat();
    assert_eq!(forwarded(&trailing), forwarded(&sound));
}

/// Goal: FORMERR for a number of questions has an OPT if the query had one (RFC 6891 §6.1.1), also for a query that
/// only asks for a cookie (RFC 7873 §5.4). Method: none, two and three questions before an OPT; a wrong count.
/// Covers: C-41, C-48, A-23
#[test]
fn formerr_for_the_question_count_answers_opt_with_opt() {
    let sound = query("dotd.test.", Some(&[(10, vec![7; 8])]));
    let opt = Query::parse(&sound).unwrap().opt.unwrap();
    let (header, question, opt) = (&sound[..12], &sound[12..opt.start], &sound[opt.start..]);
    for (count, questions) in [(0, vec![]), (2, question.repeat(2)), (3, question.repeat(3))] {
        let mut message = [header, &questions, opt].concat();
        message[5] = count;
        let reply = reply_to(&message);
        assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
        assert!(reply.edns.is_some(), "{count} questions");
        message[4] = 1;
        assert!(reply_to(&message).edns.is_none(), "an OPT that cannot be found");
    }
}

/// Goal: DO comes back as it was sent, in responses of our own too (RFC 3225 §3).
/// Method: BADVERS, a refused transfer and SERVFAIL, each with DO and without. Covers: C-41, C-43
#[test]
fn dnssec_ok_is_copied_into_our_own_responses() {
    for flags in [0x80, 0] {
        let mut message = query("dotd.test.", Some(&[]));
        let parsed = Query::parse(&message).unwrap();
        let opt = parsed.opt.unwrap();
        message[opt.start + 7] = flags;
        let (mut version, mut transfer) = (message.clone(), message.clone());
        version[opt.start + 6] = 1;
        transfer[parsed.question_end - 3] = 252;
        let servfail =
            Reply::to(&Query::parse(&message).unwrap(), Rcode::SERV_FAIL, Some(Ede::BACKEND_SILENT));
        let mut failed = Vec::new();
        synthesize(&message, &servfail, HOP, &mut failed);
        for reply in [reply_to(&version), reply_to(&transfer), Message::from_vec(&failed).unwrap()] {
            assert_eq!(reply.edns.unwrap().flags().dnssec_ok, flags != 0);
        }
    }
}

/// Covers: A-20, C-57.
#[test]
fn zone_transfers_are_refused_with_a_reason() {
    let mut message = query("dotd.test.", Some(&[]));
    let end = Query::parse(&message).unwrap().question_end;
    message[end - 3] = 252;
    let Disposition::Respond(reply) = triage(&message, Allowed::default()) else { panic!() };
    assert_eq!((reply.rcode, reply.ede), (Rcode::REFUSED, Some(Ede::NOT_SUPPORTED_TRANSFER)));
}

///
#[test]
fn names_that_are_none_are_refused() {
    for label in [0x40, 0x80, 0xc0] {
        let mut message = query("dotd.test.", None);
        message[12] = label;
        assert_eq!(reply_to(&message).metadata.response_code, ResponseCode::FormErr);
    }
    let mut long = query("a.", None)[..12].to_vec();
    for _ in 0..5 {
        long.push(63);
        long.extend_from_slice(&[b'x'; 63]);
    }
    long.extend_from_slice(&[0, 0, 1, 0, 1]);
    assert_eq!(reply_to(&long).metadata.response_code, ResponseCode::FormErr);
}

/// Covers: C-54, C-19.
#[test]
fn a_response_must_repeat_the_question() {
    let asked = query("WwW.dotd.test.", None);
    let end = Query::parse(&asked).unwrap().question_end;
    assert!(question_matches(&response("www.DOTD.test.", 1, None), &asked, end));
    assert!(!question_matches(&response("ww2.dotd.test.", 1, None), &asked, end));
    assert!(!question_matches(&asked, &asked, end), "a query is no response");
    let (mut https, mut other) = (asked.clone(), response("www.dotd.test.", 1, None));
    (https[end - 3], other[end - 3]) = (65, 97);
    assert!(!question_matches(&other, &https, end), "a type has no case");
    let mut notify = response("www.dotd.test.", 1, None);
    notify[2] |= 4 << 3;
    assert!(!question_matches(&notify, &asked, end), "a response to another opcode");
    let mut class = response("www.dotd.test.", 1, None);
    class[end - 1] = 3;
    assert!(!question_matches(&class, &asked, end));
}

proptest! {
    /// Goal: no octets make the parser, the triage or the answers panic, and each answer is a valid message.
    ///
    #[test]
    fn any_octets_get_a_disposition(mut octets in prop::collection::vec(any::<u8>(), 0..200), quiet in any::<bool>()) {
        if quiet && octets.len() > 11 {
            // Without this nearly all of them would fail at the header.
            octets[2] = 1;
            let additional = octets[11] & 3;
            octets[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, additional]);
        }
        let allowed = Allowed { transfers: quiet, notify: quiet, update: quiet, takes_notify: quiet, strips_subnet: quiet };
        match triage(&octets, allowed) {
            Disposition::Notified(query) => prop_assert_eq!(query.opcode, 4),
            Disposition::Forward(query) | Disposition::Transfer(query) | Disposition::Describe(query) => {
                let mut out = Vec::new();
                forward(&octets, &query, 9, !quiet, &mut out);
                prop_assert!(out.len() <= octets.len());
                prop_assert!(Query::parse_with(&out, |_| quiet).is_ok());
            }
            Disposition::Respond(reply) => {
                let mut out = Vec::new();
                synthesize(&octets, &reply, HOP, &mut out);
                prop_assert_eq!(&out[..2], &octets[..2]);
                prop_assert!(Message::from_vec(&out).is_ok(), "{:02x?}", out);
            }
            Disposition::Drop(_) | Disposition::Close(_) => {}
        }
        let mut out = Vec::new();
        let asked = Asked { id: 7, question_end: 17, has_opt: true, padding: true, keepalive: true, dnssec_ok: false, subnet_is_ours: false, since: None, screening: Screening::Answer };
        if respond(&octets, asked, HOP, &mut out).is_err() {
            prop_assert!(out.is_empty());
        }
    }

    /// Goal: an edit keeps every octet that is not of this hop. Method: any options, forwarded; the other options,
    /// header, question and flags are compared. Covers: C-44, C-53.
    #[test]
    fn an_edit_keeps_what_is_not_ours(options in prop::collection::vec((0u16..20, prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
        let mut message = query("dotd.test.", Some(&[]));
        let mut rdata = Vec::new();
        let mut expected = Vec::new();
        for (code, value) in &options {
            let mut option = code.to_be_bytes().to_vec();
            option.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
            option.extend_from_slice(value);
            rdata.extend_from_slice(&option);
            if ![KEEPALIVE_OPTION, PADDING_OPTION].contains(code) {
                expected.extend_from_slice(&option);
            }
        }
        let opt = Query::parse(&message).unwrap().opt.unwrap();
        message[opt.rdata - 2..opt.rdata].copy_from_slice(&u16::try_from(rdata.len()).unwrap().to_be_bytes());
        message.extend_from_slice(&rdata);
        let out = forwarded(&message);
        prop_assert_eq!(&out[2..opt.start + 3], &message[2..opt.start + 3]);
        prop_assert_eq!(&out[opt.start + 5..opt.rdata - 2], &message[opt.start + 5..opt.rdata - 2]);
        prop_assert_eq!(&out[opt.rdata..], &expected[..]);
        let length = u16::from_be_bytes([out[opt.rdata - 2], out[opt.rdata - 1]]);
        prop_assert_eq!(usize::from(length), expected.len());
        prop_assert!(read_hop_options(&out[opt.rdata..]).is_some());
    }
}
