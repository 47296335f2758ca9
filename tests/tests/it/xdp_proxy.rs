//! The SYN proxy at tc ingress (`xdp.syn_cookies = "proxy"`): connections keep their options, and the gate knows their streams.
//!
//! Before: dotd, on a kernel with bpf_sk_assign_tcp_reqsk (Linux 6.9). After: SYNs above the rate were answered by cookies of dotd,
//! and clients served. Needs root; prints SKIPPED without, and on older kernels.
//! Never: takes a connection as proof that the proxy answered: its counts show that.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use dot_tests::{
    frames::{ACK, Build, SYN},
    harness::{
        clients::{DOT_PORT, is_answered_over_tls, kdig, tcp},
        config::Config,
        eventually,
        flood::{Flood, Wire},
        netns::{CLIENT_V4, Network, SERVER_V4, SERVER_V6},
        require::skip,
        server::Server,
    },
    require,
};

/// Whether this kernel has the function, by the list of its symbols.
pub(crate) fn has_function(test: &str) -> bool {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let is_there = Path::new("/sys/kernel/btf/vmlinux").exists()
        && symbols.lines().any(|line| line.split_whitespace().nth(2) == Some("bpf_sk_assign_tcp_reqsk"));
    if !is_there {
        skip(test, "this kernel has no bpf_sk_assign_tcp_reqsk (Linux 6.9)");
    }
    is_there
}

fn proxying(mode: &str) -> (Network, Server) {
    let network = Network::new();
    let config = Config::new().set("xdp", "syn_cookies", "\"proxy\"").set("xdp.limit", "syn_flood_rate", "1");
    let dotd = Server::start(&network, &config.xdp(mode));
    // The rate admits a SYN a second: this one is the stack's.
    drop(tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT)));
    (network, dotd)
}

/// The proxy's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proxied {
    pub(crate) answered: u64,
    pub(crate) completed: u64,
    pub(crate) refused: u64,
}

/// Those in `dotd xdp show --json`.
pub(crate) fn proxied(dotd: &Server) -> Proxied {
    let shown = dotd.operate(&["xdp", "show", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&shown.text).expect("JSON");
    let count = |fate: &str| report["proxied"][fate].as_u64().unwrap_or_default();
    Proxied { answered: count("answered"), completed: count("completed"), refused: count("refused") }
}

/// Goal: real clients connect by the proxy's cookies, over both IP versions, natively and generic, and their connections have
/// window scale, SACK and timestamps. Method: kdig; connections that stand, which the kernel describes.
#[test]
fn connections_keep_their_options() {
    require!(Root, Bpf, Command("kdig"), Command("ss"));
    if !has_function("connections_keep_their_options") {
        return;
    }
    for mode in ["native", "generic"] {
        let (network, dotd) = proxying(mode);
        for address in [SERVER_V4, SERVER_V6] {
            for _ in 0..5 {
                let said = kdig(&network.client, address, "+tls www.dotd.test A");
                assert!(is_answered_over_tls(&said), "{mode}, {address}: {}", said.text);
            }
            let (before, held) = (proxied(&dotd), tcp(&network.client, SocketAddr::new(address, DOT_PORT)));
            let port = held.local_addr().unwrap().port();
            let mut ss = Command::new("ss");
            ss.args(["-tinoH", "state", "established", "dport", "=", &format!(":{port}")]);
            let shown = eventually("the connection is in the server's namespace", || {
                let output = network.server.output({
                    let mut again = Command::new(ss.get_program());
                    again.args(ss.get_args());
                    again
                });
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.contains("wscale").then_some(text)
            });
            for option in ["ts", "sack", "wscale:", "mss:"] {
                assert!(shown.contains(option), "{mode}, {address}: no {option}: {shown}");
            }
            // A SYN a second is the stack's, whose connections look the same.
            if proxied(&dotd).answered > before.answered {
                assert!(shown.contains(",7"), "{mode}: the scale of the cookie: {shown}");
            }
        }
        let Proxied { answered, completed, .. } = proxied(&dotd);
        assert!(answered >= 5 && completed >= 5, "{mode}: {answered} answered, {completed} completed");
        assert!(dotd.operate(&["xdp", "show"]).has("connections came of them"));
        let stats = dotd.stats();
        assert!(stats.packets("pass", "client_hello") >= 5, "the gate knows the streams");
        dotd.stop();
    }
}

/// Goal: the gate refuses cleartext behind a cookie, which names the SYN that it answers: neither another SYN of the same ports
/// nor an ACK with a guessed number begins a connection. Method: cleartext over connections; raw segments.
#[test]
fn the_gate_knows_streams_behind_a_cookie() {
    require!(Root, Bpf);
    if !has_function("the_gate_knows_streams_behind_a_cookie") {
        return;
    }
    let (network, dotd) = proxying("generic");
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        stream.write_all(b"\x00\x1dcleartext").unwrap();
        streams.push(stream);
    }
    dotd.counts("cleartext is dropped", |stats| stats.packets("drop", "cleartext_on_dot") >= 5);
    assert_eq!(dotd.stats().packets("pass", "unknown_flow"), 0);
    let before = proxied(&dotd);
    assert!(before.completed >= 3, "{before:?}");

    let wire = Wire::open(&network);
    let guess = |number: u32| {
        Build::tcp(853, ACK, number, &[]).client_port(7_000).client(CLIENT_V4).server(SERVER_V4)
    };
    for number in 0..1_000 {
        assert!(wire.send(guess(number).frame()));
    }
    dotd.counts("the guesses have arrived", |stats| stats.packets("pass", "") >= 1_000);
    assert_eq!(proxied(&dotd).completed, before.completed, "a guess made a connection");
    dotd.stop();
}

/// Goal: clients connect while spoofed SYNs come from a million addresses. Method: a raw flood; kdig meanwhile.
#[test]
fn clients_connect_through_a_flood_at_the_proxy() {
    const FRAMES: u64 = 20_000;
    require!(Root, Bpf, Command("kdig"));
    if !has_function("clients_connect_through_a_flood_at_the_proxy") {
        return;
    }
    let (network, dotd) = proxying("generic");
    network.server.ip(&format!("route add default via {CLIENT_V4}"));
    let flood = Flood::start(&network, |number| {
        let source: IpAddr = Ipv4Addr::from_bits(0x0a80_0000 + (number % 1_000_000) as u32).into();
        let syn = Build::tcp(853, SYN, number as u32, &[]).segment_size().client(source).server(SERVER_V4);
        (number < 50_000_000).then(|| syn.frame())
    });
    let seen = || dotd.stats().packets("pass", "");
    for round in 1..=20 {
        let said = kdig(&network.client, SERVER_V4, "+tls +timeout=5 +retry=1 www.dotd.test A");
        assert!(is_answered_over_tls(&said), "{round}: {}", said.text);
        eventually("the flood goes on", || (seen() > FRAMES * round / 20).then_some(()));
    }
    let sent = flood.stop();
    let Proxied { answered, completed, .. } = proxied(&dotd);
    println!("20 of 20 answered; {answered} SYN of {sent} answered by the proxy, {completed} completed");
    assert!(answered >= completed && completed >= 15, "{answered} {completed}");
    dotd.stop();
}
