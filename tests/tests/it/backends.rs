//! Backends over connections: pipelining, which responses dotd accepts, and what happens to queries when a connection
//! closes.
//!
//! Before: `transport = "tcp"` and a backend that answers late, lies, closes, or sends no DNS at all.
//! After: each query has exactly one answer, and few connections carried them.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use dot_tests::{
    harness::{
        backends::{BIG_OCTETS, Backend, dnsperf_queries},
        clients::dnsperf,
        config::Config,
        dot::Dot,
        eventually,
        message::{
            A, AAAA, NETWORK_ERROR, OPTION_EDE, OPTION_PADDING, Opt, Query, SERVFAIL, TXT, header, question,
            reply_to,
        },
        netns::{Network, SERVER_V4, SERVER_V6},
        response::Message,
        scene::{HONEST, honest, scripted_with},
        scripted::{Act, Mood, Received, Scripted},
        server::Server,
    },
    require,
};

const TCP: &str = "transport = \"tcp\"";

fn named(id: u16, qname: &str) -> Vec<u8> {
    Query::new(id, qname, A).opt(Opt::default()).octets()
}

fn host(id: u16) -> Vec<u8> {
    named(id, &format!("host-{id}.dotd.test"))
}

fn truth(query: &Received) -> Act {
    Act::Send(reply_to(&query.octets, A, &[HONEST.to_vec()]))
}

fn qname(query: &Received) -> String {
    Message::parse(&query.octets).expect("dotd sends whole messages").qname()
}

fn over_tcp(
    script: impl Fn(&Received) -> Vec<Act> + Send + Sync + 'static,
) -> (Network, Scripted, Server, Dot) {
    let (network, backend, dotd) = scripted_with(Config::new(), TCP, script);
    let session = Dot::connect(&network.client, SERVER_V4);
    (network, backend, dotd, session)
}

/// The number of different connections over which queries came.
fn connections(backend: &Scripted) -> usize {
    backend.received().iter().map(|query| query.from).collect::<HashSet<SocketAddr>>().len()
}

fn assert_unreachable(answer: &Message) {
    assert_eq!(answer.rcode(), SERVFAIL, "{answer:?}");
    let ede = answer.option(OPTION_EDE).expect("an EDE");
    assert_eq!(ede[..2], NETWORK_ERROR);
}

/// Goal: many queries share few connections and few writes, and every one is asked over TCP once (RFC 7766
/// §6.2.1, §6.2.2). Method: ten rounds of 50 queries in one write; ports and counters.
#[test]
fn queries_share_connections_and_writes() {
    require!(Root);
    let (_network, backend, dotd, mut session) = over_tcp(honest);
    for _ in 0..10 {
        session.ask_all(&(0..50).map(host).collect::<Vec<_>>());
        let mut ids: Vec<u16> = (0..50).map(|_| session.receive().id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..50).collect::<Vec<_>>());
    }
    let received = backend.received();
    assert!(received.len() == 500 && received.iter().all(|query| query.is_tcp));
    assert!((1..=2).contains(&connections(&backend)), "{} connections", connections(&backend));
    let stats = dotd.stats();
    let [sent, writes, unmatched] =
        ["stream_sent", "stream_writes", "unmatched"].map(|label| stats.counter("backend", label));
    assert_eq!((sent, unmatched), (500, 0), "{stats:?}");
    assert!(writes * 5 <= sent, "{writes} writes for {sent} queries");
    assert_eq!(stats.difference(), [0; 3]);
}

/// Goal: a late response delays no other query (RFC 7766 §7). Method: the answer to the first of two queries is held
/// until the second one has arrived.
#[test]
fn responses_come_out_of_order() {
    require!(Root);
    let script = |query: &Received| match qname(query).as_str() {
        "host-1.dotd.test" => vec![Act::Hold(reply_to(&query.octets, A, &[HONEST.to_vec()]))],
        _ => vec![truth(query)],
    };
    let (_network, backend, _dotd, mut session) = over_tcp(script);
    session.ask_all(&[host(1), host(2)]);
    assert_eq!(session.receive().id, 2);
    eventually("the first is held", || (backend.held() == 1).then_some(()));
    backend.release();
    let answer = session.receive();
    assert_eq!((answer.id, answer.rdata(A)), (1, vec![&HONEST[..]]));
}

/// Goal: a message with the wrong ID, name, type or no question, and a frame that answers no query, is dropped and
/// counted, and dotd goes on waiting for the true response. Method: six false responses and the true one twice, for
/// each of ten queries.
#[test]
fn lies_over_a_connection_are_dropped() {
    require!(Root);
    let script = |query: &Received| {
        let asked = Message::parse(&query.octets).expect("whole");
        let mut wrong_id = reply_to(&query.octets, A, &[vec![203, 0, 113, 66]]);
        wrong_id[1] ^= 1;
        let mut no_response = reply_to(&query.octets, A, &[]);
        no_response[2] &= 0x7f;
        let flags = [asked.id, 0x8180];
        let with = |question: Vec<u8>| [header(flags[0], flags[1], [1, 0, 0, 0]), question].concat();
        let lies = [
            wrong_id,
            no_response,
            with(question("other.dotd.test", A)),
            with(question(&asked.qname(), AAAA)),
            header(asked.id, 0x8180, [1, 0, 0, 0]),
            vec![0xff],
        ];
        lies.into_iter().map(Act::Send).chain([truth(query), truth(query)]).collect()
    };
    let (_network, backend, dotd, mut session) = over_tcp(script);
    for id in 0..10 {
        assert_eq!(session.exchange(&host(id)).rdata(A), [HONEST]);
    }
    dotd.counts("each is counted", |stats| stats.counter("backend", "unmatched") == 70);
    assert_eq!((connections(&backend), backend.received().len()), (1, 10));
}

/// Goal: an invalid frame closes the connection, and the query is asked again over another one. Method: a zero length
/// prefix for the first query of each of three names.
#[test]
fn broken_framing_closes_the_connection() {
    require!(Root);
    let seen = Mutex::new(HashSet::new());
    let script = move |query: &Received| match seen.lock().expect("no panic").insert(qname(query)) {
        true => vec![Act::SendRaw(vec![0, 0, 1, 2, 3])],
        false => vec![truth(query)],
    };
    let (_network, backend, dotd, mut session) = over_tcp(script);
    for id in 0..3 {
        assert_eq!(session.exchange(&host(id)).rdata(A), [HONEST]);
    }
    let stats = dotd.stats();
    assert_eq!(["stream_broken", "retried"].map(|label| stats.counter("backend", label)), [3, 3]);
    assert_eq!((backend.received().len(), stats.difference()), (6, [0; 3]));
}

/// Goal: it is no error if the backend closes a connection on which no query waits; the next query opens another.
/// Method: it closes after each answer; twenty queries in turn.
#[test]
fn an_idle_close_is_no_error() {
    require!(Root);
    let script = |query: &Received| vec![truth(query), Act::Close];
    let (_network, backend, dotd, mut session) = over_tcp(script);
    for id in 0..20 {
        assert_eq!(session.exchange(&host(id)).rdata(A), [HONEST]);
    }
    let stats = dotd.stats();
    assert_eq!(["unreachable", "timeout"].map(|label| stats.counter("backend", label)), [0, 0], "{stats:?}");
    assert_eq!(connections(&backend), 20);
}

/// Goal: queries in flight on a connection that closes are asked once more, over four connections at most, and answered
/// (RFC 7766 §6.2.4). Method: 30 queries; the first connection closes upon the tenth, nothing answered. Covers: A-64,
/// A-65, C-210
#[test]
fn queries_of_a_closed_connection_are_asked_once_more() {
    require!(Root);
    let count = AtomicUsize::new(0);
    let script = move |query: &Received| match count.fetch_add(1, Relaxed) {
        0..9 => Vec::new(),
        9 => vec![Act::Close],
        _ => vec![truth(query)],
    };
    let (_network, backend, dotd, mut session) = over_tcp(script);
    session.ask_all(&(0..30).map(host).collect::<Vec<_>>());
    let mut ids = HashSet::new();
    for _ in 0..30 {
        let answer = session.receive();
        assert_eq!(answer.rdata(A), [HONEST], "{answer:?}");
        ids.insert(answer.id);
    }
    assert_eq!(ids.len(), 30);
    let stats = dotd.stats();
    assert_eq!((stats.counter("backend", "retried"), stats.difference()), (30, [0; 3]), "{stats:?}");
    assert!(session.is_quiet() && (2..=5).contains(&connections(&backend)), "{}", connections(&backend));
}

/// Goal: a query on which each connection closes is not asked without end: its client gets SERVFAIL with EDE 23 after
/// the second. Method: the backend closes upon every query.
#[test]
fn a_query_is_retried_once() {
    require!(Root);
    let (_network, backend, dotd, mut session) = over_tcp(|_| vec![Act::Close]);
    assert_unreachable(&session.exchange(&host(1)));
    assert_eq!(backend.received().len(), 2);
    let stats = dotd.stats();
    assert_eq!((stats.counter("backend", "unreachable"), stats.difference()), (1, [0; 3]));
}

/// Goal: a backend that accepts and closes at once causes few connections, and SERVFAIL; when it serves again, so does
/// dotd. Method: 200 queries in turn while it closes at once; connections are bounded by the back-off, not by the
/// queries.
#[test]
fn accept_then_close_backs_off() {
    require!(Root);
    let (_network, backend, _dotd, mut session) = over_tcp(honest);
    assert_eq!(session.exchange(&host(1)).rdata(A), [HONEST]);
    backend.be(Mood::Curt);
    assert_eq!(session.exchange(&host(2)).rdata(A), [HONEST], "a connection that stands serves on");
    let (_network, backend, dotd, mut session) = over_tcp(honest);
    backend.be(Mood::Curt);
    for id in 0..200 {
        assert_unreachable(&session.exchange(&host(id)));
    }
    assert!(backend.accepted() < 100, "{} connections for 200 queries", backend.accepted());
    backend.be(Mood::Willing);
    eventually("it is served again", || (session.exchange(&host(1)).rdata(A) == [HONEST]).then_some(()));
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: more queries than all connections may hold, all unanswered, have no lasting effect: the next query is sent.
/// Method: 5,000 queries of one session to a backend that does not answer, each SERVFAIL; then it answers again.
///
#[test]
fn connections_that_were_full_of_silence_serve_again() {
    require!(Root);
    let config = Config::new().set("session", "in_flight_max", "10000");
    let keys = format!("{TCP}\ntimeout = \"1s\"");
    let (network, backend, dotd) = scripted_with(config, &keys, honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    backend.be(Mood::Deaf);
    let began = Instant::now();
    for part in (0..5000).collect::<Vec<u16>>().chunks(500) {
        session.ask_all(&part.iter().map(|id| host(*id)).collect::<Vec<_>>());
    }
    for _ in 0..5000 {
        assert_eq!(session.receive().rcode(), SERVFAIL);
    }
    // Eight at a time, and four for queries that are asked over a second one too. Each is closed when no query waits on
    // it any more, which is after a second.
    let allowed = 12 * (2 + began.elapsed().as_secs() as usize);
    assert!(connections(&backend) <= allowed, "{} connections, {allowed} allowed", connections(&backend));
    backend.be(Mood::Willing);
    assert_eq!(session.exchange(&host(1)).rdata(A), [HONEST]);
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: TC=1 over TCP is the response: it is passed on unchanged, and the query is not asked again. Method: a backend
/// that truncates always.
#[test]
fn truncation_over_tcp_passes() {
    require!(Root);
    let script = |query: &Received| {
        let mut cut = reply_to(&query.octets, A, &[]);
        cut[2] |= 0x02;
        vec![Act::Send(cut)]
    };
    let (_network, backend, _dotd, mut session) = over_tcp(script);
    let answer = session.exchange(&host(1));
    assert!(answer.is_truncated() && answer.rcode() == 0, "{answer:?}");
    assert_eq!(backend.received().len(), 1);
}

/// Goal: the largest message passes, although the client asked for padding, for which there is no room. Method: 65,535
/// octets over TCP, to a padded query, next to a small one.
#[test]
fn the_largest_message_passes() {
    require!(Root);
    let script = |query: &Received| {
        let bare = reply_to(&query.octets, TXT, &[Vec::new()]).len();
        let rdata = match qname(query).as_str() {
            "big.dotd.test" => vec![0; 65_535 - bare],
            _ => vec![1, b'x'],
        };
        vec![Act::Send(reply_to(&query.octets, TXT, &[rdata]))]
    };
    let (_network, _backend, _dotd, mut session) = over_tcp(script);
    for (id, name) in [(1, "small.dotd.test"), (2, "big.dotd.test"), (3, "small.dotd.test")] {
        let query = Query::new(id, name, TXT).opt(Opt::with(OPTION_PADDING, &[0; 8]));
        let answer = session.exchange(&query.octets());
        assert_eq!((answer.id, answer.rcode()), (id, 0));
        assert!(name.starts_with("small") || answer.octets == 65_535, "{} octets", answer.octets);
    }
}

/// Goal: truncated datagrams are asked again over the same few connections, not one each.
/// Method: a UDP backend that truncates; 100 queries in one write. Covers: C-51
#[test]
fn truncated_datagrams_share_connections() {
    require!(Root);
    let script = |query: &Received| {
        let mut cut = reply_to(&query.octets, A, &[]);
        cut[2] |= 0x02;
        vec![if query.is_tcp { truth(query) } else { Act::Send(cut) }]
    };
    let (network, backend, dotd) = scripted_with(Config::new(), "", script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask_all(&(0..100).map(host).collect::<Vec<_>>());
    for _ in 0..100 {
        assert_eq!(session.receive().rdata(A), [HONEST]);
    }
    let ports: HashSet<SocketAddr> =
        backend.received().iter().filter(|query| query.is_tcp).map(|query| query.from).collect();
    assert!(ports.len() <= 2, "{ports:?}");
    let stats = dotd.stats();
    let [truncated, sent] = ["truncated", "stream_sent"].map(|label| stats.counter("backend", label));
    assert_eq!((truncated, sent), (100, 100));
}

/// Goal: 10,000 queries over TCP to NSD, none lost, each counted once. Method: dnsperf over TLS on ten connections, v4
/// then v6; then one answer too large for a datagram.
#[test]
fn nsd_over_tcp_loses_none_of_10000() {
    require!(Root, Command("dnsperf"), Command("nsd"));
    let network = Network::new();
    let nsd = Backend::nsd(&network, 5300);
    let dotd = Server::start(&network, &Config::new().backend_with(nsd.address, TCP));
    let queries = dotd.write("queries", dnsperf_queries(5000));
    for address in [SERVER_V4, SERVER_V6] {
        let said = dnsperf(&network.client, address, &queries, "-c 5 -q 200 -t 10");
        assert_eq!(said.number_after("Queries completed:"), 5000, "{}", said.text);
        assert_eq!(said.number_after("Queries lost:"), 0, "{}", said.text);
    }
    let stats =
        dotd.counts("all sessions have ended", |stats| stats.counter("connections_open", "open") == 0);
    assert_eq!(stats.counter("queries", "forwarded"), 10_000);
    assert_eq!(stats.counter("responses", "SERVFAIL"), 0, "{stats:?}");
    let [sent, received, datagrams] =
        ["stream_sent", "stream_received", "sent"].map(|label| stats.counter("backend", label));
    assert_eq!((sent, received, datagrams), (10_000, 10_000, 0), "{stats:?}");
    assert_eq!(stats.difference(), [0; 3], "{stats:?}");
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let big = session.exchange(&Query::new(1, "big.dotd.test", TXT).octets());
    assert!(big.octets > BIG_OCTETS && !big.is_truncated(), "{} octets", big.octets);
}
