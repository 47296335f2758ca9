//! DNS in clear over UDP, where a sender's address may be forged: what dotd sends there, how much, and when.
//!
//! Before: `listen.do53`, and a backend with long answers. After: octets in and out, counted; an innocent client served.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use dot_tests::{
    harness::{
        DEADLINE,
        clients::udp,
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Opt, Query, TXT, append_opt, reply_to},
        netns::{Network, SERVER_V4, SERVER_V6},
        response::Message,
        scene::{HONEST, assert_served, scripted, scripted_with},
        scripted::{Act, Received},
        uninterrupted,
    },
    require,
};

/// The number of queries in a flood.
const QUERIES: u16 = 300;
/// The most octets of an answer over UDP (RFC 9715, DNS flag day 2020).
const DATAGRAM_OCTETS_MAX: usize = 1232;

fn in_clear() -> Config {
    Config::new().set("listen", "do53", r#"["0.0.0.0:53", "[::]:53"]"#)
}

/// An answer of about that many octets for TXT, an address for other types.
fn long(query: &Received, octets: usize) -> Vec<u8> {
    let asked = Message::parse(&query.octets).expect("dotd sends whole messages");
    let is_text = asked.question.ends_with(&[0, 16, 0, 1]);
    let text: Vec<u8> = [&[199][..], &[b'x'; 199]].concat().repeat(octets / 200);
    let mut reply = match is_text {
        true => reply_to(&query.octets, TXT, &[text]),
        false => reply_to(&query.octets, A, &[HONEST.to_vec()]),
    };
    if asked.opt_count() > 0 {
        append_opt(&mut reply, &Opt::default());
    }
    reply
}

/// A query for a long answer, by a client that accepts any length.
fn asking(id: u16) -> Vec<u8> {
    let opt = Opt { payload_octets: u16::MAX, ..Opt::default() };
    Query::new(id, &format!("host-{id}.dotd.test"), TXT).opt(opt).octets()
}

fn victim(network: &Network) -> UdpSocket {
    let socket = udp(&network.client, SocketAddr::new(SERVER_V4, 53));
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("not zero");
    socket
}

/// Everything that is received until half a second passes without a datagram.
fn drained(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut octets = [0; 65_535];
    std::iter::from_fn(|| {
        uninterrupted(|| socket.recv(&mut octets)).ok().map(|length| octets[..length].to_vec())
    })
    .collect()
}

fn is_cut(answer: &[u8]) -> bool {
    answer[2] & 0x02 != 0
}

/// Goal: whatever payload size a query states, an answer over UDP has at most 1232 octets; a longer one is replaced by
/// TC=1, which is no longer than the query. Method: answers of 1,000 to 60,000 octets, to a client that claims 65,535.
/// Covers: A-39
#[test]
fn no_datagram_is_long() {
    require!(Root);
    for octets in [1_000, 2_000, 60_000] {
        let script = move |query: &Received| vec![Act::Send(long(query, octets))];
        let (network, _backend, _dotd) = scripted_with(in_clear().xdp("off"), "transport = \"tcp\"", script);
        let socket = victim(&network);
        let query = asking(1);
        socket.send(&query).expect("a socket of our own");
        let answers = drained(&socket);
        let [answer] = &answers[..] else { panic!("one query, {} datagrams", answers.len()) };
        assert!(answer.len() <= DATAGRAM_OCTETS_MAX, "{} octets", answer.len());
        assert_eq!(is_cut(answer), octets > DATAGRAM_OCTETS_MAX);
        assert!(
            !is_cut(answer) || answer.len() <= query.len(),
            "{} octets for {}",
            answer.len(),
            query.len()
        );
        assert_served(&mut Dot::connect(&network.client, SERVER_V4));
    }
}

/// Goal: a flood of queries over UDP in the name of a victim gets a burst of answers, then TC=1 that is no longer than
/// the query: dotd sends about as many octets as it gets, and the backend gets no further queries. Another client is
/// served over TLS meanwhile. Method: 300 queries for long answers under a rate of one a second and a burst of five;
/// the octets that arrived. Covers: A-39, A-40
#[test]
fn a_flood_in_a_victims_name_is_not_amplified() {
    require!(Root, Bpf);
    let limited = in_clear().set("xdp.limit", "udp53_per_second", "1").set("xdp.limit", "udp53_burst", "5");
    let (network, backend, dotd) = scripted(limited, |query| vec![Act::Send(long(query, 1_000))]);
    let mut innocent = Dot::connect(&network.client, SERVER_V6);
    let (socket, began) = (victim(&network), Instant::now());
    let mut answers = Vec::new();
    for id in 0..QUERIES {
        socket.send(&asking(id)).expect("a socket of our own");
        if id % 100 == 0 {
            assert_served(&mut innocent);
            answers.extend(drained(&socket));
        }
    }
    answers.extend(drained(&socket));
    // The rate allows this: the burst, and a query each second.
    let allowed = 5 + usize::try_from(began.elapsed().as_secs()).expect("short") + 1;
    let whole = answers.iter().filter(|answer| !is_cut(answer)).count();
    assert!((1..=allowed).contains(&whole), "{whole} whole answers, {allowed} allowed");
    let query = asking(0).len() + 2;
    assert!(answers.iter().filter(|answer| is_cut(answer)).all(|answer| answer.len() <= query));
    let out: usize = answers.iter().map(Vec::len).sum();
    assert!(out <= usize::from(QUERIES) * query + allowed * DATAGRAM_OCTETS_MAX, "{out} octets");
    let asked = backend
        .received()
        .iter()
        .filter(|query| query.octets.windows(4).any(|part| part == [0, 16, 0, 1]))
        .count();
    assert!(asked <= allowed, "{asked} queries reached the backend");
    assert!(dotd.stats().packets("answer", "do53_query_rate") >= u64::from(QUERIES) - allowed as u64);
    assert_served(&mut innocent);
}

/// Goal: a backend that holds its answers cannot make dotd release them in one pulse against a victim (DNSBomb): at its
/// timeout a query gets SERVFAIL, which is not longer than the query, and a later answer is dropped. Method: 300
/// queries by UDP whose long answers are held beyond the timeout, then released at once; the octets that the victim
/// gets after that, a client over TLS, the sums. Covers: A-40, A-59
#[test]
fn held_answers_are_never_a_pulse() {
    require!(Root);
    let is_holding = Arc::new(AtomicBool::new(true));
    let holds = Arc::clone(&is_holding);
    let script = move |query: &Received| {
        let is_text = query.octets.windows(4).any(|part| part == [0, 16, 0, 1]);
        let answer = long(query, 1_000);
        vec![if is_text && holds.load(Relaxed) { Act::Hold(answer) } else { Act::Send(answer) }]
    };
    let (network, backend, dotd) = scripted_with(in_clear().xdp("off"), "timeout = \"2s\"", script);
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    let socket = victim(&network);
    (0..QUERIES).for_each(|id| assert!(socket.send(&asking(id)).is_ok()));
    assert_served(&mut innocent);
    dotd.counts("all have failed", |stats| stats.counter("responses", "SERVFAIL") == u64::from(QUERIES));
    let failures = drained(&socket);
    // EDE 22 and its text come on top of the query's own octets.
    assert!(failures.iter().all(|failure| failure.len() <= asking(0).len() + 64), "a failure is short");
    eventually("all are held", || (backend.held() >= usize::from(QUERIES)).then_some(()));
    is_holding.store(false, Relaxed);
    backend.release();
    let stats =
        dotd.counts("all came too late", |stats| stats.counter("backend", "unmatched") >= u64::from(QUERIES));
    assert_eq!(stats.difference(), [0; 3]);
    assert_eq!(drained(&socket).len(), 0, "nothing is released against the victim");
    assert_served(&mut innocent);
    eventually(&format!("it is served too within {DEADLINE:?}"), || {
        socket.send(&asking(1)).expect("a socket of our own");
        drained(&socket).first().map(|answer| assert!(!is_cut(answer)))
    });
}
