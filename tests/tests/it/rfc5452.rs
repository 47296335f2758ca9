//! RFC 5452, forgery: which responses dotd accepts from a backend, and how hard they are to guess.
//!
//! Before: a backend that sends false responses. After: the client gets the true one.

use std::collections::HashSet;

use dot_tests::{
    harness::{
        backends::BIG_OCTETS,
        config::Config,
        dot::Dot,
        message::{A, AAAA, Opt, Query, TXT, header, question, reply_to},
        netns::SERVER_V4,
        response::Message,
        scene::{HONEST, honest, scripted, scripted_with},
        scripted::{Act, Received},
    },
    require,
};

const FORGED: [u8; 4] = [203, 0, 113, 66];

fn forged(query: &Received) -> Vec<u8> {
    reply_to(&query.octets, A, &[FORGED.to_vec()])
}

fn truth(query: &Received) -> Act {
    Act::Send(reply_to(&query.octets, A, &[HONEST.to_vec()]))
}

/// The forged reply with another ID, name, type or class, truncated, not a response, or not DNS.
fn lies(query: &Received) -> Vec<Vec<u8>> {
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut reply = forged(query);
        change(&mut reply);
        reply
    };
    let asked = Message::parse(&query.octets).expect("dotd sends whole messages");
    let other_name = [header(asked.id, 0x8180, [1, 0, 0, 0]), question("other.dotd.test", A)].concat();
    let other_type = [header(asked.id, 0x8180, [1, 0, 0, 0]), question(&asked.qname(), AAAA)].concat();
    let class_at = 12 + asked.question.len() - 1;
    vec![
        with(&|reply| reply[0] ^= 0xff),
        with(&|reply| reply[1] ^= 1),
        with(&|reply| reply[class_at] = 3),
        with(&|reply| reply[2] &= 0x7f),
        other_name,
        other_type,
        header(asked.id, 0x8180, [1, 0, 0, 0]),
        vec![0xff; 40],
        vec![0],
    ]
}

/// Goal: a response with the wrong ID, name, type or class, and garbage, is dropped, and dotd goes on waiting for the
/// true one (RFC 5452 §9.1). Method: every false response, then the true one, for each of ten queries; dotd counts each
/// false one. Covers: C-54, A-60, A-61
#[test]
fn lies_from_the_right_address_are_ignored() {
    require!(Root);
    let script = |query: &Received| lies(query).into_iter().map(Act::Send).chain([truth(query)]).collect();
    let (network, _backend, dotd) = scripted(Config::new(), script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for id in 0..10 {
        let answer = session.exchange(&Query::new(id, "www.dotd.test", A).octets());
        assert_eq!((answer.id, answer.rdata(A)), (id, vec![&HONEST[..]]));
    }
    dotd.counts("each lie is counted", |stats| stats.counter("backend", "unmatched") == 90);
}

/// Goal: a perfect forgery from another port is not a response (§9.1).
/// Method: the backend's other socket answers first, then the right one. Covers: C-54
#[test]
fn the_right_answer_from_elsewhere_is_ignored() {
    require!(Root);
    let script = |query: &Received| vec![Act::SendFromElsewhere(forged(query)), truth(query)];
    let (network, _backend, _dotd) = scripted(Config::new(), script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for id in 0..10 {
        assert_eq!(session.exchange(&Query::new(id, "www.dotd.test", A).octets()).rdata(A), [HONEST]);
    }
}

/// Goal: false responses alone lead to SERVFAIL. Method: every false response and no true one. Covers: C-54, C-52
#[test]
fn lies_alone_are_servfail() {
    require!(Root);
    let script = |query: &Received| {
        let elsewhere = Act::SendFromElsewhere(forged(query));
        lies(query).into_iter().map(Act::Send).chain([elsewhere]).collect()
    };
    let (network, _backend, _dotd) = scripted_with(Config::new(), "timeout = \"300ms\"", script);
    let answer =
        Dot::connect(&network.client, SERVER_V4).exchange(&Query::new(1, "www.dotd.test", A).octets());
    assert_eq!((answer.rcode(), answer.rdata(A).len()), (2, 0));
}

/// Goal: IDs towards the backend cannot be guessed from IDs seen (§9.2), nor from the client's. Method: 2000 queries
/// with ID 7; the number of distinct IDs (birthday bound), the differences, and each of the 16 bits, which must be set
/// in about half of them. Covers: C-55
#[test]
fn ids_are_unpredictable() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for _ in 0..20 {
        session.ask_all(&vec![Query::new(7, "www.dotd.test", A).octets(); 100]);
        for _ in 0..100 {
            assert_eq!(session.receive().id, 7);
        }
    }
    let ids: Vec<u16> = backend
        .received()
        .iter()
        .map(|query| u16::from_be_bytes([query.octets[0], query.octets[1]]))
        .collect();
    assert_eq!(ids.len(), 2000);
    let distinct: HashSet<u16> = ids.iter().copied().collect();
    assert!(distinct.len() > 1900, "{} distinct IDs of 2000", distinct.len());
    let steps: HashSet<u16> = ids.windows(2).map(|two| two[1].wrapping_sub(two[0])).collect();
    assert!(steps.len() > 1800, "{} distinct steps", steps.len());
    for bit in 0..16 {
        let set = ids.iter().filter(|id| *id >> bit & 1 == 1).count();
        assert!((850..1150).contains(&set), "bit {bit} is set in {set} of 2000");
    }
}

/// Goal: source ports towards the backend differ and follow no order (§9.2). Method: ports of 2000 queries on ten
/// sessions: there are several, and none is adjacent to the one before. Covers: C-55
#[test]
fn source_ports_are_spread() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    for _ in 0..10 {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        session.ask_all(&vec![Query::new(7, "www.dotd.test", A).octets(); 200]);
        for _ in 0..200 {
            let _ = session.receive();
        }
    }
    let ports: Vec<u16> = backend.received().iter().map(|query| query.from.port()).collect();
    let mut distinct: Vec<u16> = ports.iter().copied().collect::<HashSet<_>>().into_iter().collect();
    distinct.sort_unstable();
    assert!(distinct.len() >= 4, "{distinct:?}");
    let neighbours = distinct.windows(2).filter(|two| two[1] - two[0] == 1).count();
    assert!(neighbours * 2 < distinct.len(), "ports in a row: {distinct:?}");
}

/// Goal: TC=1 over UDP is asked again over TCP, and the client sees the whole answer (RFC 9210 §3), whatever EDNS size
/// it states, because nothing is truncated over TLS (RFC 8906 §3.2.7). Method: the backend truncates over UDP, sends
/// 60,000 octets over TCP; compared octet by octet. Covers: C-16, C-51
#[test]
fn a_truncated_answer_is_fetched_over_tcp() {
    require!(Root);
    let text = |octets: usize| -> Vec<u8> {
        let all: Vec<u8> = (0..octets).map(|index| b'a' + u8::try_from(index % 23).unwrap_or(0)).collect();
        all.chunks(250).flat_map(|part| [&[u8::try_from(part.len()).unwrap_or(0)], part].concat()).collect()
    };
    for size in [BIG_OCTETS, 60_000] {
        let whole = text(size);
        let expected = whole.clone();
        let script = move |query: &Received| {
            let mut cut = reply_to(&query.octets, TXT, &[]);
            cut[2] |= 0x02;
            let reply = reply_to(&query.octets, TXT, std::slice::from_ref(&whole));
            vec![Act::Send(if query.is_tcp { reply } else { cut })]
        };
        let (network, backend, dotd) = scripted(Config::new(), script);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        let query = Query::new(1, "big.dotd.test", TXT);
        for query in [query.clone(), query.opt(Opt { payload_octets: 512, ..Opt::default() })] {
            let answer = session.exchange(&query.octets());
            assert!(!answer.is_truncated() && answer.rdata(TXT) == [&*expected], "{} octets", answer.octets);
        }
        assert_eq!(backend.received().iter().filter(|query| query.is_tcp).count(), 2);
        assert_eq!(dotd.stats().counter("backend", "truncated"), 2);
    }
}

/// Goal: TC=1 over TCP too causes no loop: the query ends after few tries, with any rcode. Method: a backend that
/// truncates always.
#[test]
fn truncation_over_tcp_makes_no_loop() {
    require!(Root);
    let script = |query: &Received| {
        let mut cut = reply_to(&query.octets, TXT, &[]);
        cut[2] |= 0x02;
        vec![Act::Send(cut)]
    };
    let (network, backend, _dotd) = scripted_with(Config::new(), "timeout = \"500ms\"", script);
    let answer =
        Dot::connect(&network.client, SERVER_V4).exchange(&Query::new(1, "big.dotd.test", TXT).octets());
    assert_eq!(answer.id, 1);
    assert!(backend.received().len() <= 8, "{} tries", backend.received().len());
}

/// Goal: dotd advertises at most 1400 octets over UDP (RFC 9715), whatever the client states, and at least 512. Method:
/// client sizes from 0 to 65535, and no OPT at all. Covers: C-46, C-56
#[test]
fn udp_size_to_the_backend_is_bounded() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for payload_octets in [0, 511, 512, 1232, 1400, 1401, 4096, u16::MAX] {
        let opt = Opt { payload_octets, ..Opt::default() };
        let _ = session.exchange(&Query::new(1, "www.dotd.test", A).opt(opt).octets());
        let asked = Message::parse(&backend.received().pop().expect("it was asked").octets).expect("whole");
        let size = asked.opt().expect("OPT passes on").class;
        assert!((512..=1400).contains(&size), "client {payload_octets}: backend {size}");
    }
}
