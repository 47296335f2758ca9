//! SYNs in other clients' names, which must not use up those clients' rates of new connections.
//!
//! Before: dotd on one end of a veth pair; raw SYNs and real clients on the other. After: which clients were served,
//! and what was counted.
//! Never: lets the clock decide: sleeps only set the pace of a flood.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use dot_tests::{
    frames::{Build, SYN},
    harness::{
        clients::{DOT_PORT, kdig},
        config::Config,
        eventually,
        flood::{Flood, Wire},
        netns::{CLIENT_INTERFACE, CLIENT_V4, Network, SERVER_V4, SERVER_V6},
        scene::embedded,
    },
    require,
};

/// The number of frames after which a flood ends by itself, even if a test forgets it.
const FRAMES_MAX: u64 = 50_000_000;

/// Goal: SYNs in a client's name do not use up the client's rate: once it has completed a handshake at least 99 of 100
/// of its connections succeed, while SYNs in its name are far above its rate. Method: some hundred raw SYN a second
/// with the client's address, the default limit, kdig with a connection for each question.
#[test]
fn a_spoofer_does_not_spend_a_clients_rate() {
    require!(Root, Bpf, Command("kdig"));
    let keys = [("syn_per_second", "50"), ("syn_burst", "100")];
    let (network, dotd) = embedded(&Config::new().limits(&keys));
    let ask = |times| answered(&network, "", times);
    assert_eq!(ask(1), 1, "a handshake, before anybody forges its address");
    let flood = Flood::start(&network, |number| {
        // This waits for nothing: it sets the flood's pace.
        std::thread::sleep(Duration::from_millis(2));
        let syn = Build::tcp(DOT_PORT, SYN, number as u32, &[]).client_port(1024 + (number % 30_000) as u16);
        (number < FRAMES_MAX).then(|| syn.client(CLIENT_V4).server(SERVER_V4).frame())
    });
    dotd.counts("SYN in its name are over their rate", |stats| stats.packets("pass", "proven") > 0);
    let before = dotd.stats();
    let answered = ask(50) + ask(50);
    let stats = dotd.stats();
    println!("victim with a proof: {answered} of 100 connections");
    assert!(answered >= 99, "{answered} of 100 connections");
    let more = |verdict, reason| stats.packets(verdict, reason) - before.packets(verdict, reason);
    assert!(more("pass", "proven") > 100, "the flood was not over its rate meanwhile");
    assert!(flood.stop() > 100);
    dotd.stop();
}

/// Goal: SYNs from addresses of a client's prefix do not lock out a new client of that prefix: at least 99 of 100
/// connections of an innocent newcomer succeed, over both IP versions. Method: a /24 and a /56 as clients, raw SYNs
/// from them as fast as possible; each newcomer, a new address of its prefix, asks with kdig, with a connection for
/// each question.
#[test]
fn a_spoofer_does_not_lock_out_a_newcomer() {
    require!(Root, Bpf, Command("kdig"));
    // The newcomers themselves stay within it.
    let keys = [("prefix_v4", "24"), ("syn_per_second", "50"), ("syn_burst", "150")];
    let (network, dotd) = embedded(&Config::new().limits(&keys));
    let flood = Flood::start(&network, |number| {
        let host = 100 + (number % 100) as u8;
        let syn = Build::tcp(DOT_PORT, SYN, number as u32, &[]).client_port(1024 + (number % 30_000) as u16);
        let syn = match number % 2 {
            0 => syn.client(Ipv4Addr::new(10, 53, 0, host).into()).server(SERVER_V4),
            _ => syn.client(Ipv6Addr::new(0xfd53, 0, 0, 0, 0, 0, 7, host.into()).into()).server(SERVER_V6),
        };
        (number < FRAMES_MAX).then(|| syn.frame())
    });
    dotd.counts("the prefix is over its rate", |stats| stats.packets("pass", "unproven") > 10_000);
    let before = dotd.stats();
    let newcomers = (50..54).map(|host| format!("10.53.0.{host}"));
    let served = newcomers.map(|address| {
        network.client.ip(&format!("address add {address}/24 dev {CLIENT_INTERFACE}"));
        answered(&network, &format!("-b {address}"), 25)
    });
    let served: usize = served.sum();
    println!("newcomers over IPv4: {served} of 100 connections");
    assert!(served >= 99, "{served} of 100 connections");
    let served = answered_by(SERVER_V6, &network, "", 100);
    println!("newcomer over IPv6: {served} of 100 connections");
    assert!(served >= 99, "{served} of 100 connections over IPv6");
    let more = dotd.stats().packets("pass", "unproven") - before.packets("pass", "unproven");
    assert!(more > 1_000, "the flood was not over the rate meanwhile");
    assert_eq!(dotd.stats().packets("drop", "dot_syn_rate"), 0, "no client finished too many connections");
    assert!(flood.stop() > 1_000);
    dotd.stop();
}

/// Goal: the rate still holds: a client that completes more connections than it allows is refused, whether or not it
/// sends anything over them, and is served again after a while; its neighbour is not affected. Method: real connections
/// at a rate of one a second, opened and closed, until XDP refuses one; kdig from both.
#[test]
fn who_finishes_too_many_connections_is_refused() {
    require!(Root, Bpf, Command("kdig"));
    let keys = [("syn_per_second", "1"), ("syn_burst", "5"), ("handshake_cost_per_second", "0")];
    let (network, dotd) = embedded(&Config::new().limits(&keys));
    let server = SocketAddr::new(SERVER_V4, DOT_PORT);
    eventually("it is refused", || {
        // The client would repeat a dropped SYN for minutes.
        let connect = move || TcpStream::connect_timeout(&server, Duration::from_secs(1));
        drop(network.client.run(connect));
        (dotd.stats().packets("drop", "dot_syn_rate") > 0).then_some(())
    });
    network.client.ip(&format!("address add 10.53.0.77/24 dev {CLIENT_INTERFACE}"));
    assert_eq!(answered(&network, "-b 10.53.0.77", 1), 1, "its neighbour");
    eventually("it has its rate again", || (answered(&network, "", 1) == 1).then_some(()));
    dotd.stop();
}

/// Goal: where the stack makes no cookies, SYN over the rate are dropped as with `syn_over = "drop"`, `xdp show` says why, and a
/// change of the sysctl is followed. Method: both values while dotd runs.
#[test]
fn without_cookies_of_the_stack_the_rate_drops() {
    require!(Root, Bpf);
    let (network, dotd) = embedded(&Config::new().limits(&[("syn_per_second", "1"), ("syn_burst", "1")]));
    let wire = Wire::open(&network);
    let syn =
        || Build::tcp(DOT_PORT, SYN, 7, &[]).client(Ipv4Addr::new(10, 53, 0, 77).into()).server(SERVER_V4);
    let shows = |line: &str| {
        eventually(line, || {
            dotd.operate(&["xdp", "show"]).has(&format!("over rate    {line}\n")).then_some(())
        });
    };
    shows("cookie");
    for (value, verdict, reason, line) in [
        ("0", "drop", "dot_syn_rate", "drop (net.ipv4.tcp_syncookies is 0: set it to 1)"),
        ("1", "pass", "unproven", "cookie"),
    ] {
        network.server.run(move || std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", value)).expect("ours");
        shows(line);
        let before = dotd.stats().packets(verdict, reason);
        eventually("it is counted so", || {
            wire.send(syn().frame());
            (dotd.stats().packets(verdict, reason) > before).then_some(())
        });
    }
    dotd.stop();
}

/// How many of that many questions are answered, each over its own connection, for the network's client; `words` are
/// arguments for kdig.
fn answered(network: &Network, words: &str, times: usize) -> usize {
    answered_by(SERVER_V4, network, words, times)
}

/// The same from another address.
fn answered_by(server: IpAddr, network: &Network, words: &str, times: usize) -> usize {
    let questions = vec!["www.dotd.test A"; times].join(" ");
    let said = kdig(&network.client, server, &format!("{words} +tls +timeout=10 +retry=1 {questions}"));
    said.text.matches("status: NOERROR").count()
}
