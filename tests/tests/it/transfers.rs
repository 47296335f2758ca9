//! Zone transfers, NOTIFY and UPDATE, where the operator permits them. (RFC 5936, RFC 1995, RFC 1996, RFC 2136.)
//!
//! Before: `dns.transfers`, `dns.notify` or `dns.update`. After: whole zones, octet for octet, or a client that knows
//! that the transfer failed.

use std::{
    io::Write,
    net::{Shutdown, SocketAddr},
    time::Duration,
};

use dot_tests::{
    harness::{
        backends::{Backend, HOSTS, TSIG_SECRET},
        clients::{DOT_PORT, kdig, read_to_close, tcp, tcp_with_window, tool},
        config::Config,
        dot::{Dot, End},
        eventually,
        message::{A, OPTION_EDE, OPTION_PADDING, Opt, Query, SERVFAIL, SOA, framed, header, name, question},
        netns::{Network, SERVER_V4},
        offer::Offer,
        response::Message,
        scene::{honest, scripted, scripted_with},
        scripted::{Act, Received},
        server::Server,
    },
    require,
};

const AXFR: u16 = 252;
const IXFR: u16 = 251;
const TXT: u16 = 16;
const ZONE: &str = "dotd.test";

fn relaying() -> Config {
    Config::new().set("dns", "transfers", "true")
}

/// The record lines of what kdig printed.
fn records(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(';'));
    lines.map(str::to_owned).collect()
}

/// Goal: a real zone arrives whole and the same as directly, by AXFR and IXFR, plain and signed by TSIG, which covers
/// every message. Method: NSD as backend, over UDP for queries; kdig over TLS through dotd, and over TCP directly.
/// Covers: A-20, A-21, A-38, C-50
#[test]
fn a_real_zone_is_the_same_as_directly() {
    require!(Root, Command("nsd"), Command("kdig"));
    let network = Network::new();
    let nsd = Backend::nsd(&network, 5300);
    let dotd = Server::start(&network, &relaying().backend(nsd.address));
    let key = format!("-y hmac-sha256:transfer:{TSIG_SECRET}");
    for words in ["AXFR", "IXFR=0", "IXFR=1"] {
        let direct = tool(&network.server, "kdig", &["@127.0.0.1", "-p", "5300", "+tcp", "-t", words, ZONE]);
        let expected = records(&direct.text);
        for key in ["", &key] {
            let said = kdig(&network.client, SERVER_V4, &format!("+tls {key} -t {words} {ZONE}"));
            assert!(said.is_success, "{words} {key}: {}", said.text);
            let failed = said.has(";; WARNING") || said.has(";; ERROR");
            assert!(!failed, "{words} {key}: {}", said.text);
            let mut got = records(&said.text);
            got.retain(|line| !line.contains("TSIG"));
            assert_eq!(got, expected, "{words} {key}");
        }
        if words == "AXFR" {
            assert!(expected.len() > 2 * HOSTS, "{} records", expected.len());
        }
    }
    let stats = dotd.counts("all are over", |stats| stats.difference() == [0; 3]);
    assert!(stats.counter("backend", "transferred") > 6, "{stats:?}");
    assert_eq!(stats.counter("responses", "NOERROR"), 6, "one response each: {stats:?}");
}

/// Goal: without `dns.transfers` the answer is REFUSED with EDE 21. Covers: A-20, C-57
#[test]
fn a_transfer_is_refused_by_default() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for qtype in [AXFR, IXFR] {
        let answer = session.exchange(&Query::new(1, ZONE, qtype).opt(Opt::default()).octets());
        assert_eq!((answer.rcode(), &answer.option(OPTION_EDE).expect("an EDE")[..2]), (5, &[0, 21][..]));
    }
    assert!(backend.received().is_empty());
}

/// A record of the zone: its SOA, or 200 octets of text.
fn record(rtype: u16) -> Vec<u8> {
    let rdata = match rtype {
        SOA => [&[0, 0][..], &[0, 0, 0, 9], &[0; 16]].concat(),
        _ => [&[199][..], &[b'x'; 199]].concat(),
    };
    let length = u16::try_from(rdata.len()).expect("small").to_be_bytes();
    [&name(ZONE)[..], &rtype.to_be_bytes(), &[0, 1, 0, 0, 0, 60], &length, &rdata].concat()
}

/// One message of a transfer.
fn part(query: &Received, has_question: bool, rtypes: &[u16]) -> Vec<u8> {
    let asked = Message::parse(&query.octets).expect("whole");
    let count = u16::try_from(rtypes.len()).expect("few");
    let mut octets = header(asked.id, 0x8400, [u16::from(has_question), count, 0, 0]);
    if has_question {
        octets.extend(&asked.question);
    }
    octets.extend(rtypes.iter().flat_map(|rtype| record(*rtype)));
    octets
}

/// A zone in `messages` messages, with the question only in the first.
fn zone(query: &Received, messages: usize) -> Vec<Act> {
    let middle = |number| match number {
        0 if messages == 1 => part(query, true, &[SOA, TXT, SOA]),
        0 => part(query, true, &[SOA, TXT]),
        number if number + 1 == messages => part(query, false, &[TXT, SOA]),
        _ => part(query, false, &[TXT; 5]),
    };
    (0..messages).map(|number| Act::Send(middle(number))).collect()
}

fn is_transfer(query: &Received) -> bool {
    query.octets.windows(4).any(|part| part == [0, 252, 0, 1])
}

/// Goal: transfers of one, four or a thousand messages arrive in order with the client's ID; false and surplus messages
/// do not, and the backend's connection is closed at the end. Other queries are answered meanwhile. Covers: A-20
#[test]
fn messages_are_passed_on_in_order_and_no_others() {
    require!(Root);
    for messages in [1, 4, 1000] {
        let script = move |query: &Received| {
            if !is_transfer(query) {
                return honest(query);
            }
            let mut lie = part(query, true, &[SOA, SOA]);
            lie[0] ^= 1;
            let mut acts = vec![Act::Send(lie)];
            acts.extend(zone(query, messages));
            acts.push(Act::Send(part(query, false, &[TXT])));
            acts
        };
        let (network, backend, dotd) = scripted(relaying(), script);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        session.ask(&Query::new(77, ZONE, AXFR).octets());
        let mut lengths = Vec::new();
        for number in 0..messages {
            let octets = session.receive_octets().expect("a message");
            assert_eq!(octets[..2], [0, 77], "message {number}");
            lengths.push(octets.len());
        }
        let query = backend.received().pop().expect("the transfer");
        let sent = zone(&query, messages).into_iter().map(|act| match act {
            Act::Send(octets) => octets.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(lengths, sent.collect::<Vec<_>>());
        assert_eq!(session.exchange(&Query::new(78, "host-1.dotd.test", A).octets()).id, 78);
        let stats = dotd.stats();
        assert_eq!(stats.counter("backend", "transferred"), messages as u64);
        assert_eq!(stats.counter("backend", "unmatched"), 1, "the lie");
        assert_eq!(stats.difference(), [0; 3], "{stats:?}");
    }
}

/// Goal: a zone that breaks off, one that never begins, and an absent backend end in SERVFAIL; the session goes on.
/// Covers: A-20, A-58
#[test]
fn a_transfer_that_breaks_off_is_known_to_be_broken() {
    require!(Root);
    let script = |query: &Received| match is_transfer(query) {
        false => honest(query),
        true if query.octets.windows(5).any(|part| part == b"early") => vec![Act::Close],
        true => vec![Act::Send(part(query, true, &[SOA, TXT])), Act::Close],
    };
    let (network, _backend, dotd) = scripted(relaying(), script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask(&Query::new(1, ZONE, AXFR).octets());
    assert_eq!(session.receive().rcode(), 0, "the first message");
    let end = session.receive();
    assert_eq!((end.id, end.rcode()), (1, SERVFAIL));
    let answer = session.exchange(&Query::new(2, "early.dotd.test", AXFR).opt(Opt::default()).octets());
    assert_eq!((answer.rcode(), &answer.option(OPTION_EDE).expect("an EDE")[..2]), (SERVFAIL, &[0, 23][..]));
    assert_eq!(session.exchange(&Query::new(3, "host-1.dotd.test", A).octets()).rcode(), 0);
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: in clear the SERVFAIL of a broken transfer is not padded either. Method: a zone that breaks off over TCP/53,
/// for a client that padded its query. Covers: C-38
#[test]
fn what_breaks_off_in_clear_is_not_padded() {
    require!(Root);
    let script = |query: &Received| vec![Act::Send(part(query, true, &[SOA, TXT])), Act::Close];
    let config = relaying().set("listen", "do53", r#"["0.0.0.0:53"]"#);
    let (network, _backend, _dotd) = scripted(config, script);
    let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, 53));
    let query = Query::new(1, ZONE, AXFR).opt(Opt::with(OPTION_PADDING, &[0; 3]));
    stream.write_all(&framed(&query.octets())).expect("open");
    stream.shutdown(Shutdown::Write).expect("open");
    let octets = read_to_close(&mut stream);
    let first = usize::from(u16::from_be_bytes([octets[0], octets[1]]));
    let end = Message::parse(&octets[first + 4..]).expect("a second message");
    assert_eq!((end.id, end.rcode(), end.option(OPTION_PADDING)), (1, SERVFAIL, None), "{end:?}");
}

/// Goal: if a client does not read, dotd stops reading from the backend, in bounded memory, and cuts the client in the
/// end; a client that leaves frees its place. Method: a zone of 40 MB; the octets that dotd read from the backend.
/// Covers: A-9, A-22
#[test]
fn a_client_that_does_not_read_stops_the_backend() {
    require!(Root);
    let script = |query: &Received| {
        let whole: Vec<u8> = part(query, false, &[TXT; 100]);
        let begin = std::iter::once(Act::Send(part(query, true, &[SOA])));
        begin.chain(std::iter::repeat_n(Act::Send(whole), 2000)).collect()
    };
    let config = relaying().set("session", "write_timeout", "\"2s\"");
    let (network, _backend, dotd) = scripted(config, script);
    network.server.hold_little();
    let stream = tcp_with_window(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT), 2048);
    let mut stuck = Dot::over(stream, SERVER_V4, &Offer::default()).expect("a session");
    stuck.ask(&Query::new(1, ZONE, AXFR).octets());
    let stats = dotd.counts("it is cut", |stats| stats.counter("session_ends", "slow_reader") == 1);
    let taken = stats.counter("backend", "transferred");
    assert!(taken < 200, "{taken} messages of 21 kB");
    drop(stuck);
    let mut leaving = Dot::connect(&network.client, SERVER_V4);
    leaving.ask(&Query::new(1, ZONE, AXFR).octets());
    assert_eq!(leaving.receive().rcode(), 0);
    leaving.abort();
    eventually("their places are free", || {
        let stats = dotd.stats();
        let is_free =
            stats.counter("backend_outstanding", "outstanding") == 0 && stats.difference() == [0; 3];
        is_free.then_some(())
    });
}

/// Goal: transfers beyond the number that a worker allows are refused with a reason; the end of one makes room. Method:
/// a backend that begins a transfer and never goes on; one worker.
#[test]
fn transfers_at_once_are_bounded() {
    require!(Root);
    let script = |query: &Received| match is_transfer(query) {
        true => vec![Act::Send(part(query, true, &[SOA])), Act::Hold(part(query, false, &[SOA]))],
        false => honest(query),
    };
    let (network, backend, dotd) =
        scripted_with(relaying().set("server", "workers", "1"), "timeout = \"15s\"", script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for id in 0..16 {
        assert_eq!(session.exchange(&Query::new(id, ZONE, AXFR).octets()).rcode(), 0);
    }
    let refused = session.exchange(&Query::new(16, ZONE, AXFR).octets());
    assert_eq!((refused.id, refused.rcode()), (16, SERVFAIL));
    eventually("all are held", || (backend.held() == 16).then_some(()));
    backend.release();
    for _ in 0..16 {
        assert_eq!(session.receive().rcode(), 0);
    }
    session.ask(&Query::new(17, ZONE, AXFR).octets());
    assert_eq!(session.receive().rcode(), 0);
    eventually("the last is held", || (backend.held() == 1).then_some(()));
    backend.release();
    assert_eq!(session.receive().rcode(), 0);
    let stats = dotd.counts("quiet", |stats| stats.difference() == [0; 3]);
    assert_eq!(stats.counter("backend", "full"), 1, "{stats:?}");
}

/// Goal: an IXFR that is a single SOA, which says that there is nothing new (RFC 1995 §4), frees its place and the
/// backend's connection at once. Method: one after the other, five times as many as a worker allows at once, on
/// connections that the backend never closes. Covers: A-21
#[test]
fn single_soa_transfers_free_their_places() {
    require!(Root);
    let script = |query: &Received| vec![Act::Send(part(query, true, &[SOA]))];
    let (network, backend, dotd) = scripted(relaying().set("server", "workers", "1"), script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for id in 0..80 {
        let mut query = header(id, 0x0100, [1, 0, 1, 0]);
        query.extend(question(ZONE, IXFR));
        query.extend(record(SOA));
        let answer = session.exchange(&query);
        assert_eq!((answer.id, answer.rcode()), (id, 0));
    }
    assert_eq!(backend.received().len(), 80);
    dotd.counts("nothing is held", |stats| {
        stats.difference() == [0; 3] && stats.counter("backend_outstanding", "outstanding") == 0
    });
}

/// An UPDATE that adds a record, as RFC 2136 has it.
fn update(id: u16) -> Vec<u8> {
    let mut octets = header(id, 0x2800, [1, 0, 1, 0]);
    octets.extend(question(ZONE, SOA));
    octets.extend(record(TXT));
    octets
}

/// Goal: NOTIFY and UPDATE are refused by default, and pass where the config permits them; an UPDATE is sent once, over
/// a connection, and its answer may lack the zone. Covers: A-19
#[test]
fn notify_and_update_pass_where_they_may() {
    require!(Root);
    let notify = [header(9, 0x2400, [1, 0, 0, 0]), question(ZONE, SOA)].concat();
    let script = |query: &Received| match query.octets[2] >> 3 & 0x0f {
        5 if query.octets[query.octets.len() - 1] == b'x' => {
            let id = u16::from_be_bytes([query.octets[0], query.octets[1]]);
            vec![Act::Send(header(id, 0xa800, [0; 4]))]
        }
        4 => {
            let mut answer = query.octets.clone();
            answer[2] |= 0x80;
            vec![Act::Send(answer)]
        }
        _ => vec![Act::Close],
    };
    let allowed = Config::new().set("dns", "notify", "true").set("dns", "update", "true");
    for (config, rcode) in [(allowed, 0), (Config::new(), 5)] {
        let (network, backend, dotd) = scripted(config, script);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        let answer = session.exchange(&update(8));
        assert_eq!((answer.id, answer.rcode(), answer.flags >> 11 & 0x0f), (8, rcode, 5));
        let answer = session.exchange(&notify);
        assert_eq!((answer.id, answer.rcode(), answer.flags >> 11 & 0x0f), (9, rcode, 4));
        let received = backend.received();
        let over: Vec<bool> = received.iter().map(|query| query.is_tcp).collect();
        assert_eq!(over, if rcode == 0 { vec![true, false] } else { vec![] }, "UPDATE over TCP");
        if rcode == 0 {
            assert_eq!(received[0].octets[2..], update(8)[2..], "octet for octet");
        }
        assert_eq!(dotd.stats().difference(), [0; 3]);
    }
}

/// Goal: an UPDATE whose connection closes is not sent again to any backend, and fails. Method: two backends that close
/// at once.
#[test]
fn an_update_is_never_asked_twice() {
    require!(Root);
    let network = Network::new();
    let close = |_: &Received| vec![Act::Close];
    let backends = [(); 2].map(|()| dot_tests::harness::scripted::Scripted::start(&network, close));
    let config = Config::new().set("dns", "update", "true");
    let config = backends.iter().fold(config, |config, backend| config.backend(backend.address));
    let dotd = Server::start(&network, &config);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&update(8)).rcode(), SERVFAIL);
    std::thread::sleep(Duration::from_millis(700));
    let asked: Vec<SocketAddr> =
        backends.iter().flat_map(|backend| backend.received()).map(|query| query.from).collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    session.half_close();
    assert_eq!(session.end(), End::CloseNotify);
    assert_eq!(dotd.stats().difference(), [0; 3]);
}
