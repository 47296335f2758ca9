//! Edits of messages whose OPT record is not the last one: moved records stay valid, and others do not move.
//!
//! Before: messages with records behind their OPT, with names in full, compressed against names before it, or against
//! each other. After: the same records, read by hickory-proto, whether the OPT was edited or not.

use hickory_proto::op::Message;
use proptest::prelude::*;

use super::*;

const HOP: Hop = Hop { padding: true, keepalive_100ms: Some(300) };
/// `www.dotd.test` A IN, behind a header.
const QUESTION: &[u8] = b"\x03www\x04dotd\x04test\0\0\x01\0\x01";
const QUESTION_END: u16 = 12 + 19;
const A: u16 = 1;
const NS: u16 = 2;
const MX: u16 = 15;
const TXT: u16 = 16;
const UNKNOWN: u16 = 65_280;

/// How a name behind the OPT is written.
#[derive(Clone, Copy, Debug)]
enum Name {
    Full(u8),
    /// A label and a pointer to the question.
    AtQuestion(u8),
    /// A pointer to the first name behind the OPT that is written in full; the question if there is none.
    AtNeighbour,
}

#[derive(Clone, Debug)]
struct Behind {
    owner: Name,
    rtype: u16,
    /// The name in RDATA of NS and MX.
    target: Name,
    /// RDATA of the other types, which may look like a pointer.
    octets: Vec<u8>,
}

fn name() -> impl Strategy<Value = Name> {
    prop_oneof![
        3 => (b'a'..=b'z').prop_map(Name::Full),
        4 => (b'a'..=b'z').prop_map(Name::AtQuestion),
        1 => Just(Name::AtNeighbour),
    ]
}

fn behind() -> impl Strategy<Value = Behind> {
    let rtype = prop::sample::select(vec![A, NS, MX, TXT, UNKNOWN]);
    let octets = prop::collection::vec(any::<u8>(), 4..40);
    (name(), rtype, name(), octets).prop_map(|(owner, rtype, target, octets)| Behind {
        owner,
        rtype,
        target,
        octets,
    })
}

/// A response under construction.
struct Writer {
    octets: Vec<u8>,
    /// Offset of the first full name behind the OPT.
    neighbour: Option<usize>,
    is_entangled: bool,
}

impl Writer {
    fn name(&mut self, name: Name) {
        match (name, self.neighbour) {
            (Name::AtNeighbour, Some(place)) => {
                self.is_entangled = true;
                let pointer = 0xc000 | u16::try_from(place).unwrap();
                self.octets.extend(pointer.to_be_bytes());
            }
            (Name::Full(letter), _) => {
                self.neighbour.get_or_insert(self.octets.len());
                self.octets.extend([2, letter, letter, 7, b'e', b'x', b'a', b'm', b'p', b'l', b'e', 0]);
            }
            (Name::AtQuestion(letter), _) => self.octets.extend([1, letter, 0xc0, 12]),
            (Name::AtNeighbour, None) => self.octets.extend([0xc0, 12]),
        }
    }

    fn record(&mut self, record: &Behind) {
        self.name(record.owner);
        self.octets.extend(record.rtype.to_be_bytes());
        self.octets.extend([0, 1, 0, 0, 0, 60, 0, 0]);
        let rdata = self.octets.len();
        match record.rtype {
            A => self.octets.extend(&record.octets[..4]),
            TXT => {
                self.octets.push(u8::try_from(record.octets.len()).unwrap());
                self.octets.extend(&record.octets);
            }
            UNKNOWN => self.octets.extend(&record.octets),
            _ => {
                self.octets.extend((record.rtype == MX).then_some([0, 10]).into_iter().flatten());
                self.name(record.target);
            }
        }
        let length = u16::try_from(self.octets.len() - rdata).unwrap();
        self.octets[rdata - 2..rdata].copy_from_slice(&length.to_be_bytes());
    }
}

/// A response with an answer, an OPT of these options, and these records behind it; where the OPT lies, and whether any
/// of those records points to another.
fn response(options: &[(u16, Vec<u8>)], records: &[Behind]) -> (Vec<u8>, std::ops::Range<usize>, bool) {
    let mut octets =
        vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 1 + u8::try_from(records.len()).unwrap()];
    octets.extend(QUESTION);
    octets.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\x00\x02\x01");
    let start = octets.len();
    let rdata: Vec<u8> = options
        .iter()
        .flat_map(|(code, value)| {
            let length = u16::try_from(value.len()).unwrap();
            [&code.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
        })
        .collect();
    octets.extend(b"\0\0\x29\x10\0\0\0\x80\0");
    octets.extend(u16::try_from(rdata.len()).unwrap().to_be_bytes());
    octets.extend(&rdata);
    let end = octets.len();
    let mut writer = Writer { octets, neighbour: None, is_entangled: false };
    records.iter().for_each(|record| writer.record(record));
    (writer.octets, start..end, writer.is_entangled)
}

fn options_of(rdata: &[u8]) -> Vec<(u16, Vec<u8>)> {
    options(rdata).map(|option| option.expect("whole")).map(|(code, all)| (code, all[4..].to_vec())).collect()
}

fn end_to_end(options: &[(u16, Vec<u8>)]) -> Vec<(u16, Vec<u8>)> {
    options.iter().filter(|(code, _)| ![KEEPALIVE_OPTION, PADDING_OPTION].contains(code)).cloned().collect()
}

fn asked(id: u16, has_opt: bool, padding: bool, keepalive: bool) -> Asked {
    let (padding, keepalive) = (padding && has_opt, keepalive && has_opt);
    let question_end = QUESTION_END;
    Asked {
        id,
        question_end,
        has_opt,
        padding,
        keepalive,
        dnssec_ok: false,
        subnet_is_ours: false,
        since: None,
        screening: Screening::Answer,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Goal: an OPT is edited at any place among the additional records: every octet before and behind it is kept,
    /// padding is its last option and completes a block; if records behind it point to each other, nothing changes.
    /// Method: octets compared, options compared in order, every name read by hickory-proto before and after. Covers:
    /// C-35, C-36, C-37, C-41, C-44, C-53
    #[test]
    fn an_opt_is_edited_where_it_stands(
        theirs in prop::collection::btree_map(9u16..18, prop::collection::vec(any::<u8>(), 0..20), 0..5),
        records in prop::collection::vec(behind(), 1..6),
        id: u16, has_opt: bool, padding: bool, keepalive: bool,
    ) {
        let theirs: Vec<_> = theirs.into_iter().collect();
        let (message, opt, is_entangled) = response(&theirs, &records);
        let asked = asked(id, has_opt, padding, keepalive);
        let mut out = vec![7];
        let edit = respond(&message, asked, HOP, &mut out).unwrap();
        let out = &out[1..];
        prop_assert_eq!(&out[..2], &id.to_be_bytes());
        let (sent, came) = (Message::from_vec(out).unwrap(), Message::from_vec(&message).unwrap());
        prop_assert_eq!(&sent.answers, &came.answers);
        prop_assert_eq!(&sent.additionals, &came.additionals);
        prop_assert_eq!(came.additionals.len(), records.len());
        let mut expected = end_to_end(&theirs);
        expected.extend(asked.keepalive.then(|| (KEEPALIVE_OPTION, vec![1, 44])));
        if edit == Edit::Entangled {
            prop_assert!(is_entangled && (!has_opt || asked.padding || expected != theirs));
            prop_assert_eq!(&out[2..], &message[2..]);
            return Ok(());
        }
        prop_assert_eq!(edit, Edit::Made);
        prop_assert!(!is_entangled || out.len() == message.len(), "nothing that is pointed to has moved");
        let behind = &message[opt.end..];
        prop_assert_eq!(&out[2..10], &message[2..10]);
        prop_assert_eq!(&out[12..opt.start], &message[12..opt.start]);
        prop_assert_eq!(&out[out.len() - behind.len()..], behind);
        prop_assert_eq!(sent.edns.is_some(), has_opt);
        if !has_opt {
            prop_assert_eq!(out.len() - behind.len(), opt.start);
            return Ok(());
        }
        prop_assert_eq!(&out[opt.start..opt.start + 9], &message[opt.start..opt.start + 9]);
        let mut options = options_of(&out[opt.start + 11..out.len() - behind.len()]);
        if asked.padding {
            let (code, fill) = options.pop().unwrap();
            prop_assert!(code == PADDING_OPTION && fill.iter().all(|octet| *octet == 0));
            prop_assert!(out.len().is_multiple_of(PADDING_BLOCK_OCTETS) && fill.len() < PADDING_BLOCK_OCTETS);
        }
        prop_assert_eq!(options, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Goal: a query is edited by the same rule: it loses this hop's options wherever its OPT is, and every octet
    /// before and behind it is kept; if records behind it point to each other it is FORMERR if anything had to move.
    /// Method: octets compared, every name read by hickory-proto before and after. Covers: C-35, C-38, C-44, C-53
    #[test]
    fn a_query_is_edited_where_its_opt_stands(
        mut theirs in prop::collection::btree_map(8u16..15, prop::collection::vec(any::<u8>(), 0..20), 0..5),
        records in prop::collection::vec(behind(), 1..6), strips_subnet: bool,
    ) {
        // hickory-proto refuses an invalid subnet.
        theirs.entry(SUBNET_OPTION).and_modify(|value| *value = vec![0, 1, 24, 0, 192, 0, 2]);
        let theirs: Vec<_> = theirs.into_iter().collect();
        let (mut message, opt, is_entangled) = response(&theirs, &records);
        message[2] = 1;
        let mut expected = end_to_end(&theirs);
        expected.retain(|(code, _)| !strips_subnet || *code != SUBNET_OPTION);
        let query = match triage(&message, Allowed { strips_subnet, ..Allowed::default() }) {
            Disposition::Forward(query) => query,
            other => {
                prop_assert!(matches!(other, Disposition::Respond(reply) if reply.rcode == Rcode::FORM_ERR));
                prop_assert!(is_entangled && expected != theirs);
                return Ok(());
            }
        };
        prop_assert!(!is_entangled || expected == theirs, "nothing that is pointed to has moved");
        let mut out = Vec::new();
        let opt_rdata = forward(&message, &query, 0x1234, !strips_subnet, &mut out);
        prop_assert_eq!(opt_rdata, (!is_entangled).then_some(opt.start + 11));
        let behind = &message[opt.end..];
        prop_assert_eq!(&out[..opt.start + 3], &message[..opt.start + 3]);
        prop_assert_eq!(&out[out.len() - behind.len()..], behind);
        prop_assert_eq!(options_of(&out[opt.start + 11..out.len() - behind.len()]), expected);
        let (sent, came) = (Message::from_vec(&out).unwrap(), Message::from_vec(&message).unwrap());
        prop_assert_eq!((sent.answers, sent.additionals), (came.answers, came.additionals));
    }
}

/// Goal: octets that only look like a pointer prevent an edit only in types that may have a compressed name. Method:
/// the same octets, 0xC0FF, as an address, as text, as a preference of MX.
#[test]
fn only_names_are_entangled() {
    for (rtype, rdata, is_free) in [
        (A, &[0xc0, 0xff, 0xc0, 0xff][..], true),
        (TXT, &[3, 0xc0, 0xff, 0xff], true),
        (UNKNOWN, &[0xc0, 0xff], true),
        (MX, &[0, 10, 0xc0, 12], true),
        (MX, &[0, 10, 0xc0, 0xff], false),
        (MX, &[0xc0, 0xff, 0], false),
    ] {
        let (mut message, ..) = response(&[], &[]);
        message[11] = 2;
        message.extend(b"\x02ns\xc0\x0c");
        message.extend(rtype.to_be_bytes());
        message.extend([0, 1, 0, 0, 0, 60, 0, u8::try_from(rdata.len()).unwrap()]);
        message.extend(rdata);
        let mut out = Vec::new();
        let edit = respond(&message, asked(1, true, true, false), HOP, &mut out).unwrap();
        assert_eq!(edit, if is_free { Edit::Made } else { Edit::Entangled }, "{rtype} {rdata:02x?}");
    }
}

/// Goal: a message with a signature behind the OPT is not changed. Covers: C-50
#[test]
fn a_signed_response_is_left_alone() {
    let (mut message, ..) = response(&[(PADDING_OPTION, vec![0; 9])], &[]);
    message[11] = 2;
    message.extend(b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\x02\xab\xcd");
    let mut out = Vec::new();
    let edit = respond(&message, asked(0x1234, true, true, true), HOP, &mut out).unwrap();
    assert_eq!((edit, out), (Edit::Signed, message));
}
