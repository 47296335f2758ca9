//! One client that asks without end, and an innocent one that wants an answer: the second gets it.
//!
//! Before: a scripted backend that holds the queries of the flood, or a dotd that is stopped while many clients send.
//! After: the innocent client was answered meanwhile.
//! Never: measures time: a test looks at which clients waited, and how many others were still unanswered when one got
//! its answer.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};
use socket2::{Domain, Socket, Type};

use dot_tests::{
    harness::{
        DEADLINE,
        clients::{DOT_PORT, tcp},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Opt, Query, framed, header, reply_to, www},
        netns::{CLIENT_INTERFACE, Network, SERVER_V4, SERVER_V6},
        raw_hello::{greased_hello, handshake_record, retried_hellos},
        scene::{HONEST, embedded, honest, scripted_with},
        scripted::{Act, Received, Scripted},
        server::Server,
        stats::Stats,
    },
    require,
};

/// Holds the queries of the flood (`slow…`), and answers the others.
fn slow_for_the_flood(query: &Received) -> Vec<Act> {
    let is_slow = query.octets.windows(5).any(|octets| octets == b"\x04slow");
    if is_slow { vec![Act::Hold(reply_to(&query.octets, A, &[HONEST.to_vec()]))] } else { honest(query) }
}

fn scene(in_flight_max: &str) -> (Network, Scripted, Server) {
    let config = Config::new()
        .xdp("off")
        .set("server", "workers", "1")
        .set("session", "in_flight_max", in_flight_max)
        .set("session", "message_timeout", "\"60s\"");
    scripted_with(config, "transport = \"tcp\"\ntimeout = \"30s\"", slow_for_the_flood)
}

/// Goal: a client that asks more than a slow backend answers fills half of what that can have in flight; others are
/// answered meanwhile, and no query of the flood is lost either. Method: 20 sessions with 500 queries each, which the
/// backend holds, where a backend over TCP has at most 4096; an innocent session asks ten times; then the backend
/// answers all. Covers: A-33, A-252, C-15
#[test]
fn a_flood_of_queries_leaves_room_for_others() {
    require!(Root);
    let (network, backend, dotd) = scene("65535");
    let queries: Vec<Vec<u8>> = (0..500).map(|id| Query::new(id, "slow.dotd.test", A).octets()).collect();
    let mut flood: Vec<Dot> = (0..20).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
    for session in &mut flood {
        assert!(session.try_ask_all(&queries), "the socket has room for what dotd does not read");
    }
    let stats = dotd.counts("the flood is in flight", |stats| {
        stats.counter("backend_outstanding", "outstanding") >= 2048
    });
    // Beyond half there is one query for each session, because all of them belong to one client.
    assert!(stats.counter("backend_outstanding", "outstanding") <= 2048 + 20, "{stats:?}");
    let mut innocent = Dot::connect(&network.client, SERVER_V6);
    for id in 0..10 {
        let answer = innocent.exchange(&Query::new(id, "www.dotd.test", A).octets());
        assert_eq!(answer.rdata(A), [HONEST]);
    }
    assert_eq!(dotd.stats().counter("backend", "full"), 0);
    // Sessions that waited for room go on as they get their own answers.
    eventually("all of the flood is answered", || {
        backend.release();
        (dotd.stats().counter("responses", "NOERROR") == 20 * 500 + 10).then_some(())
    });
    assert_eq!(dotd.stats().difference(), [0; 3]);
    drop(flood);
    dotd.stop();
}

/// Goal: a flood of queries over UDP, whose senders have not proved their addresses, leaves room for sessions, and each
/// of its addresses leaves room for other clients over UDP; a query without room is told to use TCP. Method: 40
/// addresses send 150 queries each, which the backend holds, where it can have 4096; meanwhile a session asks 200
/// times, and a new address asks over UDP before the last of the 40 does. Covers: A-252
#[test]
fn a_flood_by_udp_leaves_room_for_sessions() {
    require!(Root);
    let config =
        Config::new().xdp("off").set("server", "workers", "1").set("listen", "do53", r#"["0.0.0.0:53"]"#);
    let keys = "transport = \"tcp\"\ntimeout = \"30s\"";
    let (network, _backend, dotd) = scripted_with(config, keys, slow_for_the_flood);
    let server = SocketAddr::new(SERVER_V4, 53);
    let mut innocent = Dot::connect(&network.client, SERVER_V6);
    let mut ask = |id: u16| {
        let answer = innocent.exchange(&Query::new(id, "www.dotd.test", A).octets());
        assert_eq!((answer.rcode(), answer.rdata(A).len()), (0, 1), "query {id}");
    };
    let by_udp = |last: u8| udp_from(&network, [10, 53, 0, last], server);
    let mut tc = [0; 512];
    for (number, last) in (100..140).enumerate() {
        let flood = by_udp(last);
        for id in 0..150 {
            flood.send(&Query::new(id, "slow.dotd.test", A).octets()).expect("sent");
        }
        // dotd has read its sockets, so that the kernel drops none of the next datagrams.
        (0..5).for_each(|time| ask(5 * number as u16 + time));
        if number == 3 {
            let other = by_udp(99);
            other.send(&Query::new(7, "www.dotd.test", A).octets()).expect("sent");
            let octets = other.recv(&mut tc).expect("an answer");
            assert_eq!(tc[2] & 2, 0, "whole: {:02x?}", &tc[..octets]);
        }
    }
    let stats = dotd.stats();
    assert_eq!(stats.counter("backend_outstanding", "outstanding"), 1024, "a quarter: {stats:?}");
    assert_eq!((stats.counter("backend", "full"), stats.counter("responses", "SERVFAIL")), (0, 0));
    let received = stats.counter("do53", "received_udp");
    assert!(received > 4096, "{received} arrived");
    assert_eq!(stats.counter("fairness", "datagrams_deferred"), received - 1025);
    let last = by_udp(98);
    last.send(&Query::new(8, "www.dotd.test", A).octets()).expect("sent");
    let octets = last.recv(&mut tc).expect("an answer");
    assert_eq!((octets, tc[2] & 2), (31, 2), "TC=1, and the question");
    drop(dotd);
}

/// Goal: thousands of sessions of a few dozen addresses, each with a slow query or some, leave room for clients that
/// come later, and get their refusals at once. Method: a backend over TCP, which can have 4,096 queries, holds those of
/// 60 addresses with four sessions of 16 each, then four addresses ask one query over each of 100 sessions; then
/// another client asks one at a time, and eight new addresses ask four at once. Covers: A-342
#[test]
fn many_sessions_of_few_addresses_leave_room() {
    require!(Root);
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("Linux says it");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("up to the most there may be");
    let config = Config::new()
        .xdp("off")
        .set("server", "workers", "1")
        .set("session", "in_flight_max", "65535")
        .set("session", "message_timeout", "\"60s\"")
        .set("listen", "do53", r#"["0.0.0.0:53"]"#);
    let keys = "transport = \"tcp\"\ntimeout = \"30s\"";
    let (network, backend, dotd) = scripted_with(config, keys, slow_for_the_flood);
    let slow = |count: u16| -> Vec<u8> {
        (0..count).flat_map(|id| framed(&Query::new(id, "slow.dotd.test", A).octets())).collect()
    };
    let from = |last: u8, sessions: usize, queries: u16| -> Vec<TcpStream> {
        let begin = |_| {
            let mut session = tcp_from(&network, [10, 53, 0, last]);
            session.write_all(&slow(queries)).expect("the socket has room");
            session
        };
        add_address(&network, [10, 53, 0, last]);
        (0..sessions).map(begin).collect()
    };
    let mut first = Dot::connect(&network.client, SERVER_V6);
    let queries: Vec<_> = (0..2000).map(|id| Query::new(id, "slow.dotd.test", A).octets()).collect();
    queries.chunks(500).for_each(|some| first.ask_all(some));
    let outstanding = |stats: &Stats| stats.counter("backend_outstanding", "outstanding");
    dotd.counts("half is in flight", |stats| outstanding(stats) >= 2000);
    let many: Vec<_> = (100..160).flat_map(|last| from(last, 4, 16)).collect();
    dotd.counts("seven eighths are in flight", |stats| outstanding(stats) >= 3584);
    let lone: Vec<_> = (160..164).flat_map(|last| from(last, 100, 1)).collect();
    let over = |stats: &Stats| stats.counter("fairness", "queries_over_share");
    let stats = dotd.counts("those that are over hear so", |stats| over(stats) >= 300);
    assert!(outstanding(&stats) < 4096, "{stats:?}");
    let answered = |session: &mut TcpStream| {
        let mut octets = [0; 2];
        session.read_exact(&mut octets).expect("a length");
        let mut message = vec![0; usize::from(u16::from_be_bytes(octets))];
        session.read_exact(&mut message).expect("an answer");
        message[3] & 0xf
    };
    let is_served = |last: &u8| {
        add_address(&network, [10, 53, 0, *last]);
        let mut session = tcp_from(&network, [10, 53, 0, *last]);
        let query = framed(&Query::new(1, "www.dotd.test", A).octets());
        session.write_all(&query.repeat(4)).expect("the socket has room");
        [0; 4].map(|_| answered(&mut session)) == [0; 4]
    };
    // One in 128 addresses shares its row of the table with one of the 64.
    let served = (170..178).filter(is_served).count();
    assert!(served >= 6, "{served} of eight: {:?}", dotd.stats());
    let stats = dotd.stats();
    assert_eq!(stats.counter("responses", "SERVFAIL"), over(&stats), "{stats:?}");
    assert_eq!(stats.counter("backend", "full"), 0);
    eventually("all others are answered", || {
        backend.release();
        let stats = dotd.stats();
        (stats.counter("responses", "NOERROR") + over(&stats) == 2000 + 60 * 64 + 400 + 32).then_some(())
    });
    assert_eq!(dotd.stats().difference(), [0; 3]);
    drop((many, lone));
}

fn add_address(network: &Network, [a, b, c, d]: [u8; 4]) {
    network.client.ip(&format!("address add {a}.{b}.{c}.{d}/24 dev {CLIENT_INTERFACE}"));
}

/// A connection in clear of the client's namespace, from one of the namespace's addresses.
fn tcp_from(network: &Network, from: [u8; 4]) -> TcpStream {
    let connect = move || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&SocketAddr::new(SERVER_V4, 53).into())?;
        Ok::<TcpStream, std::io::Error>(socket.into())
    };
    let stream = network.client.run(connect).expect("dotd listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
    stream
}

/// A UDP socket of the client's namespace, from an address that is added for it.
fn udp_from(network: &Network, from: [u8; 4], server: SocketAddr) -> UdpSocket {
    add_address(network, from);
    network.client.run(move || {
        let socket = UdpSocket::bind(SocketAddr::from((from, 0))).expect("an address of its own");
        socket.connect(server).expect("on the same link");
        socket.set_read_timeout(Some(DEADLINE)).expect("not zero");
        socket
    })
}

/// Goal: a client's connections share its turns, so that another client waits no longer than for one client's share,
/// whatever the number of connections. Method: 50 connections of one address have a thousand queries each, which dotd
/// answers itself and which arrive at once; another address asks last. When it has its answer, less than half of the
/// turns of 512 messages are done that 50 separate clients would have had before it. Covers: A-253
#[test]
fn connections_of_one_address_share_its_turns() {
    const CONNECTIONS: usize = 50;
    require!(Root);
    let config = Config::new().xdp("off").set("server", "workers", "1");
    let (network, mut dotd) = embedded(&config);
    let mut flood: Vec<Dot> = (0..CONNECTIONS).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
    let mut innocent = Dot::connect(&network.client, SERVER_V6);
    assert_eq!(innocent.exchange(&www(1)).rcode(), 0);
    let queries: Vec<Vec<u8>> = (0..1000).map(|id| header(id, 0x1000, [0; 4])).collect();
    stop(&mut dotd);
    flood.iter_mut().for_each(|session| session.ask_all(&queries));
    innocent.ask(&header(2, 0x1000, [0; 4]));
    dotd.signal(Signal::SIGCONT);
    assert_eq!(innocent.receive().rcode(), 4);
    stop(&mut dotd);
    let mut octets = vec![0; 64 * 1024];
    let mut answered = 0;
    for session in &mut flood {
        let stream = session.tcp();
        stream.set_nonblocking(true).expect("a socket");
        answered += stream.peek(&mut octets).unwrap_or(0) / framed(&queries[0]).len();
        stream.set_nonblocking(false).expect("a socket");
    }
    assert!(answered < CONNECTIONS * 512 / 2, "{answered} answers of the flood came first");
    dotd.signal(Signal::SIGCONT);
    for session in &mut flood {
        for id in 0..1000 {
            assert_eq!(session.receive().id, id);
        }
    }
    let stats = dotd.stats();
    assert!(stats.counter("fairness", "turns_waited") > 0 && stats.difference() == [0; 3], "{stats:?}");
    dotd.stop();
}

/// Goal: a client's messages are within its rate, whatever the number of its connections and their workers, without
/// XDP; queries above it are refused with a reason, delayed or counted, as the config says, and another client has its
/// own rate. Method: ten at once and one a second, or ten; four connections ask ten times each at once. Covers: A-254
#[test]
fn a_clients_queries_have_their_rate() {
    require!(Root);
    for (over, per_second) in [("refuse", "1"), ("delay", "50"), ("count", "1")] {
        let config = Config::new()
            .xdp("off")
            .set("session", "queries_per_second", per_second)
            .set("session", "queries_burst", "10")
            .set("session", "queries_over", &format!("\"{over}\""));
        let (network, _backend, dotd) = scripted_with(config, "", honest);
        let mut sessions: Vec<Dot> = (0..4).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
        let query = |id| Query::new(id, "www.dotd.test", A).opt(Opt::default()).octets();
        let queries: Vec<Vec<u8>> = (0..10).map(query).collect();
        sessions.iter_mut().for_each(|session| session.ask_all(&queries));
        let mut refused = 0;
        for session in &mut sessions {
            for _ in 0..10 {
                let answer = session.receive();
                if answer.rcode() == 5 {
                    let value = answer.option(OPTION_EDE).expect("an extended error");
                    assert_eq!(value[..2], [0, 18]);
                    refused += 1;
                } else {
                    assert_eq!(answer.rdata(A), [HONEST]);
                }
            }
        }
        let stats = dotd.stats();
        assert!(stats.counter("fairness", "queries_over_rate") > 0, "{over}");
        assert_eq!(stats.counter("fairness", "queries_refused"), refused);
        if over == "refuse" {
            assert!((10..=30).contains(&refused), "{refused}");
        } else {
            assert_eq!(refused, 0, "{over}");
        }
        let mut other = Dot::connect(&network.client, SERVER_V6);
        (0..10).for_each(|id| assert_eq!(other.exchange(&query(id)).rdata(A), [HONEST]));
        assert_eq!(dotd.stats().difference(), [0; 3]);
        dotd.stop();
    }
}

/// EDNS option 15, extended DNS errors (RFC 8914).
const OPTION_EDE: u16 = 15;

/// The number of connections of a crowd.
const CROWD: usize = 300;

/// Stops dotd until it is continued, so that everything sent meanwhile arrives at once.
fn stop(dotd: &mut Server) {
    dotd.signal(Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", dotd.pid());
    eventually("dotd is stopped", || fs::read_to_string(&stat).ok()?.contains(") T ").then_some(()));
}

/// A crowd's connections, each of which has sent `first`, which dotd has read.
fn crowd(network: &Network, innocent: &mut Dot, first: &[u8]) -> Vec<TcpStream> {
    let dot = SocketAddr::new(SERVER_V4, DOT_PORT);
    let mut crowd: Vec<TcpStream> = (0..CROWD).map(|_| tcp(&network.client, dot)).collect();
    for stream in &mut crowd {
        stream.write_all(first).expect("open");
        // This is read before the next one sends, so that none waits for another.
        assert_eq!(innocent.exchange(&www(1)).rcode(), 0);
    }
    crowd
}

/// Goal: the signature of a handshake waits for its turn, however the records are cut that bring its message, so that
/// many hellos that become whole at once delay no other client. Method: 300 connections send the first octet of their
/// hello in a record of its own, or a hello that a HelloRetryRequest answers, one after the other; dotd is stopped
/// while they send the rest; afterwards all handshakes except those of the first turns have waited. Covers: A-250
#[test]
fn signatures_wait_for_their_turn_whatever_brings_them() {
    require!(Root);
    // The connections are made one by one, however long that takes.
    let config = Config::new().xdp("off").set("server", "workers", "1");
    let config = config.set("session", "handshake_timeout", "\"60s\"");
    let (network, mut dotd) = embedded(&config);
    let hello = greased_hello();
    let [first, second] = retried_hellos();
    let flights = [
        (handshake_record(&hello[..1]), handshake_record(&hello[1..])),
        (handshake_record(&first), handshake_record(&second)),
    ];
    let mut innocent = Dot::connect(&network.client, SERVER_V6);
    for (round, (flight, rest)) in flights.into_iter().enumerate() {
        let before = dotd.stats().counter("fairness", "handshakes_waited");
        let mut crowd = crowd(&network, &mut innocent, &flight);
        stop(&mut dotd);
        crowd.iter_mut().for_each(|stream| stream.write_all(&rest).expect("open"));
        innocent.ask(&www(2));
        dotd.signal(Signal::SIGCONT);
        assert_eq!(innocent.receive().rcode(), 0);
        let waited = |stats: &Stats| stats.counter("fairness", "handshakes_waited") - before;
        let stats = dotd.counts("the crowd has waited", |stats| waited(stats) >= CROWD as u64 / 2);
        assert_eq!(
            stats.sum("handshakes", "failed_"),
            (round * CROWD) as u64,
            "those of the last round left"
        );
        for stream in &mut crowd {
            let mut record = [0; 5];
            stream.read_exact(&mut record).expect("an answer of the server's");
            assert_eq!(record[0], 22);
        }
        drop(crowd);
        dotd.counts("the crowd has left", |stats| stats.counter("connections_open", "open") == 1);
    }
    dotd.stop();
}
