//! Too many messages, messages that are too large, and clients that leave in the middle.
//!
//! Before: `harness::scene`. After: clients get the answers that they are owed, memory is bounded, an innocent client
//! is served.

use std::{
    collections::HashSet,
    fs::{self, File},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use dot_tests::{
    harness::{
        clients::DOT_PORT,
        config::Config,
        dot::{Dot, End},
        eventually,
        message::{A, OPTION_PADDING, Opt, Query, framed, header, reply_to, www},
        netns::{Network, SERVER_V4},
        process::bounded,
        response::Message,
        scene::{HONEST, assert_served, honest, scripted, scripted_with},
        scripted::{Act, Received},
    },
    require,
};

/// Goal: 65,536 queries in one stream, every ID once, are all answered: queries beyond the cap wait in the socket (RFC
/// 7766 §6.2.1.1). Method: OpenSSL reads them from a file and writes the responses to another, so that reading and
/// writing go on side by side; IDs counted, an innocent client before and after. Covers: C-17, A-33
#[test]
fn a_stream_of_65536_queries_is_answered() {
    require!(Root, Command("openssl"));
    let config = Config::new().xdp("off").set("session", "idle_timeout", "\"2s\"");
    let (network, _backend, dotd) = scripted(config, honest);
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    assert_served(&mut innocent);
    let queries: Vec<u8> = (0..=u16::MAX).flat_map(|id| framed(&www(id))).collect();
    let (asked, answered) = (dotd.write("queries", &queries), dotd.write("responses", ""));
    let address = format!("{SERVER_V4}:{DOT_PORT}");
    let mut command = bounded("openssl");
    command.args(["s_client", "-connect", &*address, "-quiet", "-ign_eof"]).stderr(Stdio::null());
    command.stdin(File::open(asked).expect("written")).stdout(File::create(&answered).expect("ours"));
    // Ends when dotd does, after the idle timeout.
    let _ = network.client.spawn(command).wait().expect("our own child");
    let octets = fs::read(answered).expect("written");
    let mut seen = vec![false; 1 << 16];
    let mut rest = &octets[..];
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (message, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)));
        let answer = Message::parse(message).expect("whole");
        assert!(answer.rdata(A) == [HONEST] && !seen[usize::from(answer.id)], "{answer:?}");
        seen[usize::from(answer.id)] = true;
        rest = behind;
    }
    assert_eq!(seen.iter().filter(|is_there| **is_there).count(), 1 << 16);
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    assert_served(&mut innocent);
    dotd.counts("all is accounted for", |stats| stats.difference() == [0; 3]);
}

/// Goal: after a client asks much and resets at once no state of it is left. Method: 5,000 queries, then RST, ten
/// times; slots, sessions and sums. Covers: C-23, A-34, A-37
#[test]
fn clients_that_reset_after_asking_leave_nothing() {
    require!(Root);
    let (network, _backend, dotd) = scripted(Config::new(), honest);
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    for _ in 0..10 {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        // In parts that rustls takes at once.
        let queries: Vec<Vec<u8>> = (0..1000).map(www).collect();
        let _ = (0..5).all(|_| session.try_ask_all(&queries));
        session.abort();
    }
    assert_served(&mut innocent);
    dotd.counts("nothing is left", |stats| {
        let is_empty = stats.counter("backend_outstanding", "outstanding") == 0;
        is_empty && stats.counter("connections_open", "open") == 1 && stats.difference() == [0; 3]
    });
}

/// Goal: a client's queries at the backend are bounded, so that a backend that answers in pulses (DNSBomb) has little
/// to release at once, and other clients do not wait for that. Method: the backend holds one name; the client asks for
/// it a thousand times, `in_flight_max` queries reach the backend, a second client is served meanwhile; then the
/// backend releases all, and all are answered.
#[test]
fn what_is_held_for_a_client_is_bounded() {
    require!(Root);
    let is_holding = Arc::new(AtomicBool::new(true));
    let holds = Arc::clone(&is_holding);
    let script = move |query: &Received| {
        let reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
        vec![if is_slow(query) && holds.load(Relaxed) { Act::Hold(reply) } else { Act::Send(reply) }]
    };
    let config = Config::new().set("session", "in_flight_max", "64");
    let (network, backend, _dotd) = scripted_with(config, "timeout = \"20s\"", script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask_all(&(0..1000).map(|id| Query::new(id, "slow.dotd.test", A).octets()).collect::<Vec<_>>());
    eventually("the backend holds what may be in flight", || (backend.held() >= 64).then_some(()));
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    (0..20).for_each(|_| assert_served(&mut innocent));
    // A datagram that was sent again has the same port and ID, and counts as one query in flight.
    let received = backend.received();
    let slow = received.iter().filter(|query| is_slow(query));
    let in_flight: HashSet<_> = slow.map(|query| (query.from, query.octets[..2].to_vec())).collect();
    assert_eq!(in_flight.len(), 64);
    is_holding.store(false, Relaxed);
    backend.release();
    (0..1000).for_each(|_| assert_eq!(session.receive().rdata(A), [HONEST]));
}

fn is_slow(query: &Received) -> bool {
    Message::parse(&query.octets).is_some_and(|query| query.qname().starts_with("slow"))
}

/// Goal: many tiny options, and one as large as a message, cost linear time and are answered; padding is stripped,
/// other options pass. Method: 16,000 empty options; 65,000 octets of padding; the octets that the backend received.
///
#[test]
fn options_may_be_many_or_large() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    let tiny = Opt { options: vec![(65_001, Vec::new()); 16_000], ..Opt::default() };
    let large = Opt::with(OPTION_PADDING, &vec![0; 65_000]);
    let pairs = (0..16_000).map(|index| (if index % 2 == 0 { OPTION_PADDING } else { 65_001 }, Vec::new()));
    let mixed = Opt { options: pairs.collect(), ..Opt::default() };
    for (opt, kept) in [(tiny, 16_000), (large, 0), (mixed, 8_000)] {
        let query = Query::new(1, "www.dotd.test", A).opt(opt).octets();
        assert!(query.len() > 60_000);
        assert_eq!(session.exchange(&query).rdata(A), [HONEST]);
        assert_served(&mut innocent);
        // The innocent client's queries have no OPT.
        let received = backend.received();
        let asked = received.iter().rev().filter_map(|query| Message::parse(&query.octets));
        let last = asked.into_iter().find(|query| query.opt_count() == 1).expect("it was asked");
        assert_eq!(last.options().len(), kept);
    }
}

/// Goal: a length prefix of 65,535 allocates nothing. Method: memory of 300 sessions, then each sends that
/// prefix and one octet: far less than 64 KiB more for each.
#[test]
fn a_length_prefix_allocates_nothing() {
    require!(Root);
    const SESSIONS: u64 = 300;
    let config = Config::new().xdp("off").set("session", "connections_per_prefix_max", "1000");
    let (network, _backend, dotd) = scripted(config, honest);
    let mut sessions: Vec<Dot> = (0..SESSIONS).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
    sessions.iter_mut().for_each(assert_served);
    let before = dotd.memory_kib("VmRSS");
    sessions.iter_mut().for_each(|session| session.send(&[0xff, 0xff, 7]));
    // A client that is served after them proves that all were read.
    assert_served(&mut Dot::connect(&network.client, SERVER_V4));
    let grown = dotd.memory_kib("VmRSS").saturating_sub(before);
    assert!(grown < SESSIONS * 16, "{grown} KiB for {SESSIONS} prefixes");
}

/// Goal: an urgent octet (RFC 9293 §3.8.5) is no part of the stream and harms at worst its sender: the kernel ends a
/// read at the mark, and the octets behind it are read with the client's next ones. Method: one before each query of
/// ten sessions, a FIN behind it; each is answered, and a client beside them.
#[test]
fn an_urgent_octet_is_nothing() {
    require!(Root);
    let (network, _backend, dotd) = scripted(Config::new(), honest);
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    for id in 0..10 {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        session.send_urgent();
        session.ask(&www(id));
        session.half_close();
        assert_eq!(session.receive().rdata(A), [HONEST]);
        assert_eq!(session.end(), End::CloseNotify);
        assert_served(&mut innocent);
    }
    dotd.counts("only one is left", |stats| stats.counter("connections_open", "open") == 1);
}

/// Goal: a session with only messages that are no queries ends at a bound, in order, with its answers; a client that
/// also sends queries goes on. Method: FORMERR by the hundred, and responses, which get no answer; then as many of them
/// with queries between.
#[test]
fn endless_malformed_messages_end_their_session() {
    require!(Root);
    const BOUND: usize = 256;
    let (network, _backend, dotd) = scripted(Config::new(), honest);
    let malformed = |id: u16| header(id, 0x0100, [0; 4]);
    let response = |id: u16| header(id, 0x8100, [0; 4]);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask_all(&(0..BOUND as u16 + 50).map(malformed).collect::<Vec<_>>());
    for id in 0..BOUND as u16 {
        let answer = session.receive();
        assert_eq!((answer.id, answer.rcode()), (id, 1));
    }
    assert_eq!(session.end(), End::CloseNotify);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask_all(&(0..BOUND as u16).map(response).collect::<Vec<_>>());
    assert_eq!(session.end(), End::CloseNotify);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for id in 0..2 * BOUND {
        let odd = if id % 2 == 0 { malformed(1) } else { response(2) };
        session.ask_all(&[odd, www(3)]);
        let answers = if id % 2 == 0 { 2 } else { 1 };
        (0..answers).for_each(|_| drop(session.receive()));
        session.ask(&www(4));
        assert_eq!(session.receive().rdata(A), [HONEST]);
    }
    dotd.counts("both ended so", |stats| {
        stats.difference() == [0; 3] && stats.counter("session_ends", "malformed") == 2
    });
}

/// Goal: the three sums of the ledger hold after all kinds of messages together. Method: sessions whose messages are
/// answered, dropped, refused and malformed. Covers, C-29
#[test]
fn every_message_is_accounted_for() {
    require!(Root);
    let (network, _backend, dotd) = scripted(Config::new(), honest);
    sessions_of_all_kinds(&network);
    let stats = dotd.counts("all is accounted for", |stats| stats.difference() == [0; 3]);
    assert!(
        stats.counter("queries", "dropped_is_response") >= 1 && stats.counter("queries", "responded") >= 1
    );
}

fn sessions_of_all_kinds(network: &Network) {
    let mut response = www(1);
    response[2] |= 0x80;
    for last in [www(1), response, www(1)[..12].to_vec(), vec![0; 5], Vec::new()] {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        assert_eq!(session.exchange(&www(9)).rdata(A), [HONEST]);
        session.ask(&last);
        drop(session);
    }
}
