//! Clients that hold resources: silent before the handshake or half-way through it, or readers that do not read.
//!
//! Before: short deadlines, the embedded zone's large record. After: each was cut by its own rule, its resources are
//! free, and an innocent client was served meanwhile.

use std::{
    fs,
    io::Read,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use dot_tests::{
    harness::{
        DEADLINE,
        clients::{read_to_close, tcp, tcp_with_window},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query, TXT, www},
        netns::{Namespace, Network, SERVER_V4, SERVER_V6},
        offer::Offer,
        scene::{embedded, honest, scripted},
        server::Server,
        shake::{Shake, records},
        uninterrupted,
    },
    require,
};

/// Message type of a ServerHello.
const SERVER_HELLO: u8 = 2;
/// The embedded zone's record for its own name.
const ZONE: [u8; 4] = [192, 0, 2, 53];

fn assert_served(innocent: &mut Dot) {
    assert_eq!(innocent.exchange(&Query::new(1, "dotd.test", A).octets()).rdata(A), [ZONE]);
}

/// That many queries for 5,000 octets each.
fn large(count: usize) -> Vec<Vec<u8>> {
    vec![Query::new(1, "big.dotd.test", TXT).octets(); count]
}

/// Goal: a socket without a handshake counts under the caps, so that silent clients cannot fill the process, and ends
/// at the deadline. Method: ten silent connections, as many as a prefix may have; the next is refused, another prefix
/// is served; after the deadline the first prefix is served again.
#[test]
fn silent_connections_count() {
    require!(Root);
    let config = Config::new().xdp("off").set("session", "connections_per_prefix_max", "10");
    let (network, dotd) = embedded(&config.set("session", "handshake_timeout", "\"3s\""));
    let silent: Vec<TcpStream> = (0..10).map(|_| tcp(&network.client, (SERVER_V4, 853).into())).collect();
    dotd.counts("all are open", |stats| stats.counter("connections_open", "open") == 10);
    assert!(read_to_close(&mut tcp(&network.client, (SERVER_V4, 853).into())).is_empty());
    assert_eq!(dotd.stats().counter("connections", "refused_prefix_cap"), 1);
    let mut innocent = Dot::connect(&network.client, SERVER_V6);
    assert_served(&mut innocent);
    dotd.counts("all are cut", |stats| stats.counter("handshakes", "failed_timeout") == 10);
    assert_served(&mut Dot::connect(&network.client, SERVER_V4));
    assert_served(&mut innocent);
    drop(silent);
}

/// Goal: a client that stops after its hello costs one signature: dotd sends one flight, and nothing more until the
/// deadline, also after a second hello. In TLS 1.2 the same is true for a client that has sent everything except its
/// Finished. Method: rustls's own flights, truncated; the records that dotd sends.
#[test]
fn a_hello_is_worth_one_flight() {
    require!(Root);
    let config = Config::new().xdp("off").set("session", "handshake_timeout", "\"2s\"");
    let (network, dotd) = embedded(&config);
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    let flights = |octets: &[u8]| {
        let is_hello = |(kind, content): &(u8, &[u8])| *kind == 22 && content.first() == Some(&SERVER_HELLO);
        records(octets).iter().filter(|record| is_hello(record)).count()
    };
    for is_tls12 in [false, true] {
        let offer = Offer { is_tls12, ..Offer::default() };
        let mut once = Shake::new(&network.client, SERVER_V4, &offer);
        let hello = once.flight();
        once.send([&*hello]).expect("open");
        assert_eq!(flights(&read_to_close(&mut once.stream)), 1);
        let mut twice = Shake::new(&network.client, SERVER_V4, &offer);
        let hello = twice.flight().repeat(2);
        twice.send([&*hello]).expect("open");
        assert!(flights(&read_to_close(&mut twice.stream)) <= 1);
        assert_served(&mut innocent);
    }
    let mut unfinished =
        Shake::new(&network.client, SERVER_V4, &Offer { is_tls12: true, ..Offer::default() });
    let hello = unfinished.flight();
    unfinished.send([&*hello]).expect("open");
    let last = unfinished.hear();
    let finished = 5 + records(&last).last().expect("Finished").1.len();
    unfinished.send([&last[..last.len() - finished]]).expect("open");
    assert!(read_to_close(&mut unfinished.stream).is_empty(), "neither a Finished nor a ticket");
    let stats = dotd.counts("each is counted", |stats| stats.sum("handshakes", "failed_") == 5);
    assert_eq!(stats.counter("handshakes", "failed_timeout"), 3);
    assert_eq!((stats.sum("handshakes", "full_"), stats.counter("connections_open", "open")), (1, 1));
    assert_served(&mut innocent);
}

/// A client whose kernel buffers little, and which has asked for more than all buffers hold.
fn greedy(network: &Network, queries: usize) -> Dot {
    let stream = tcp_with_window(&network.client, (SERVER_V4, 853).into(), 2048);
    let mut greedy = Dot::over(stream, SERVER_V4, &Offer::default()).expect("a session");
    for _ in 0..queries.div_ceil(100) {
        greedy.try_ask_all(&large(queries.min(100)));
    }
    greedy
}

/// Reads that many octets ten times a second, and goes on asking if it may, until `is_over`.
fn trickle(greedy: &mut Dot, octets: usize, asks_on: bool, is_over: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    let mut buffer = vec![0; octets];
    while !is_over() {
        assert!(Instant::now() < end, "{octets} octets now and then keep a session for {DEADLINE:?}");
        for _ in 0..10 {
            // A connection that dotd has ended may still have octets here.
            let _ = uninterrupted(|| greedy.tcp().read(&mut buffer));
            thread::sleep(Duration::from_millis(100));
        }
        if asks_on {
            // The server may not accept all of it any more.
            greedy.try_ask_all(&large(1));
        }
    }
}

/// Goal: a client that reads its responses in a trickle is cut like one that reads nothing, whether or not it goes on
/// asking: a little progress is not enough. It is reset, so that the kernel keeps nothing for it either; memory stays
/// bounded, and another client is served. Method: some 10 KiB a second, where each read is visible as progress, and one
/// octet now and then, under a `write_timeout` of a second; the kernel's table.
#[test]
fn a_trickling_reader_is_cut() {
    require!(Root);
    let config = Config::new().set("session", "write_timeout", "\"1s\"");
    let (network, dotd) = embedded(&config);
    network.server.hold_little();
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    for (count, (queries, octets, asks_on)) in
        (1..).zip([(1000, 1024, true), (1000, 1024, false), (1000, 1, true), (20, 1, false)])
    {
        let mut greedy = greedy(&network, queries);
        let port = greedy.tcp().local_addr().expect("connected").port();
        trickle(&mut greedy, octets, asks_on, || {
            dotd.stats().counter("session_ends", "slow_reader") == count
        });
        eventually("the kernel holds nothing for it", || (!kernel_has(&network.server, port)).then_some(()));
        assert_served(&mut innocent);
    }
    let kib = dotd.memory_kib("VmHWM");
    assert!(kib < 256 * 1024, "{kib} KiB for a session that reads in a trickle");
    dotd.counts("all is accounted for", |stats| {
        stats.difference() == [0; 3] && stats.counter("connections_open", "open") == 1
    });
}

/// Goal: a slow and honest client gets everything. Method: the same sockets, read without a pause, so that only the
/// kernel's small buffers make it slow; every answer is whole.
#[test]
fn an_honest_reader_gets_everything() {
    require!(Root);
    let (network, dotd) = embedded(&Config::new().set("session", "write_timeout", "\"1s\""));
    network.server.hold_little();
    let mut session = greedy(&network, 100);
    for _ in 0..100 {
        let text = session.receive().rdata(TXT).concat();
        assert!(text.len() > 4000, "{} octets", text.len());
    }
    assert_eq!(dotd.stats().sum("session_ends", ""), 0);
}

/// Goal: a client that repeatedly reads too slowly is banned for that; another client is served. Method: twenty
/// sessions that ask for much and read nothing; the ban's cause. Ten answers each are more than the kernels buffer, and
/// few enough for the backend, whose answers pass the same small buffers, to be in time on a busy machine too. Covers:
///
#[test]
fn slow_readers_are_banned() {
    require!(Root, Bpf);
    let config = Config::new().set("session", "write_timeout", "\"200ms\"");
    let (network, dotd) = embedded(&config.set("xdp.limit", "ban_seconds", "3600"));
    network.server.hold_little();
    let sessions: Vec<Dot> = (0..20).map(|_| greedy(&network, 10)).collect();
    eventually("the client is banned", || {
        dotd.operate(&["ban", "list", "--json"]).has("slow_reads").then_some(())
    });
    assert_served(&mut Dot::connect(&network.client, SERVER_V6));
    drop(sessions);
}

/// The connections of the server's kernel to this port of a client; after dotd has closed them only the kernel lists
/// them.
fn kernel_has(server: &Namespace, port: u16) -> bool {
    let table = server.run(|| fs::read_to_string("/proc/thread-self/net/tcp")).expect("Linux has it");
    table.lines().skip(1).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        local.ends_with(":0355") && remote.ends_with(&format!(":{port:04X}"))
    })
}

/// Goal: after a client closes its window while the kernel holds all octets for it, the kernel drops the connection
/// too, soon after the session: TCP_USER_TIMEOUT (RFC 5482). Method: three large answers that are not read; the
/// session is idle; the kernel's table, where an orphan would stay for minutes.
#[test]
fn a_closed_window_is_given_up() {
    require!(Root);
    let (network, dotd) = embedded(&Config::new().set("session", "idle_timeout", "\"1s\""));
    let stream = tcp_with_window(&network.client, (SERVER_V4, 853).into(), 4096);
    let port = stream.local_addr().expect("connected").port();
    let mut stuck = Dot::over(stream, SERVER_V4, &Offer::default()).expect("a session");
    stuck.ask_all(&large(4));
    assert!(kernel_has(&network.server, port), "the table names connections so");
    dotd.counts("it is over", |stats| stats.sum("session_ends", "") == 1);
    eventually("the kernel gives up too", || (!kernel_has(&network.server, port)).then_some(()));
    assert_served(&mut Dot::connect(&network.client, SERVER_V4));
}

/// Goal: a client that resets in the middle of a response uses no resources afterwards. Method: a hundred large
/// answers, of which 10,000 octets are read; RST; slots, sessions and sums, five times.
#[test]
fn a_reset_in_the_middle_of_a_response_leaves_nothing() {
    require!(Root);
    let (network, dotd): (Network, Server) = embedded(&Config::new());
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    for _ in 0..5 {
        let mut session = greedy(&network, 100);
        session.tcp().read_exact(&mut [0; 10_000]).expect("it is sent");
        session.abort();
        assert_served(&mut innocent);
    }
    dotd.counts("nothing is left", |stats| {
        let is_empty = stats.counter("backend_outstanding", "outstanding") == 0;
        is_empty && stats.counter("connections_open", "open") == 1 && stats.difference() == [0; 3]
    });
}

/// Goal: a session that was never used ends like any other: close_notify at the idle timeout. Method: a handshake, then
/// silence; another client asks meanwhile.
#[test]
fn an_unused_session_ends_with_close_notify() {
    require!(Root);
    let (network, _backend, dotd) = scripted(Config::new().set("session", "idle_timeout", "\"2s\""), honest);
    let mut unused = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(Dot::connect(&network.client, SERVER_V4).exchange(&www(1)).id, 1);
    assert_eq!(unused.end(), dot_tests::harness::dot::End::CloseNotify);
    dotd.counts("both are counted", |stats| stats.sum("session_ends", "") == 2);
}
