//! Only packets for this machine are judged, and packets that it sends itself meet no limit.
//!
//! Before: namespaces with a router, a bridge and a third machine. After: counters, and the data that
//! the third machine received. Needs root; prints SKIPPED without.
//! Never: takes silence as success: a machine that must receive something receives it.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    process::Command,
    thread,
};

use dot_tests::{
    frames::{Build, CLEARTEXT_QUERY, QUERY},
    harness::{
        backends::{Backend, dnsperf_queries},
        clients::{DOT_PORT, dnsperf, is_answered_over_tls, kdig, tcp, udp},
        config::Config,
        eventually,
        flood::Wire,
        netns::{self, Namespace, Network, address},
        server::{Server, binary},
        stats::Stats,
    },
    require,
};

use nix::sys::signal::Signal;

/// A machine beside dotd's: it returns every datagram, accepts every connection and echoes its octets.
struct Third {
    namespace: Namespace,
}

impl Third {
    fn new() -> Self {
        Self { namespace: Namespace::new(false) }
    }

    /// Starts to answer on this address.
    fn answer(&self, at: IpAddr) {
        for port in [53, DOT_PORT] {
            let socket = self.namespace.run(move || UdpSocket::bind((at, port))).expect("a free port");
            thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((octets, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..octets], from);
                }
            });
        }
        let listener = self.namespace.run(move || TcpListener::bind((at, DOT_PORT))).expect("a free port");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = (&stream).write_all(b"third");
            }
        });
    }
}

/// Asks a third machine behind dotd's: every datagram must come back unchanged, and every connection must work.
fn ask(network: &Network, third: IpAddr) {
    for port in [53, DOT_PORT] {
        let socket = udp(&network.client, SocketAddr::new(third, port));
        for _ in 0..50 {
            socket.send(&QUERY).expect("a way there");
            let mut heard = [0; 512];
            let octets = socket.recv(&mut heard).unwrap_or_else(|error| panic!("{third}:{port}: {error}"));
            assert_eq!(heard[..octets], QUERY, "another server answered in its name");
        }
    }
    for _ in 0..20 {
        let mut stream = tcp(&network.client, SocketAddr::new(third, DOT_PORT));
        stream.write_all(&CLEARTEXT_QUERY).expect("cleartext is its own matter");
        let mut heard = [0; 5];
        std::io::Read::read_exact(&mut stream, &mut heard).expect("it says something");
        assert_eq!(&heard, b"third");
    }
}

/// Everything that the kernel half counted.
fn counted(stats: &Stats) -> u64 {
    ["pass", "drop", "would_drop", "answer"].iter().map(|verdict| stats.packets(verdict, "")).sum()
}

/// Limits that a second packet exceeds, and cookies for every SYN.
fn strict(mode: &str) -> Config {
    Config::new()
        .xdp(mode)
        .set("xdp", "syn_cookies", "\"always\"")
        .set("xdp.limit", "syn_per_second", "1")
        .set("xdp.limit", "syn_burst", "1")
        .set("xdp.limit", "udp53_per_second", "1")
        .set("xdp.limit", "udp53_burst", "1")
}

/// Asserts that dotd serves and that its packets are judged: a datagram to its port is counted.
fn assert_judges(network: &Network, dotd: &Server, at: IpAddr) {
    let socket = udp(&network.client, SocketAddr::new(at, DOT_PORT));
    eventually("packets for dotd are judged", || {
        socket.send(b"quic?").expect("a way there");
        (dotd.stats().packets("drop", "udp_on_dot") > 0).then_some(())
    });
}

/// Goal: a router's own packets are judged, and none that it forwards: no TC=1 in another machine's name, no datagram
/// dropped, no SYN answered, nothing counted. Method: a third machine behind dotd's, with a limit of one a second and a
/// cookie for every SYN. Covers: A-310.
#[test]
fn a_router_judges_only_its_own_packets() {
    require!(Root, Bpf);
    for mode in ["generic", "native"] {
        let (network, third) = (Network::new(), Third::new());
        network.server.join(&third.namespace, ["far", "third"], ["10.54.0.1/24", "10.54.0.2/24"]);
        network.server.run(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("our own namespace");
            std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").expect("our own namespace");
        });
        third.namespace.ip("route add default via 10.54.0.1");
        network.client.ip(&format!("route add 10.54.0.0/24 via {}", netns::SERVER_V4));
        third.answer(address("10.54.0.2"));
        let dotd = Server::start(&network, &strict(mode));
        ask(&network, address("10.54.0.2"));
        assert_eq!(counted(&dotd.stats()), 0, "{mode}: {:?}", dotd.stats());
        assert_judges(&network, &dotd, netns::SERVER_V4);
        // The router's address on the other side is local too.
        let before = counted(&dotd.stats());
        let socket = udp(&network.client, "10.54.0.1:853".parse().expect("an address"));
        eventually("the far address is ours", || {
            socket.send(b"quic?").expect("a way there");
            (counted(&dotd.stats()) > before).then_some(())
        });
        dotd.stop();
    }
}

/// Goal: the same on a bridge, whose port has XDP, beside a virtual machine on another port; dotd's own clients are served.
/// Method: the machine's address is the bridge's. Covers: A-310.
#[test]
fn a_bridge_judges_only_its_own_packets() {
    require!(Root, Bpf, Command("kdig"));
    for mode in ["generic", "native"] {
        let (network, third) = (Network::new(), Third::new());
        let server = &network.server;
        server.join(&third.namespace, ["tap", "third"], ["", "10.53.0.9/24"]);
        server.run(|| std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").expect("our own namespace"));
        server.ip("link add bridge type bridge");
        server.ip(&format!("address del {}/24 dev {}", netns::SERVER_V4, netns::SERVER_INTERFACE));
        for port in [netns::SERVER_INTERFACE, "tap"] {
            server.ip(&format!("link set {port} master bridge"));
        }
        server.ip(&format!("address add {}/24 dev bridge", netns::SERVER_V4));
        server.ip("link set bridge up");
        third.answer(address("10.53.0.9"));
        let dotd = Server::start(&network, &strict(mode));
        ask(&network, address("10.53.0.9"));
        assert_eq!(counted(&dotd.stats()), 0, "{mode}: {:?}", dotd.stats());
        assert_judges(&network, &dotd, netns::SERVER_V4);
        if mode == "generic" {
            // In native mode a veth loses the cookie that XDP sends.
            let said = kdig(&network.client, netns::SERVER_V4, "+tls www.dotd.test A");
            assert!(is_answered_over_tls(&said), "{}", said.text);
        }
        dotd.stop();
    }
}

/// Goal: a packet is judged once where a bridge and its port are both named, in either order. Method: ten connections
/// through the bridge, and the counters. Covers: A-320.
#[test]
fn a_packet_is_judged_once_in_a_stack_of_interfaces() {
    require!(Root, Bpf);
    for names in [["server", "bridge"], ["bridge", "server"]] {
        let network = Network::new();
        let server = &network.server;
        server.ip("link add bridge type bridge");
        server.ip(&format!("address del {}/24 dev server", netns::SERVER_V4));
        server.ip("link set server master bridge");
        server.ip(&format!("address add {}/24 dev bridge", netns::SERVER_V4));
        server.ip("link set bridge up");
        let config = Config::new().set("xdp", "interfaces", &format!("{names:?}"));
        let dotd = Server::start(&network, &config);
        for _ in 0..10 {
            drop(tcp(&network.client, SocketAddr::new(netns::SERVER_V4, DOT_PORT)));
        }
        let stats = dotd.counts("all have come", |stats| stats.counter("connections", "accepted") == 10);
        assert_eq!(stats.packets("pass", "syn"), 10, "{names:?}");
        dotd.stop();
    }
}

/// Goal: addresses that come and go while dotd serves without rights are followed: secondary ones, of either IP
/// version, and prefixes that were made local. Method: raw frames, until the counter shows it. Covers: A-313.
#[test]
fn changed_addresses_are_followed() {
    require!(Root, Bpf);
    let network = Network::new();
    let dotd = Server::start(&network, &Config::new());
    let wire = Wire::open(&network);
    let server = &network.server;
    let interface = netns::SERVER_INTERFACE;
    for (target, add, remove) in [
        (
            "10.53.0.77",
            format!("address add 10.53.0.77/24 dev {interface}"),
            format!("address del 10.53.0.77/24 dev {interface}"),
        ),
        (
            "fd53::77",
            format!("address add fd53::77/64 dev {interface} nodad"),
            format!("address del fd53::77/64 dev {interface}"),
        ),
        (
            "10.99.0.5",
            "route add local 10.99.0.0/24 dev lo".to_owned(),
            "route del local 10.99.0.0/24 dev lo".to_owned(),
        ),
    ] {
        let target = address(target);
        let client = if target.is_ipv6() { netns::CLIENT_V6 } else { netns::CLIENT_V4 };
        let frame = || Build::udp(853, b"quic?").client(client).server(target).frame();
        let is_counted = || {
            let before = counted(&dotd.stats());
            assert!(wire.send(frame()), "the pair takes it");
            // It is followed by a frame that is certainly counted.
            let fence = Build::udp(853, b"fence").client(netns::CLIENT_V4).server(netns::SERVER_V4);
            assert!(wire.send(fence.frame()), "the pair takes it");
            let now = dotd.counts("the fence is counted", |stats| counted(stats) > before);
            counted(&now) - before > 1
        };
        assert!(!is_counted(), "{target} is not ours yet");
        server.ip(&add);
        eventually("the new address is judged", || is_counted().then_some(()));
        server.ip(&remove);
        eventually("the old address is judged no more", || (!is_counted()).then_some(()));
    }
    dotd.stop();
}

/// Goal: the config that packages install does not limit its own backend: no answer or drop of the kernel half comes
/// between dotd and a server on 127.0.0.1:53, on an interface list that includes lo. Method: NSD there, ten thousand
/// queries over TLS; verdicts, not time. Covers: A-311, A-312.
#[test]
fn the_packaged_config_leaves_its_backend_alone() {
    require!(Root, Bpf, Command("nsd"), Command("dnsperf"));
    for asked_for in [false, true] {
        let network = Network::new();
        let _nsd = Backend::nsd_at(&network, "127.0.0.1:53".parse().expect("an address"));
        let mut dotd = Server::start(&network, &Config::packaged());
        let said = dotd.operate(&["xdp", "show"]);
        assert!(said.has(" lo: tc"), "the judge is on lo: {}", said.text);
        if asked_for {
            // Also where an operator limits port 53, packets to the backend still come from this machine itself.
            let text = Config::packaged().text(&dotd.folder().join("state"), &dotd.folder().join("run"));
            dotd.rewrite_config_text(&text.replace("port_53 = \"auto\"", "port_53 = \"on\""));
            dotd.signal(Signal::SIGHUP);
            dotd.counts("the limits hold", |stats| stats.counter("control", "reloads_ok") == 1);
        }
        let queries = dotd.write("queries", dnsperf_queries(10_000));
        let said = dnsperf(&network.client, netns::SERVER_V4, &queries, "-c 5 -q 200 -t 10");
        assert_eq!(said.number_after("Queries completed:"), 10_000, "{}", said.text);
        let stats = dotd.stats();
        for verdict in ["drop", "answer", "would_drop"] {
            assert_eq!(stats.packets(verdict, ""), 0, "{verdict}: {stats:?}");
        }
        assert_eq!(stats.counter("backend", "timeout"), 0, "{stats:?}");
        assert_eq!(stats.packets("pass", "do53_datagram"), 0, "a limit looked at the backend's datagrams");
        let own = stats.packets("pass", "own");
        assert!(if asked_for { own > 100 } else { own == 0 }, "{own}: {stats:?}");
        dotd.stop();
    }
}

/// Goal: behind a redirection of port 853 no gate holds, as docs/config.md says, and `dotd check` warns of it. Method: dotd on 8853,
/// nftables redirects 853 there; cleartext comes to the engine, and XDP counts none of it; on the port itself the gate holds.
/// Covers: A-797
#[test]
fn a_redirected_port_is_not_judged_and_check_says_so() {
    require!(Root, Bpf, Command("nft"), Command("kdig"));
    let network = Network::new();
    let config = Config::new().xdp("generic").set("listen", "dot", r#"["0.0.0.0:8853"]"#);
    let dotd = Server::start(&network, &config);
    let mut nft = Command::new("nft");
    nft.arg("table ip nat { chain prerouting { type nat hook prerouting priority dstnat; tcp dport 853 redirect to :8853; }; }");
    let output = network.server.output(nft);
    assert!(output.status.success(), "{output:?}");
    let said = kdig(&network.client, netns::SERVER_V4, "+tls www.dotd.test A");
    assert!(is_answered_over_tls(&said), "{}", said.text);
    let mut stream = tcp(&network.client, SocketAddr::new(netns::SERVER_V4, DOT_PORT));
    stream.write_all(&CLEARTEXT_QUERY).expect("open");
    let stats =
        dotd.counts("the engine refuses it", |stats| stats.counter("handshakes", "failed_not_tls") == 1);
    assert_eq!(counted(&stats), 0, "{stats:?}");
    let mut stream = tcp(&network.client, SocketAddr::new(netns::SERVER_V4, 8853));
    stream.write_all(&CLEARTEXT_QUERY).expect("open");
    dotd.counts("the gate holds on the port itself", |stats| stats.packets("drop", "cleartext_on_dot") >= 1);
    let mut check = Command::new(binary());
    check.arg("check").arg("-c").arg(dotd.folder().join("dotd.toml"));
    let output = network.server.output(check);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("listen.dot has no port 853: if nftables"), "{said}");
    dotd.stop();
}
