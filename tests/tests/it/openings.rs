//! From packets to connections: what became of the SYNs that the kernel half saw.
//!
//! Before: clients that finish their TCP handshake, and one that does not. After: the counts of both halves add up.
//! Never: asserts a number that a SYN that is sent again would change, but as a lower bound.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use dot_tests::{
    frames::{Build, SYN},
    harness::{
        clients::http,
        config::Config,
        dot::Dot,
        eventually,
        flood::{Wire, ethernet_address},
        netns::{SERVER_V4, address},
        scene::embedded,
    },
    require,
    xdp_field::{begin, beside, isolated, listeners},
};
use socket2::{Domain, Socket, Type};

/// Goal: SYNs are accepted, waiting, dropped by listeners, or unfinished; the counts are in `dotd stats` and in a scrape; without
/// XDP there is no rest. Method: three sessions, and a SYN in the name of a client that does not exist. Covers: C-702
#[test]
fn syns_become_connections() {
    require!(Root, Bpf);
    let config = Config::new().set("control", "http", "\"127.0.0.1:8853\"");
    let (network, dotd) = embedded(&config);
    let _sessions: Vec<_> = (0..3).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
    let number = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned));
        line.and_then(|value| value.trim().parse::<i64>().ok())
    };
    let before = dotd.stats();
    assert_eq!((before.counter("queues", "waiting"), before.counter("queues", "dropped")), (0, 0));
    let scrape = http(&network.server, "/metrics");
    let [syns, unfinished] =
        ["dotd_xdp_syns_total", "dotd_xdp_syns_unfinished"].map(|name| number(&scrape, name).expect(name));
    assert!(syns >= 3 && syns - unfinished == 3, "{syns} SYNs, {unfinished} unfinished");
    let forged = Build::tcp(853, SYN, 7, &[]).client(Ipv4Addr::new(203, 0, 113, 9).into());
    assert!(Wire::open(&network).send(forged.server(SERVER_V4).frame()));
    // The stack drops it where it knows no way back to that client.
    eventually("the SYN without an ACK is unfinished or dropped", || {
        let scrape = http(&network.server, "/metrics");
        let rest =
            number(&scrape, "dotd_xdp_syns_unfinished")? + number(&scrape, "dotd_listener_drops_total")?;
        (rest > unfinished).then_some(())
    });
    let said = dotd.operate(&["stats"]);
    assert!(said.has("tcp handshakes\n") && said.has("  unfinished "), "{}", said.text);
    drop(dotd);

    let (network, _dotd) = embedded(&config.xdp("off"));
    let _session = Dot::connect(&network.client, SERVER_V4);
    let scrape = http(&network.server, "/metrics");
    assert_eq!(number(&scrape, "dotd_connections_waiting"), Some(0));
    assert_eq!(number(&scrape, "dotd_xdp_syns_unfinished"), None);
}

/// Goal: a connection has the time of its own SYN: one that a forger sent before with the same address and port gives it no
/// other. Method: such a SYN; a while later a client connects from that port, and its connection is younger than the attempt.
/// Covers: C-700
#[test]
fn a_forged_syn_gives_no_false_time() {
    isolated("a_forged_syn_gives_no_false_time", || {
        let interfaces = vec!["here".to_owned()];
        let listeners = listeners("192.0.2.1:853", 1);
        let xdp = begin(&dot_userspace::config::Xdp { interfaces, ..Default::default() }, &listeners);
        let (status, server) = (xdp.status_writer(0), ethernet_address("here"));
        beside("there", &["192.0.2.2/24"], || {
            let forged = Build::tcp(853, SYN, 7, &[]).client(address("192.0.2.2")).client_port(40_000);
            assert!(Wire::towards("there", server).send(forged.server(address("192.0.2.1")).frame()));
            eventually("the client's stack resets what it did not begin", || {
                (resets_sent() > 0).then_some(())
            });
            // What a false time would have too much, and no wait for anything.
            thread::sleep(Duration::from_millis(100));
            let begun = Instant::now();
            let _client = connected("192.0.2.2:40000", "192.0.2.1:853");
            let (from, to) = accepted(&listeners[0]);
            let since = status.since_syn(from, to).expect("the learner saw its SYN-ACK");
            assert!(since <= begun.elapsed(), "{since:?} since its SYN");
        });
        xdp.detach();
    });
}

/// The resets that this thread's network namespace has sent.
fn resets_sent() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").expect("it");
    let mut rows = text.lines().filter(|line| line.starts_with("Tcp:")).map(|line| line.split(' '));
    let (names, numbers) = (rows.next().expect("names"), rows.next().expect("numbers"));
    let sent = names.zip(numbers).find(|(name, _)| *name == "OutRsts").expect("a count").1;
    sent.parse().expect("a number")
}

fn connected(from: &str, to: &str) -> Socket {
    let of = |text: &str| text.parse::<SocketAddr>().unwrap().into();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&of(from)).unwrap();
    socket.connect(&of(to)).expect("a connection");
    socket
}

/// The ends of the next connection.
fn accepted(listener: &TcpListener) -> (SocketAddr, SocketAddr) {
    let (stream, from) = listener.accept().expect("a connection");
    (from, stream.local_addr().unwrap())
}
