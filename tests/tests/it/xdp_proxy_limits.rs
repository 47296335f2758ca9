//! What the SYN proxy at tc ingress refuses and leaves alone: ACKs that begin connections again, and SYNs for other machines.
//!
//! Before: dotd with `xdp.syn_cookies = "proxy"`, on a kernel with bpf_sk_assign_tcp_reqsk (Linux 6.9). After: counts of the proxy,
//! frames on the client's side, counters of nftables. Needs root; prints SKIPPED without, and on older kernels.
//! Never: takes a refusal as proof where the same packet is not taken later.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use dot_tests::{
    frames::{ACK, Build, RST, SYN},
    harness::{
        DEADLINE,
        capture::Capture,
        clients::{DOT_PORT, is_answered_over_tls, kdig, read_to_close, tcp},
        config::Config,
        eventually,
        flood::Wire,
        netns::{CLIENT_V4, Namespace, Network, SERVER_V4, address},
        server::Server,
    },
    require,
};

use crate::xdp_proxy::{Proxied, has_function, proxied};

const INITIAL: u32 = 77_000;

fn proxying() -> Config {
    Config::new()
        .set("xdp", "syn_cookies", "\"proxy\"")
        .set("xdp.limit", "syn_flood_rate", "1")
        .xdp("generic")
}

fn segment(port: u16, flags: u8, sequence: u32) -> Build {
    Build::tcp(DOT_PORT, flags, sequence, &[]).client_port(port).client(CLIENT_V4).server(SERVER_V4)
}

/// A client whose SYN the proxy answered: it can begin its connection by the ACK, until the cookie ends.
struct Held {
    wire: Wire,
    port: u16,
    cookie: u32,
}

impl Held {
    /// Sends SYNs until one of them is over the rate, and reads its SYN-ACK.
    fn get(network: &Network, dotd: &Server) -> Self {
        let wire = Wire::open(network);
        let mut port = 7_000;
        let cookie = eventually("the proxy answers a SYN", || {
            port += 1;
            let (before, capture) = (proxied(dotd).answered, Capture::start(&network.client));
            assert!(wire.send(segment(port, SYN, INITIAL).segment_size().frame()));
            // Neither an answer nor the frame of one needs longer than this command.
            let is_answered = proxied(dotd).answered > before;
            let answers = capture.frames_of(port);
            let mut answers =
                answers.iter().filter_map(|frame| frame.segment.filter(|_| frame.source_port == DOT_PORT));
            answers.find(|(_, flags)| is_answered && *flags == SYN | ACK).map(|(sequence, _)| sequence)
        });
        Self { wire, port, cookie }
    }

    fn begin(&self) {
        let mut ack = segment(self.port, ACK, INITIAL + 1);
        ack.acknowledgment = self.cookie.wrapping_add(1);
        assert!(self.wire.send(ack.frame()));
    }

    fn end(&self) {
        assert!(self.wire.send(segment(self.port, RST, INITIAL + 1).frame()));
    }
}

/// Goal: a client that begins its connection again and again by the ACK of one cookie is held to its rate of connections, as by SYNs.
/// Method: ACK and reset forty times within a few seconds, at a rate of one a second and five at once.
#[test]
fn a_cookie_is_not_past_the_rate() {
    const ROUNDS: u64 = 40;
    require!(Root, Bpf);
    if !has_function("a_cookie_is_not_past_the_rate") {
        return;
    }
    let network = Network::new();
    let limits = [("syn_per_second", "1"), ("syn_burst", "5")];
    let dotd = Server::start(&network, &proxying().limits(&limits));
    let held = Held::get(&network, &dotd);
    let (before, began) = (proxied(&dotd), std::time::Instant::now());
    let ends = |seen: Proxied| seen.completed + seen.refused;
    for _ in 0..ROUNDS {
        let last = proxied(&dotd);
        // For a moment after a beginning the next ACK counts as a part of it.
        eventually("an ACK has its end", || {
            held.begin();
            held.end();
            (ends(proxied(&dotd)) > ends(last)).then_some(())
        });
    }
    let after = proxied(&dotd);
    let most = 5 + began.elapsed().as_secs() + 1;
    let completed = after.completed - before.completed;
    assert!(completed >= 1 && completed <= most, "{completed} connections of one cookie, {most} allowed");
    assert!(dotd.operate(&["xdp", "show"]).has(&format!("{} refused", after.refused)));
    dotd.stop();
}

/// Sends what is not TLS, and waits for the end.
fn garbage(network: &Network) {
    let connect =
        || TcpStream::connect_timeout(&SocketAddr::new(SERVER_V4, DOT_PORT), Duration::from_secs(2));
    let Ok(mut stream) = network.client.run(connect) else { return };
    stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    let _ = read_to_close(&mut stream);
}

/// Goal: a ban of the engine, which refuses what begins, refuses the ACK of a cookie from before it. Method: a cookie, then garbage
/// until the client is banned, then the ACK; once the ban is lifted, the same ACK begins a connection.
#[test]
fn a_cookie_is_not_past_a_ban() {
    require!(Root, Bpf);
    if !has_function("a_cookie_is_not_past_a_ban") {
        return;
    }
    let network = Network::new();
    let limits = [("ban_seconds", "3600"), ("syn_per_second", "0"), ("handshake_cost_per_second", "0")];
    let config = proxying().limits(&limits).set("xdp", "cleartext_853", "\"pass\"");
    let dotd = Server::start(&network, &config);
    let held = Held::get(&network, &dotd);
    let client = CLIENT_V4.to_string();
    eventually("the client is banned", || {
        (0..20).for_each(|_| garbage(&network));
        dotd.operate(&["ban", "list"]).has(&client).then_some(())
    });
    let before = proxied(&dotd);
    held.begin();
    let after = eventually("the ACK has its end", || {
        let now = proxied(&dotd);
        (now.completed + now.refused > before.completed + before.refused).then_some(now)
    });
    assert_eq!(after.completed, before.completed, "a banned client began a connection");
    let lifted = dotd.operate(&["ban", "del", &client]);
    assert!(lifted.is_success, "{}", lifted.text);
    eventually("the cookie is still alive, and taken again", || {
        held.begin();
        (proxied(&dotd).completed > before.completed).then_some(())
    });
    dotd.stop();
}

/// Goal: a router's own SYNs alone are counted by the proxy's rate: other people's neither make it answer nor are answered. Method: a
/// hundred SYNs to a machine behind dotd's, which resets them; then connections to dotd, of which the first is the stack's.
///
#[test]
fn a_router_counts_only_its_own_syns() {
    const SYNS: u16 = 100;
    require!(Root, Bpf);
    if !has_function("a_router_counts_only_its_own_syns") {
        return;
    }
    let (network, third) = (Network::new(), Namespace::new(false));
    network.server.join(&third, ["far", "third"], ["10.54.0.1/24", "10.54.0.2/24"]);
    network.server.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("our own namespace"));
    third.ip("route add default via 10.54.0.1");
    let dotd = Server::start(&network, &proxying());
    let (wire, capture) = (Wire::open(&network), Capture::start(&network.client));
    for port in 0..SYNS {
        let syn = segment(7_000 + port, SYN, INITIAL).segment_size().server(address("10.54.0.2"));
        assert!(wire.send(syn.frame()));
    }
    drop(tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT)));
    let first = proxied(&dotd);
    assert_eq!(first.answered, 0, "other people's SYNs were counted");
    let heard = capture.frames_of(DOT_PORT);
    let resets = heard.iter().filter(|frame| frame.segment.is_some_and(|(_, flags)| flags & RST != 0));
    let resets = resets.filter(|frame| frame.source_port == DOT_PORT && frame.destination_port < 8_000);
    assert_eq!(resets.count(), usize::from(SYNS), "the machine behind answers each SYN itself");
    eventually("the proxy answers dotd's own SYNs", || {
        drop(tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT)));
        (proxied(&dotd).answered > 0).then_some(())
    });
    dotd.stop();
}

/// Goal: the proxy answers no SYN whose ACK the stack would not take: with `net.ipv4.tcp_syncookies` 0 clients connect by the stack
/// alone. Method: the setting in dotd's namespace; kdig, and the counts.
#[test]
fn without_cookies_of_the_stack_the_proxy_rests() {
    require!(Root, Bpf, Command("kdig"));
    if !has_function("without_cookies_of_the_stack_the_proxy_rests") {
        return;
    }
    let network = Network::new();
    network.server.run(|| fs::write("/proc/sys/net/ipv4/tcp_syncookies", "0").expect("our own namespace"));
    let dotd = Server::start(&network, &proxying());
    for round in 0..5 {
        let said = kdig(&network.client, SERVER_V4, "+tls +timeout=5 +retry=0 www.dotd.test A");
        assert!(is_answered_over_tls(&said), "{round}: {}", said.text);
    }
    assert_eq!(proxied(&dotd).answered, 0);
    let shown = dotd.operate(&["xdp", "show"]);
    assert!(shown.has("cookies      off (net.ipv4.tcp_syncookies is 0"), "{}", shown.text);
    // A change of the setting is followed.
    network.server.run(|| fs::write("/proc/sys/net/ipv4/tcp_syncookies", "1").expect("our own namespace"));
    eventually("the proxy answers", || {
        let said = kdig(&network.client, SERVER_V4, "+tls +timeout=5 +retry=0 www.dotd.test A");
        assert!(is_answered_over_tls(&said), "{}", said.text);
        (proxied(&dotd).answered > 0).then_some(())
    });
    dotd.stop();
}

fn nft(namespace: &Namespace, words: &str) -> String {
    let mut command = Command::new("nft");
    command.arg(words).stdin(Stdio::null());
    let output = namespace.output(command);
    assert!(output.status.success(), "nft {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Goal: what the page says of the host's packet filter: it sees no SYN of a connection that the proxy began; the connection is new by
/// its ACK, and invalid with `nf_conntrack_tcp_loose = 0`. Method: counters of nftables, and kdig.
#[test]
fn a_packet_filter_sees_no_syn() {
    const RULES: &str = "table inet seen { \
        counter syns { }; counter begun { }; counter broken { }; \
        chain input { type filter hook input priority 0; iif lo accept; tcp dport != 853 accept; \
            tcp flags & (syn | ack) == syn counter name syns; \
            ct state new counter name begun; ct state invalid counter name broken; }; }";
    require!(Root, Bpf, Command("kdig"), Command("nft"));
    if !has_function("a_packet_filter_sees_no_syn") {
        return;
    }
    let network = Network::new();
    let dotd = Server::start(&network, &proxying());
    nft(&network.server, RULES);
    let counted = |name: &str| -> u64 {
        let said = nft(&network.server, &format!("list counter inet seen {name}"));
        let packets = said.split("packets ").nth(1).and_then(|rest| rest.split_whitespace().next());
        packets.and_then(|packets| packets.parse().ok()).unwrap_or_else(|| panic!("{said}"))
    };
    let ask = || {
        let said = kdig(&network.client, SERVER_V4, "+tls +timeout=5 +retry=1 www.dotd.test A");
        assert!(is_answered_over_tls(&said), "{}", said.text);
    };
    // A SYN a second is the stack's.
    eventually("five connections by the proxy", || {
        ask();
        (proxied(&dotd).completed >= 5).then_some(())
    });
    let completed = proxied(&dotd).completed;
    let (syns, begun, invalid) = (counted("syns"), counted("begun"), counted("broken"));
    assert!(begun >= syns + completed, "{begun} new, {syns} SYN, {completed} by the proxy");
    assert_eq!(invalid, 0);
    network
        .server
        .run(|| fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_loose", "0").expect("our own namespace"));
    eventually("a connection by the proxy is invalid", || {
        ask();
        (counted("broken") > 0).then_some(())
    });
    dotd.stop();
}
