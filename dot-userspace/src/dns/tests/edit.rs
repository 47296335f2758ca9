//! Edits of real messages: compressed names, many records, several options; hickory-proto makes and reads them.
//!
//! Before: any message that hickory-proto can write. After: the same message except for this hop's options.

use hickory_proto::{
    op::{Edns, Message, OpCode, Query as Question},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, MX, NS, SOA, TXT, opt::EdnsOption},
    },
};
use proptest::prelude::*;

use super::*;

const HOP: Hop = Hop { padding: true, keepalive_100ms: Some(300) };

/// Names that share ends, so that they are compressed against each other.
fn name() -> impl Strategy<Value = Name> {
    const LABELS: &[&str] = &["", "a.", "ns1.a.", "Mail.b.", "x.y.z.", "very-long-label-that-is-repeated.b."];
    const ZONES: &[&str] = &["dotd.test.", "example.", "sub.dotd.test."];
    (prop::sample::select(LABELS), prop::sample::select(ZONES))
        .prop_map(|(label, zone)| Name::from_ascii(format!("{label}{zone}")).unwrap())
}

fn rdata() -> impl Strategy<Value = RData> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|[a, b, c, d]| RData::A(A::new(a, b, c, d))),
        name().prop_map(|name| RData::NS(NS(name))),
        name().prop_map(|name| RData::CNAME(CNAME(name))),
        (any::<u16>(), name()).prop_map(|(preference, name)| RData::MX(MX::new(preference, name))),
        (name(), name(), any::<u32>())
            .prop_map(|(server, mailbox, serial)| RData::SOA(SOA::new(server, mailbox, serial, 1, 2, 3, 4))),
        prop::collection::vec("[ -~]{0,60}", 1..4).prop_map(|texts| RData::TXT(TXT::new(texts))),
    ]
}

fn records(most: usize) -> impl Strategy<Value = Vec<Record>> {
    let record = (name(), any::<u16>(), rdata());
    let record = record.prop_map(|(owner, ttl, data)| Record::from_rdata(owner, u32::from(ttl), data));
    prop::collection::vec(record, 0..most)
}

/// Options with codes around those of this hop, each at most once (hickory-proto keeps them in a map), without those
/// that hickory-proto parses itself (it refuses an invalid subnet).
fn options() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    prop::collection::btree_map(9u16..18, prop::collection::vec(any::<u8>(), 0..40), 0..6)
        .prop_map(|options| options.into_iter().collect())
}

fn edns(options: &[(u16, Vec<u8>)], dnssec_ok: bool) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(dnssec_ok);
    for (code, value) in options {
        edns.options_mut().insert(EdnsOption::Unknown(*code, value.clone()));
    }
    edns
}

#[derive(Clone, Debug)]
struct Parts {
    qname: Name,
    sections: [Vec<Record>; 3],
    options: Option<Vec<(u16, Vec<u8>)>>,
    dnssec_ok: bool,
}

fn parts() -> impl Strategy<Value = Parts> {
    let sections = [records(12), records(4), records(8)];
    (name(), sections, prop::option::of(options()), any::<bool>())
        .prop_map(|(qname, sections, options, dnssec_ok)| Parts { qname, sections, options, dnssec_ok })
}

impl Parts {
    fn message(&self, is_response: bool) -> Vec<u8> {
        let mut message = if is_response { Message::response(7, OpCode::Query) } else { Message::query() };
        message.metadata.id = 0x1234;
        message.add_query(Question::query(self.qname.clone(), RecordType::A));
        let [answers, authorities, additionals] = &self.sections;
        for record in answers {
            message.add_answer(record.clone());
        }
        for record in authorities {
            message.add_authority(record.clone());
        }
        for record in additionals {
            message.add_additional(record.clone());
        }
        if let Some(options) = &self.options {
            message.set_edns(edns(options, self.dnssec_ok));
        }
        message.to_vec().unwrap()
    }

    /// Where the OPT record begins; hickory-proto writes it last. Without one, the message's end.
    fn opt_start(&self, message: &[u8]) -> usize {
        let rdata: usize = self.options.iter().flatten().map(|(_, value)| 4 + value.len()).sum();
        message.len() - self.options.as_ref().map_or(0, |_| 11 + rdata)
    }
}

/// The options of the OPT record that begins at `start` and ends `message`: code and value, in order.
fn options_at(message: &[u8], start: usize) -> Vec<(u16, Vec<u8>)> {
    let mut rest = &message[start + 11..];
    let mut found = Vec::new();
    while let [high, low, length_high, length_low, behind @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
        found.push((u16::from_be_bytes([*high, *low]), behind[..length].to_vec()));
        rest = &behind[length..];
    }
    assert!(rest.is_empty());
    found
}

fn end_to_end(options: &[(u16, Vec<u8>)]) -> Vec<(u16, Vec<u8>)> {
    options.iter().filter(|(code, _)| ![KEEPALIVE_OPTION, PADDING_OPTION].contains(code)).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Goal: a query keeps every octet except ID, payload size, and the options of this hop, with any records and any
    /// compression of names. Method: octets before the OPT compared, options compared in order, the rest read by
    /// hickory-proto. Covers: C-35, C-38, C-44, C-53, C-56
    #[test]
    fn a_forwarded_query_is_the_same_query(parts in parts(), id: u16) {
        let message = parts.message(false);
        let query = Query::parse(&message).unwrap();
        let mut out = Vec::new();
        forward(&message, &query, id, true, &mut out);
        let start = parts.opt_start(&message);
        prop_assert_eq!(&out[..2], &id.to_be_bytes());
        prop_assert_eq!(&out[2..start], &message[2..start]);
        if parts.options.is_some() {
            let before = options_at(&message, start);
            prop_assert_eq!(options_at(&out, start), end_to_end(&before));
            prop_assert_eq!(&out[start + 3..start + 5], &BACKEND_PAYLOAD_OCTETS.to_be_bytes());
            prop_assert_eq!(&out[start + 5..start + 9], &message[start + 5..start + 9]);
        } else {
            prop_assert_eq!(&out[2..], &message[2..]);
        }
        let (sent, came) = (Message::from_vec(&out).unwrap(), Message::from_vec(&message).unwrap());
        prop_assert_eq!((sent.answers, sent.authorities, sent.additionals), (came.answers, came.authorities, came.additionals));
    }

    /// Goal: a response keeps every octet except ID and the options of this hop; padding is last, once and zero, and
    /// ends on a block; keepalive is ours. Method: as above, for a client that asks for everything, for one that only
    /// supports EDNS, and for one that does not. Covers: C-19, C-33, C-35, C-36, C-37, C-41, C-53
    #[test]
    fn a_response_is_the_same_response(parts in parts(), id: u16, has_opt: bool, padding: bool, keepalive: bool) {
        let message = parts.message(true);
        let labels: usize = parts.qname.iter().map(|label| label.len() + 1).sum();
        let question_end = u16::try_from(12 + labels + 1 + 4).unwrap();
        let (padding, keepalive) = (padding && has_opt, keepalive && has_opt);
        let asked = Asked { id, question_end, has_opt, padding, keepalive, dnssec_ok: false, subnet_is_ours: false, since: None, screening: Screening::Answer };
        let mut out = Vec::new();
        respond(&message, asked, HOP, &mut out).unwrap();
        let start = parts.opt_start(&message);
        prop_assert_eq!(&out[..2], &id.to_be_bytes());
        prop_assert_eq!(&out[2..10], &message[2..10]);
        prop_assert_eq!(&out[12..start], &message[12..start]);
        let (sent, came) = (Message::from_vec(&out).unwrap(), Message::from_vec(&message).unwrap());
        prop_assert_eq!(sent.edns.is_some(), has_opt);
        prop_assert_eq!((sent.answers, sent.authorities, sent.additionals), (came.answers, came.authorities, came.additionals));
        if has_opt {
            let theirs = parts.options.as_ref().map(|_| options_at(&message, start)).unwrap_or_default();
            let mut expected = end_to_end(&theirs);
            expected.extend(keepalive.then(|| (KEEPALIVE_OPTION, vec![1, 44])));
            let mut options = options_at(&out, start);
            if padding {
                let (code, fill) = options.pop().unwrap();
                prop_assert!(code == PADDING_OPTION && fill.iter().all(|octet| *octet == 0));
                prop_assert_eq!(out.len() % PADDING_BLOCK_OCTETS, 0);
                prop_assert!(fill.len() < PADDING_BLOCK_OCTETS);
            }
            prop_assert_eq!(options, expected);
        } else {
            prop_assert_eq!(out.len(), start);
        }
    }

    /// Goal: a stream of real messages is cut at the same places whatever two parts it arrives in. Method: every split
    /// of a stream of three messages. Covers: C-13
    #[test]
    fn a_stream_is_cut_the_same_at_every_split(all in prop::collection::vec(parts(), 3)) {
        let messages: Vec<Vec<u8>> = all.iter().map(|parts| parts.message(false)).collect();
        let mut stream = Vec::new();
        for message in &messages {
            framing::append_message(&mut stream, |out| { out.extend_from_slice(message); Ok::<_, ()>(()) }).unwrap();
        }
        for split in 0..=stream.len() {
            let (mut start, mut found) = (0, 0);
            for end in [split, stream.len()] {
                while let Some(cut) = framing::cut_message(&stream[start..end]).unwrap() {
                    prop_assert_eq!(cut.message, &messages[found][..]);
                    (start, found) = (start + cut.octets, found + 1);
                }
            }
            prop_assert_eq!((start, found), (stream.len(), 3));
        }
    }
}

/// Octets of a message with this many empty options, of which every second is of this hop.
fn with_tiny_options(count: usize, flags: u8) -> Vec<u8> {
    let mut message =
        [&[0, 7, flags, 0, 0, 1, 0, 0, 0, 0, 0, 1][..], b"\x04dotd\x04test\0", &[0, 1, 0, 1]].concat();
    message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
    message.extend(u16::try_from(count * 4).unwrap().to_be_bytes());
    message.extend((0..count).flat_map(|index| [0, 11 + u8::try_from(index % 2).unwrap() * 54, 0, 0]));
    message
}

/// Goal: tiny options cost linear work, in both directions: n times as many options need n times as many looks. Method:
/// looks are counted, from 250 options to the 16,000 that fit into a message.
#[test]
fn tiny_options_cost_linear_work() {
    let both_ways = |count: usize| {
        let (query, response) = (with_tiny_options(count, 1), with_tiny_options(count, 0x81));
        edns::looks::of(|| {
            let Disposition::Forward(parsed) = triage(&query, Allowed::default()) else {
                panic!("it is lawful")
            };
            let mut out = Vec::new();
            forward(&query, &parsed, 9, true, &mut out);
            assert!(out.len() < query.len(), "those of this hop are taken out");
            let mut out = Vec::new();
            respond(&response, Asked::by(&parsed), HOP, &mut out).unwrap();
        })
    };
    // One more look finds the end of each walk.
    let of_one = both_ways(500) - both_ways(250);
    assert_eq!(of_one % 250, 0);
    assert!(of_one / 250 <= 8, "{} looks for each option", of_one / 250);
    for count in [1_000, 4_000, 16_000] {
        assert_eq!(both_ways(count), both_ways(250) + of_one / 250 * (count - 250), "{count} options");
    }
}
