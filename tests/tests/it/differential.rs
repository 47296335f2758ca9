//! A client gets the same answer through dotd as from the backend itself, octet for octet, except for its ID and the
//! options of its own hop. RFC 5625 §4, RFC 4035.
//!
//! Before: NSD with a signed zone, dotd in front of it. After: 20,000 queries of every kind were asked of both.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
};

use dot_tests::{
    harness::{
        backends::{Backend, HOSTS},
        clients::{tcp, tool},
        config::Config,
        dot::Dot,
        message::{OPTION_KEEPALIVE, OPTION_PADDING, Opt, Query, framed},
        netns::{Network, SERVER_V4},
        response::Message,
        scratch::Scratch,
        server::Server,
    },
    require,
};

const QUERIES: u32 = 20_000;
/// The number of queries that are asked at once.
const WINDOW: usize = 100;
const PORT: u16 = 5353;
const BACKEND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);

/// The mixed list: names that exist and names that do not, in any case; many types; flags; EDNS of every kind. The same
/// list each time.
fn queries() -> Vec<Vec<u8>> {
    let mut state = 7_u32;
    let mut draw = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    let types = [1, 28, 15, 16, 2, 6, 5, 12, 33, 65, 64, 257, 43, 48, 47, 50, 99, 65_280, 255];
    let hosts = u32::try_from(HOSTS).expect("fits");
    (0..QUERIES)
        .map(|number| {
            let name = match draw(12) {
                0..5 => format!("host-{}.dotd.test", draw(hosts)),
                5 => format!("HOST-{}.DotD.test", draw(hosts)),
                6 => format!("absent-{}.dotd.test", draw(500)),
                7 => format!("deep.below.host-{}.dotd.test", draw(hosts)),
                8 => "dotd.test".to_owned(),
                9 => "elsewhere.example".to_owned(),
                _ => ["www", "big", "txt", "mail", "ns", "Big"][draw(6) as usize].to_owned() + ".dotd.test",
            };
            // Half of them are address types; the others are known types, then all types, except transfers (251, 252)
            // and types that are no question (TKEY 249, TSIG 250, OPT 41).
            let qtype = match draw(8) {
                0..4 => [1, 28][draw(2) as usize],
                4..7 => types[draw(19) as usize],
                _ => (1..=260)
                    .filter(|qtype| ![41, 249, 250, 251, 252].contains(qtype))
                    .nth(draw(255) as usize)
                    .expect("255"),
            };
            let flags = [0x0100, 0x0000, 0x0110, 0x0120, 0x0130][draw(5) as usize];
            let id = u16::try_from(number % 60_000).expect("fits");
            let query = Query::new(id, &name, qtype).flags(flags);
            let option = match draw(12) {
                0 => Some((10, vec![1, 2, 3, 4, 5, 6, 7, u8::try_from(draw(256)).expect("fits")])),
                1 => Some((8, vec![0, 1, 24, 0, 192, 0, u8::try_from(draw(4)).expect("fits")])),
                5 => Some((
                    8,
                    [&[0, 2, 56, 0, 0x20, 1, 0x0d, 0xb8, 0, 0][..], &[u8::try_from(draw(4)).expect("fits")]]
                        .concat(),
                )),
                6 => Some((8, vec![0, 1, 0, 0])),
                2 => Some((65_001, b"unknown".to_vec())),
                3 => Some((OPTION_PADDING, vec![0; draw(200) as usize])),
                4 => Some((OPTION_KEEPALIVE, Vec::new())),
                _ => None,
            };
            let edns_flags = if draw(2) == 0 { 0x8000 } else { 0 };
            match (draw(4), option) {
                (0, None) => query.octets(),
                (_, option) => {
                    let opt =
                        Opt { flags: edns_flags, options: option.into_iter().collect(), ..Opt::default() };
                    query.opt(opt).octets()
                }
            }
        })
        .collect()
}

/// Asks the queries, one window at a time; returns the answers by ID.
fn ask_all(queries: &[Vec<u8>], mut exchange: impl FnMut(&[Vec<u8>]) -> Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for window in queries.chunks(WINDOW) {
        let mut answers = exchange(window);
        answers.sort_by_key(|answer| [answer[0], answer[1]]);
        let mut sorted: Vec<_> = window.iter().collect();
        sorted.sort_by_key(|query| [query[0], query[1]]);
        assert!(sorted.iter().zip(&answers).all(|(query, answer)| query[..2] == answer[..2]));
        all.extend(answers);
    }
    all
}

fn directly(stream: &mut TcpStream, window: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let octets: Vec<u8> = window.iter().flat_map(|query| framed(query)).collect();
    stream.write_all(&octets).expect("NSD reads");
    let mut answers = Vec::new();
    for _ in window {
        let mut prefix = [0; 2];
        stream.read_exact(&mut prefix).expect("NSD answers");
        let mut answer = vec![0; usize::from(u16::from_be_bytes(prefix))];
        stream.read_exact(&mut answer).expect("NSD answers");
        answers.push(answer);
    }
    answers
}

fn through_dotd(session: &mut Dot, window: &[Vec<u8>]) -> Vec<Vec<u8>> {
    session.ask_all(window);
    window.iter().map(|_| session.receive_octets().expect("dotd answers")).collect()
}

/// An OPT: payload size, flags, and the options that are not for a single hop.
type EndToEnd = (u16, u32, Vec<(u16, Vec<u8>)>);

/// An answer's octets before its OPT, its OPT without the options of a hop, and the TTLs, which are set to zero in the
/// octets.
fn parts(octets: &[u8]) -> (Vec<u8>, Option<EndToEnd>, Vec<u32>) {
    let message = Message::parse(octets).unwrap_or_else(|| panic!("not whole: {octets:02x?}"));
    let opt = message.opt().map(|opt| {
        let is_end_to_end = |(code, _): &(u16, Vec<u8>)| ![OPTION_KEEPALIVE, OPTION_PADDING].contains(code);
        (opt.class, opt.ttl, message.options().into_iter().filter(is_end_to_end).collect())
    });
    let end = octets.len() - message.opt().map_or(0, |opt| 11 + opt.rdata.len());
    let mut body = octets[..end].to_vec();
    // Seen from the end, the length of each record's RDATA gives the place of its TTL.
    let mut at = end;
    let records: Vec<_> = message.records.iter().filter(|record| record.rtype != 41).collect();
    let mut ttls = Vec::new();
    for (position, record) in records.iter().enumerate().rev() {
        let ttl = at - record.rdata.len() - 6;
        assert_eq!(body[ttl..ttl + 4], record.ttl.to_be_bytes());
        body[ttl..ttl + 4].fill(0);
        ttls.push(record.ttl);
        // The owner's name is a pointer or labels; the previous record ends where this name begins.
        at = start_of_record(octets, message.question.len() + 12, position);
    }
    (body, opt, ttls)
}

/// The offset of the record at `position`.
fn start_of_record(octets: &[u8], question_end: usize, position: usize) -> usize {
    let mut at = question_end;
    for _ in 0..position {
        while octets[at] != 0 && octets[at] < 0xc0 {
            at += 1 + usize::from(octets[at]);
        }
        at += if octets[at] == 0 { 1 } else { 2 };
        at += 10 + usize::from(u16::from_be_bytes([octets[at + 8], octets[at + 9]]));
    }
    at
}

/// Goal: 20,000 mixed queries have the answers that the backend gives, octet for octet but for the ID, padding and
/// keepalive; with the cache on also except for TTLs, which have counted down by at most the time that passed. Method:
/// the same list over TCP to NSD and over TLS to dotd, with the cache off and on, each window pipelined. Covers: C-19,
/// C-44, C-53
#[test]
fn answers_are_those_of_the_backend() {
    require!(Root, Command("nsd"), Command("dnssec-signzone"));
    let network = Network::new();
    let (backend, _key) = Backend::nsd_signed(&network, PORT);
    let queries = queries();
    let mut stream = tcp(&network.server, BACKEND);
    let expected = ask_all(&queries, |window| directly(&mut stream, window));
    for (cache, keys) in [("0", "transport = \"tcp\""), ("0", ""), ("50000", "transport = \"tcp\"")] {
        let config = Config::new().set("server", "workers", "1").set("dns", "cache_entries", cache);
        let dotd = Server::start(&network, &config.backend_with(backend.address, keys));
        let began = std::time::Instant::now();
        let mut session = Dot::connect(&network.client, SERVER_V4);
        let answers = ask_all(&queries, |window| through_dotd(&mut session, window));
        let passed = u32::try_from(began.elapsed().as_secs()).expect("less than a day") + 1;
        for ((query, expected), answer) in queries_by_window(&queries).zip(&expected).zip(&answers) {
            let ((body, opt, ttls), (other_body, other_opt, other_ttls)) = (parts(expected), parts(answer));
            assert!(body == other_body, "{query:02x?}\n{expected:02x?}\n{answer:02x?}");
            assert_eq!(opt, other_opt, "{query:02x?}");
            let oldest = if cache == "0" { 0 } else { passed };
            let are_so =
                ttls.iter().zip(&other_ttls).all(|(ttl, other)| (*other..=other + oldest).contains(ttl));
            assert!(are_so, "{ttls:?} {other_ttls:?}");
        }
        let stats = dotd.counts("all is counted", |stats| stats.difference() == [0; 3]);
        assert_eq!(stats.counter("queries", "received"), u64::from(QUERIES));
        let hits = stats.counter("cache", "hits");
        assert!(if cache == "0" { hits == 0 } else { hits > 2_000 }, "{hits} hits");
    }
}

/// The queries in the order of their answers.
fn queries_by_window(queries: &[Vec<u8>]) -> impl Iterator<Item = &Vec<u8>> {
    queries.chunks(WINDOW).flat_map(|window| {
        let mut sorted: Vec<_> = window.iter().collect();
        sorted.sort_by_key(|query| [query[0], query[1]]);
        sorted
    })
}

/// Goal: a validator finds the same chain through dotd as directly, for positive and negative answers, with the cache
/// off and on, and would notice a difference. Method: delv with the zone's key as its anchor, by UDP and TCP; then with
/// another key.
#[test]
fn a_validator_finds_the_chain() {
    require!(Root, Command("nsd"), Command("dnssec-signzone"), Command("delv"));
    let network = Network::new();
    let (backend, key) = Backend::nsd_signed(&network, PORT);
    let fields: Vec<&str> = key.splitn(4, ' ').collect();
    let scratch = Scratch::new();
    let anchor = |name: &str, digits: &str| {
        let [flags, protocol, algorithm] = [fields[0], fields[1], fields[2]];
        let text = format!(
            "trust-anchors {{ dotd.test. static-key {flags} {protocol} {algorithm} \"{digits}\"; }};\n"
        );
        scratch.write(name, text).display().to_string()
    };
    let digits = fields[3].replace(' ', "");
    let good = anchor("good", &digits);
    let other: String = digits.chars().rev().collect::<String>().trim_start_matches('=').to_owned() + "==";
    let bad = anchor("bad", &other);
    let delv = |at: &str, port: &str, anchor: &str, more: &[&str]| {
        let words = [&[at, "-p", port, "-a", anchor, "+root=dotd.test", "+nottl"], more].concat();
        let namespace = if port == "53" { &network.client } else { &network.server };
        tool(namespace, "delv", &words)
    };
    for cache in ["0", "10000"] {
        let config = Config::new()
            .set("listen", "do53", r#"["10.53.0.1:53"]"#)
            .set("dns", "cache_entries", cache)
            .backend(backend.address);
        let _dotd = Server::start(&network, &config);
        for question in [
            ["www.dotd.test", "A"],
            ["big.dotd.test", "TXT"],
            ["absent.dotd.test", "A"],
            ["www.dotd.test", "MX"],
        ] {
            let direct = delv("@127.0.0.1", "5353", &good, &question);
            let said = delv("@10.53.0.1", "53", &good, &question);
            assert!(said.has("fully validated"), "{question:?}: {}", said.text);
            assert_eq!(said.text, direct.text, "{question:?}");
            let again = delv("@10.53.0.1", "53", &good, &[&question[..], &["+tcp"]].concat());
            assert_eq!(again.text, direct.text, "{question:?} by TCP");
        }
        let said = delv("@10.53.0.1", "53", &bad, &["www.dotd.test", "A"]);
        assert!(!said.has("fully validated"), "{}", said.text);
    }
}
