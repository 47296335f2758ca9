//! Answers that clients do not read: how much memory they take, which sessions end for it, and that a reader at the
//! promised pace is served.
//!
//! Before: a backend whose answers are as long as answers can be. After: the octets that are owed stay within their
//! budgets, the process stays small, and its memory is freed.

use std::{
    io::Read,
    thread,
    time::{Duration, Instant},
};

use dot_tests::{
    harness::{
        DEADLINE,
        clients::tcp_with_window,
        config::Config,
        dot::Dot,
        eventually,
        message::{Query, TXT, reply_to, www},
        netns::{Network, SERVER_V4, SERVER_V6},
        offer::Offer,
        scene::{HONEST, scripted_with},
        scripted::{Act, Received, Scripted},
        server::Server,
        stats::Stats,
    },
    require,
};

/// The number of sessions of one client that read nothing.
const SESSIONS: usize = 60;
/// The number of long answers that each of them asks for.
const ANSWERS: usize = 64;
const MIB: u64 = 1 << 20;

/// A backend whose answers to TXT have 65,000 octets, and other types one address.
fn long(query: &Received) -> Vec<Act> {
    let is_long = query.octets.ends_with(&[0, 16, 0, 1]);
    let answer = match is_long {
        true => reply_to(&query.octets, TXT, &[vec![0; 65_000]]),
        false => reply_to(&query.octets, 1, &[HONEST.to_vec()]),
    };
    vec![Act::Send(answer)]
}

fn scene(config: Config) -> (Network, Scripted, Server) {
    scripted_with(config, "transport = \"tcp\"\ntimeout = \"30s\"", long)
}

/// That many queries for long answers.
fn questions(count: usize) -> Vec<Vec<u8>> {
    vec![Query::new(1, "long.dotd.test", TXT).octets(); count]
}

/// A session that asks for much and whose kernel accepts little.
fn greedy(network: &Network) -> Dot {
    let stream = tcp_with_window(&network.client, (SERVER_V4, 853).into(), 2048);
    let mut session = Dot::over(stream, SERVER_V4, &Offer::default()).expect("a session");
    session.ask_all(&questions(ANSWERS));
    session
}

/// Waits until no query is in flight, and answers are owed.
fn is_settled(stats: &Stats) -> bool {
    stats.counter("backend_outstanding", "outstanding") == 0
        && stats.counter("backend", "stream_received") > 100
}

fn owed(stats: &Stats) -> u64 {
    stats.counter("owed_octets", "octets")
}

/// Goal: sessions that ask for the longest answers and read nothing take at most their prefix's budget, and not 4 MiB
/// each; answers beyond it are SERVFAIL, another client is served, and the memory is freed when they are gone. Method:
/// 60 sessions of one client, 64 such answers each; the gauge, and the process's size as Linux says it. Covers: A-265,
///
#[test]
fn clients_that_take_nothing_are_bounded() {
    require!(Root);
    let (network, _backend, dotd) = scene(Config::new().set("session", "write_timeout", "\"1m\""));
    let (before_kib, anonymous_kib) = (dotd.memory_kib("VmRSS"), dotd.memory_kib("RssAnon"));
    let sessions: Vec<Dot> = (0..SESSIONS).map(|_| greedy(&network)).collect();
    let stats = dotd.counts("a budget is spent and nothing is asked any more", |stats| {
        is_settled(stats) && stats.counter("owed", "not_kept") > 0
    });
    let most_kib = dotd.memory_kib("VmHWM") - before_kib;
    assert!(most_kib < 128 * 1024, "{most_kib} KiB for {SESSIONS} sessions that take nothing");
    // Two workers, each with a prefix's budget; the first answer of a session is kept beyond it.
    assert!((4 * MIB..=64 * MIB).contains(&owed(&stats)), "{} octets", owed(&stats));
    let mut innocent = Dot::connect(&network.client, SERVER_V6);
    innocent.ask_all(&questions(4));
    for _ in 0..4 {
        assert_eq!(innocent.receive().rcode(), 0, "its own prefix owes nothing");
    }
    drop(sessions);
    let stats = dotd.counts("they are gone, and nothing is unaccounted for", |stats| {
        let open = stats.counter("connections_open", "open");
        (open, owed(stats), stats.difference()) == (1, 0, [0; 3])
    });
    assert!(stats.counter("owed", "lost_octets") > 0, "what did not arrive is said");
    // This excludes the pages of the program itself, which are read in as it runs. The allocator returns free memory
    // when its thread allocates again, as for a new connection.
    eventually("the memory comes back", || {
        let _ = Dot::connect(&network.client, SERVER_V6).exchange(&www(1));
        (dotd.memory_kib("RssAnon") < anonymous_kib + 32 * 1024).then_some(())
    });
}

/// Goal: where a worker owes more than it may, the session that is owed most is cut, without strikes, and others are not.
/// Method: a worker that may owe 1 MiB; a modest session that is owed one long answer, and then greedy ones, each of which
/// alone is within its budget.
#[test]
fn the_most_owed_session_is_cut() {
    require!(Root);
    let config = ["owed_octets_max", "owed_octets_per_prefix_max", "owed_octets_per_worker_max"]
        .into_iter()
        .fold(Config::new(), |config, key| config.set("session", key, "1_048_576"));
    let config = config.set("server", "workers", "1").set("session", "write_timeout", "\"1m\"");
    let (network, _backend, dotd) = scene(config);
    let mut sessions = Vec::new();
    let mut modest = {
        let stream = tcp_with_window(&network.client, (SERVER_V4, 853).into(), 2048);
        Dot::over(stream, SERVER_V4, &Offer::default()).expect("a session")
    };
    modest.ask_all(&questions(1));
    dotd.counts("it is owed something", |stats| owed(stats) > 0);
    // Each first answer is kept, so thirty of them are more than the worker may owe.
    while dotd.stats().counter("session_ends", "owed_most") == 0 {
        assert!(sessions.len() < 100, "no session is cut");
        sessions.push(greedy(&network));
    }
    let stats = dotd.counts("they are settled", is_settled);
    assert!(owed(&stats) <= 2 * MIB, "{} octets", owed(&stats));
    assert_eq!(modest.receive().rcode(), 0, "who is owed little is not cut");
    assert_eq!(stats.counter("session_ends", "slow_reader"), 0);
}

/// Goal: a client that reads steadily is not cut, however much it is owed: only its pace counts, whatever its kernel's
/// buffer. Method: 4 MiB of answers, read at 256 KiB a second, under a `write_timeout` of two seconds, during which the
/// kernel's default send buffer would not show what the client reads.
#[test]
fn a_steady_reader_gets_everything() {
    require!(Root);
    let (network, _backend, dotd) = scene(Config::new().set("session", "write_timeout", "\"2s\""));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask_all(&questions(ANSWERS));
    let (mut chunk, mut taken) = (vec![0; 32 * 1024], 0);
    let start = Instant::now();
    while taken < ANSWERS * 65_000 - chunk.len() {
        assert!(start.elapsed() < 4 * DEADLINE, "{taken} octets");
        let octets = session.tcp().read(&mut chunk).expect("it is not cut");
        assert_ne!(octets, 0, "it is not closed");
        taken += octets;
        thread::sleep(Duration::from_millis(125) * u32::try_from(octets).expect("few") / (32 * 1024));
    }
    let stats = dotd.stats();
    assert_eq!((stats.sum("session_ends", ""), stats.counter("owed", "not_kept")), (0, 0));
}
