//! RFC 6891, EDNS, and the form of messages: opcodes, counts, OPT records.
//!
//! Before: `harness::scene`. After: each mistake has its rcode, and everything else passes unchanged.

use std::net::{SocketAddr, UdpSocket};

use dot_tests::{
    harness::{
        DEADLINE,
        clients::udp,
        config::Config,
        dot::Dot,
        message::{A, OPTION_PADDING, Opt, Query, append_opt, framed, header, question, reply_to},
        netns::{Network, SERVER_V4},
        response::Message,
        scene::{HONEST, honest, scripted},
        scripted::{Act, Received},
        server::Server,
        servers::Kind,
    },
    require,
};

const FORMERR: u16 = 1;
const NOTIMP: u16 = 4;
const BADVERS: u16 = 16;

/// Goal: more than one OPT is FORMERR (§6.1.1), and no backend gets the query. Method: two equal OPTs, then two that
/// differ. Covers: C-42, A-27
#[test]
fn two_opts_are_formerr() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for second in [Opt::default(), Opt { payload_octets: 4096, ..Opt::default() }] {
        let query = Query::new(1, "dotd.test", A).opt(Opt::default()).opt(second);
        let answer = session.exchange(&query.octets());
        assert_eq!((answer.id, answer.rcode()), (1, FORMERR));
        assert!(answer.opt_count() <= 1);
    }
    assert_eq!(backend.received().len(), 0);
}

/// Goal: an OPT that stands in the answer or authority section, or below a name, is FORMERR (§6.1.1), and no backend
/// gets the query. Method: one moved by its count, one with an owner. Covers: A-27, C-42
#[test]
fn a_misplaced_opt_is_formerr() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let sound = Query::new(1, "dotd.test", A).opt(Opt::default()).octets();
    for section in [7, 9] {
        let mut moved = sound.clone();
        (moved[section], moved[11]) = (1, 0);
        assert_eq!(session.exchange(&moved).rcode(), FORMERR, "count at {section}");
    }
    let question_end = sound.len() - 11;
    let named = [&sound[..question_end], &[1, b'a'], &sound[question_end..]].concat();
    assert_eq!(session.exchange(&named).rcode(), FORMERR, "below a name");
    assert_eq!(backend.received().len(), 0);
    assert_eq!(session.exchange(&sound).rdata(A), [HONEST]);
}

/// Goal: EDNS version 1 is BADVERS with dotd's version 0 (§6.1.3, RFC 8906 §8.2.2). Method: versions 1 and 255. Covers:
/// C-43
#[test]
fn a_later_edns_version_is_badvers() {
    require!(Root);
    let (network, _backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for version in [1, 255] {
        let query = Query::new(2, "dotd.test", A).opt(Opt { version, ..Opt::default() });
        let answer = session.exchange(&query.octets());
        assert_eq!((answer.id, answer.rcode(), answer.opt_count()), (2, BADVERS, 1));
        assert_eq!(answer.opt().map(|opt| (opt.ttl >> 16) & 0xff), Some(0), "our version");
        assert_eq!(answer.counts[1], 0, "no answer");
    }
}

/// Goal: OPT in, OPT out; no OPT in, no OPT out, whatever the backend does (§6.1.1, §7).
/// Method: an honest backend, one that never sends OPT, and one that always does. Covers: C-41
#[test]
fn opt_answers_opt() {
    require!(Root);
    let (network, _backend, _dotd) = scripted(Config::new(), honest);
    assert_opt_answers_opt(&network);
    let (network, _backend, _dotd) =
        scripted(Config::new(), |query| vec![Act::Send(reply_to(&query.octets, A, &[HONEST.to_vec()]))]);
    assert_opt_answers_opt(&network);
    let (network, _backend, _dotd) = scripted(Config::new(), |query| {
        let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
        append_opt(&mut reply, &Opt::default());
        vec![Act::Send(reply)]
    });
    assert_opt_answers_opt(&network);
}

fn assert_opt_answers_opt(network: &Network) {
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let with = session.exchange(&Query::new(1, "dotd.test", A).opt(Opt::default()).octets());
    let without = session.exchange(&Query::new(2, "dotd.test", A).octets());
    assert_eq!((with.opt_count(), without.opt_count()), (1, 0));
    assert_eq!((with.rdata(A), without.rdata(A)), (vec![&HONEST[..]], vec![&HONEST[..]]));
}

/// Goal: unknown options and bits, AD, CD, DO and any qtype pass unchanged (§6.1.2, RFC 5625 §4).
/// Method: compare what the backend received with what the client sent. Covers: C-44
#[test]
fn what_we_do_not_know_passes_unchanged() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for (flags, edns_flags, qtype) in [(0x0130, 0x8000, 65), (0x0110, 0xc001, 65_280), (0x0000, 0x0000, 255)]
    {
        let mut opt = Opt::with(65_001, b"left alone");
        opt.flags = edns_flags;
        let _ = session.exchange(&Query::new(1, "dotd.test", qtype).flags(flags).opt(opt).octets());
        let received = backend.received().pop().expect("it was asked");
        let asked = Message::parse(&received.octets).expect("dotd sends whole messages");
        assert_eq!((asked.flags, &asked.question), (flags, &question("dotd.test", qtype)));
        assert_eq!(asked.option(65_001), Some(b"left alone".to_vec()));
        assert_eq!(asked.opt().map(|opt| opt.ttl & 0xffff), Some(u32::from(edns_flags)));
    }
}

/// Goal: an OPT belongs to this hop wherever it stands among the additional records (§6.1.1): padding and keepalive end
/// here, the response is padded to 468 octets, and the records behind the OPT pass octet for octet; if a name behind
/// the OPT points to another one there, nothing may move: FORMERR, and no backend gets the query. Method: an address
/// record behind the OPT whose name is written out, or points to the question; and a second record whose name points to
/// the first. Covers: C-35, C-38, C-44, C-53
#[test]
fn an_opt_is_edited_where_it_stands() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let options = vec![(11, Vec::new()), (65_001, b"left alone".to_vec()), (12, vec![7; 33])];
    let bare = Query::new(1, "dotd.test", A).opt(Opt { options, ..Opt::default() }).octets();
    let address = |owner: &[u8]| [owner, &[0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]].concat();
    let beside = [0xc0, u8::try_from(bare.len()).expect("short")];
    for (count, behind, passes) in [
        (1, address(b"\x02ns\x07example\0"), true),
        (2, [address(b"\x02ns\xc0\x0c"), address(&[0xc0, 12])].concat(), true),
        (2, [address(b"\x02ns\x07example\0"), address(&beside)].concat(), false),
    ] {
        let mut query = [&*bare, &behind].concat();
        query[11] += count;
        let asked_before = backend.received().len();
        let answer = session.exchange(&query);
        assert_eq!(answer.octets % 468, 0, "padded, from cache and backend");
        assert_eq!(answer.rcode(), if passes { 0 } else { FORMERR }, "{behind:02x?}");
        let received = backend.received();
        assert_eq!(received.len() - asked_before, usize::from(passes));
        if let Some(received) = received.get(asked_before) {
            let asked = Message::parse(&received.octets).expect("dotd sends whole messages");
            assert_eq!(asked.options(), [(65_001, b"left alone".to_vec())]);
            assert!(received.octets.ends_with(&behind), "as it came");
        }
    }
}

/// Goal: an option longer than its OPT is FORMERR with OPT (§7), and no backend gets the query. Method: an option that
/// claims 200 octets and has 2. Covers: C-45
#[test]
fn an_option_beyond_its_record_is_formerr() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    let mut query = Query::new(3, "dotd.test", A).opt(Opt::with(65_001, &[1, 2])).octets();
    let claim = query.len() - 3;
    query[claim] = 200;
    let answer = Dot::connect(&network.client, SERVER_V4).exchange(&query);
    assert_eq!((answer.rcode(), answer.opt_count()), (FORMERR, 1));
    assert_eq!(backend.received().len(), 0);
}

/// Goal: unknown opcodes are NOTIMP, with the header alone (RFC 8906 §8.1.4); DSO too (RFC 8490 §5.1.1). Method:
/// opcodes 1, 2, 3, 6 and 15 with a question; the session lives on. Covers: C-47, C-49, A-18
#[test]
fn unknown_opcodes_are_notimp() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for opcode in [1, 2, 3, 6, 15] {
        let query = Query::new(opcode, "dotd.test", A).flags(opcode << 11).octets();
        let answer = session.exchange(&query);
        assert_eq!((answer.id, answer.rcode(), answer.counts), (opcode, NOTIMP, [0; 4]), "opcode {opcode}");
        assert_eq!(answer.flags >> 11 & 0xf, opcode, "the opcode is echoed");
    }
    assert_eq!(session.exchange(&Query::new(9, "dotd.test", A).octets()).rdata(A), [HONEST]);
    assert_eq!(backend.received().len(), 1);
}

/// Goal: a query has one question: QDCOUNT 0, 2 and 65535 are FORMERR (RFC 9619), whatever follows. Method: two real
/// questions; counts without the records that they count. Covers: C-48, A-23, A-24
#[test]
fn other_than_one_question_is_formerr() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let two = [header(1, 0x0100, [2, 0, 0, 0]), question("a.test", A), question("b.test", A)].concat();
    let many = [header(2, 0x0100, [u16::MAX, 0, 0, 0]), question("a.test", A)].concat();
    let none = header(3, 0x0100, [0; 4]);
    let hollow = [header(4, 0x0100, [1, u16::MAX, u16::MAX, u16::MAX]), question("a.test", A)].concat();
    for (id, message) in [(1, two), (2, many), (3, none), (4, hollow)] {
        let answer = session.exchange(&message);
        assert_eq!((answer.id, answer.rcode()), (id, FORMERR), "message {id}");
    }
    assert_eq!(backend.received().len(), 0);
}

/// Goal: invalid names are FORMERR: pointers to themselves, forwards and in a chain, reserved label types, a label of
/// 64, more than 255 octets; no backend gets them and the parser ends. Method: each as a question; then loops in the
/// owner of a record, which dotd never follows: whatever the answer is, the session goes on. Covers: A-25, A-26
#[test]
fn malformed_names_are_formerr() {
    require!(Root);
    // The backend answers without looking at the records behind the question.
    let blind = |query: &Received| {
        let question_end = header(0, 0, [0; 4]).len() + question("dotd.test", A).len();
        let mut reply = query.octets[..question_end].to_vec();
        (reply[2], reply[11]) = (reply[2] | 0x80, 0);
        vec![Act::Send(reply)]
    };
    let (network, backend, _dotd) = scripted(Config::new(), blind);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let tail = [0, 1, 0, 1];
    let long = [&[63; 1][..], &[b'x'; 63]].concat().repeat(5);
    // Three pointers in a circle: each leads to the next, and the last to the first.
    let chain = [0xc0, 14, 0xc0, 16, 0xc0, 12];
    let names: [&[u8]; 8] = [
        &[0xc0, 12],
        &[0xc0, 200],
        &chain,
        &[1, b'a', 0xc0, 12],
        &[0x40, 1, 0],
        &[0x80, 1, 0],
        &[&[64][..], &[b'x'; 64], &[0]].concat(),
        &[&*long, &[0]].concat(),
    ];
    for (id, name) in (0_u16..).zip(names) {
        let message = [&*header(id, 0x0100, [1, 0, 0, 0]), name, &tail].concat();
        let answer = session.exchange(&message);
        assert_eq!((answer.id, answer.rcode()), (id, FORMERR), "{name:02x?}");
    }
    assert_eq!(backend.received().len(), 0);
    let query = Query::new(1, "dotd.test", A).octets();
    let at = u8::try_from(query.len()).expect("short");
    for owner in [[0xc0, at], [0xc0, at + 2], [0xc0, 12], [0xff, 0xff]] {
        let mut message = [&*query, &owner, &tail, &[0; 4], &[0, 4], &[192, 0, 2, 1]].concat();
        message[11] = 1;
        let answer = session.exchange(&message);
        assert!([0, FORMERR].contains(&answer.rcode()), "{owner:02x?}: {answer:?}");
        assert_eq!(session.exchange(&query).rcode(), 0);
    }
}

/// Goal: a length prefix that is too short ends the message where it says: the shortened message is FORMERR, and the
/// next frame is read from there. Method: each shorter length of a query with an OPT record, as a frame of its own,
/// with a good query behind it. Covers: A-31
#[test]
fn a_short_prefix_cuts_the_message() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let query = Query::new(1, "first.dotd.test", A).opt(Opt::with(65_001, &[7; 5])).octets();
    for length in 12..query.len() {
        let good = framed(&Query::new(2, "second.dotd.test", A).octets());
        session.send(&[framed(&query[..length]), good].concat());
        let mut answers = [session.receive(), session.receive()];
        answers.sort_by_key(|answer| answer.id);
        assert_eq!((answers[0].id, answers[0].rcode()), (1, FORMERR), "{length} octets");
        assert_eq!((answers[1].id, answers[1].rdata(A)), (2, vec![&HONEST[..]]), "{length} octets");
    }
    assert_eq!(backend.received().len(), query.len() - 12, "the good ones alone");
}

/// Goal: octets behind a message's last record never reach the backend, the query is answered as if they were not
/// there, as by BIND, NSD and Unbound, and the next frame is read correctly. Method: queries with surplus octets inside
/// their frame, without an OPT, with one that is edited, and with a record behind it; a good one behind each. Covers:
/// A-30, A-31, C-237
#[test]
fn octets_after_the_message_do_not_pass() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let query = Query::new(1, "first.dotd.test", A);
    let padded = query.clone().opt(Opt::with(OPTION_PADDING, &[0; 9])).octets();
    let mut with_record = padded.clone();
    with_record[11] += 1;
    with_record.extend([0, 0, 16, 0, 1, 0, 0, 0, 9, 0, 2, 1, b'x']);
    for message in [query.octets(), padded, with_record] {
        for behind in [&b"smuggled"[..], &[0], &[0; 500]] {
            let long = [&*message, behind].concat();
            session.send(&[framed(&long), framed(&Query::new(2, "second.dotd.test", A).octets())].concat());
            let mut answers = [session.receive(), session.receive()];
            answers.sort_by_key(|answer| answer.id);
            for (answer, id) in answers.iter().zip([1, 2]) {
                assert_eq!((answer.id, answer.rcode(), answer.rdata(A)), (id, 0, vec![&HONEST[..]]));
            }
        }
    }
    assert_eq!(backend.received().len(), 18);
    for received in backend.received() {
        assert!(Message::parse(&received.octets).is_some(), "octets left over: {:02x?}", received.octets);
    }
}

/// Goal: BIND, NSD and Unbound answer a query with octets behind it, and through dotd a client gets the same answer.
/// Method: each of them asked by itself, then through dotd by a datagram and by a stream. Covers: C-237
#[test]
fn servers_answer_what_has_octets_behind() {
    require!(Root, Command("nsd"), Command("unbound"), Command("named"));
    let by_datagram = |socket: &UdpSocket, message: &[u8]| {
        socket.set_read_timeout(Some(DEADLINE)).expect("not zero");
        socket.send(message).expect("a socket of our own");
        let mut octets = [0; 1232];
        let length = socket.recv(&mut octets).expect("an answer");
        Message::parse(&octets[..length]).expect("whole")
    };
    for kind in [Kind::Nsd, Kind::Unbound, Kind::Bind] {
        let network = Network::new();
        let backend = kind.start(&network, 5353);
        let config = Config::new().set("listen", "do53", r#"["0.0.0.0:53"]"#).backend(backend.address);
        let _dotd = Server::start(&network, &config);
        let long = [&*Query::new(1, "www.dotd.test", A).octets(), &[0; 7]].concat();
        let direct = by_datagram(&udp(&network.server, backend.address), &long);
        assert!(direct.rcode() == 0 && !direct.rdata(A).is_empty(), "{kind:?} itself");
        for answer in [
            by_datagram(&udp(&network.client, SocketAddr::new(SERVER_V4, 53)), &long),
            Dot::connect(&network.client, SERVER_V4).exchange(&long),
        ] {
            let sorted = |message: &Message| {
                let mut rdata: Vec<_> = message.rdata(A).into_iter().map(<[u8]>::to_vec).collect();
                rdata.sort();
                rdata
            };
            assert_eq!((answer.rcode(), sorted(&answer)), (0, sorted(&direct)), "{kind:?}");
        }
    }
}
