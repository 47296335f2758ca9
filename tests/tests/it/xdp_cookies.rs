//! SYNs that XDP answers with the kernel's cookies: built frames, and real clients under a flood of spoofed ones.
//!
//! Before: a listener whose namespace makes cookies. After: SYN-ACKs without state, and connections that work. Needs
//! root; prints SKIPPED without. Never: takes a connection as proof that XDP made the cookie, because the kernel could
//! have made it; its counters show that.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use aya::Ebpf;
use dot_common::{
    maps::PROGRAM_COOKIE,
    settings::Gate,
    tail_calls,
    verdict::{Action, Reason, Verdict},
};
use dot_tests::{
    frames::{ACK, Build, CLEARTEXT_QUERY, CLIENT_HELLO, SYN, checksum, shapes},
    harness::{
        clients::{DOT_PORT, is_answered_over_tls, kdig, read_to_close, s_client, tcp},
        config::Config,
        eventually,
        flood::Flood,
        netns::{CLIENT_INTERFACE, CLIENT_V4, Network, SERVER_V4, SERVER_V6},
        server::Server,
        stats::Stats,
    },
    require,
    xdp_field::{ip, isolated, listeners, pass_everything},
    xdp_lab::{Lab, XDP_PASS, XDP_TX, settings},
};

use socket2::{Domain, Socket, Type};

const COOKIE: Verdict = Verdict { action: Action::Answer, reason: Reason::SynCookie };
const PASSES: Verdict = Verdict::pass(Reason::Syn);
const INITIAL: u32 = 0xffff_fffe;

/// Sets how the calling thread's namespace makes cookies.
fn sysctl(value: &'static str) {
    fs::write("/proc/sys/net/ipv4/tcp_syncookies", value).expect("our own namespace");
}

fn syn() -> Build {
    Build::tcp(853, SYN, INITIAL, &[]).tcp_options(20)
}

/// A listener of both IP versions on the addresses of built frames, in namespaces of this thread.
fn with_listener(test: &str, body: fn()) {
    isolated(test, body);
}

fn lab(test: &str) -> Lab {
    ip("address add 2001:db8::1/64 dev here nodad");
    Lab::open_with_tail_calls(test, &settings(Gate::Drop), &[(tail_calls::COOKIE, PROGRAM_COOKIE)])
        .expect("root")
}

/// Goal: a SYN to a listener becomes a lawful SYN-ACK, never longer than it was: addresses and ports swapped, both
/// checksums right, the client's number acknowledged, the MSS as the only option; for every arrangement of headers that
/// may be answered, and the others go to the stack. Method: frames in a namespace that always makes cookies. Covers:
///
#[test]
fn a_syn_becomes_its_own_syn_ack() {
    with_listener("a_syn_becomes_its_own_syn_ack", || {
        sysctl("2");
        let mut lab = lab("a_syn_becomes_its_own_syn_ack");
        let _listeners = listeners("[::]:853", 1);
        let mut turned = Vec::new();
        for (name, shape) in shapes() {
            let build = shape(syn());
            let frame = build.frame();
            let outcome = lab.judge(&frame.octets);
            if outcome.action != XDP_TX {
                assert_eq!((outcome.action, outcome.verdict), (XDP_PASS, Some(PASSES)), "{name}");
                assert_eq!(outcome.octets, frame.octets, "{name}: passed, but not as it was");
                continue;
            }
            assert_eq!(outcome.verdict, Some(COOKIE), "{name}");
            assert!(outcome.octets.len() <= frame.octets.len(), "{name}: longer than the SYN");
            let reply = build.reply();
            assert_eq!(outcome.octets[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], "{name}");
            let (header, segment) = outcome.octets[frame.ip..].split_at(frame.transport - frame.ip);
            let wanted = reply.frame();
            if header[0] >> 4 == 4 {
                assert_eq!(checksum(&[header]), 0, "{name}: IP checksum");
                assert_eq!(header[2..4], [0, 44], "{name}");
                assert_eq!(header[12..20], wanted.octets[wanted.ip + 12..][..8], "{name}: addresses");
            } else {
                assert_eq!(header[4..6], [0, 24], "{name}");
                assert_eq!(header[8..40], wanted.octets[wanted.ip + 8..][..32], "{name}: addresses");
            }
            let segment = &segment[..24];
            assert_eq!(reply.transport_checksum(segment), 0, "{name}: TCP checksum");
            assert_eq!(segment[..4], wanted.octets[wanted.transport..][..4], "{name}: ports");
            assert_eq!(segment[8..12], INITIAL.wrapping_add(1).to_be_bytes(), "{name}: acknowledgment");
            assert_eq!((segment[12], segment[13]), (0x60, SYN | ACK), "{name}");
            // The SYN had no MSS option: 536, which the kernel's table has for that.
            assert_eq!(segment[20..22], [2, 4], "{name}: MSS alone");
            turned.push(name);
        }
        let wanted = [
            "v4",
            "v4_padded_to_sixty_octets",
            "v4_forty_octets_of_tcp_options",
            "vlan_then_v4",
            "two_vlan_tags_then_v4",
            "v6",
            "vlan_then_v6",
            "eight_priority_tags_then_v4",
        ];
        assert_eq!(turned, wanted, "options and extension headers are the stack's");
        assert_eq!(lab.flows(), [], "a SYN's own word is written nowhere");
    });
}

/// Goal: every packet except a plain SYN to a listener of this machine goes to the stack: other kinds of segment, other
/// ports and addresses, multicast, and every SYN for which the kernel wants no cookie. Method: a table.
#[test]
fn what_the_kernel_wants_no_cookie_for_is_the_stacks() {
    with_listener("what_the_kernel_wants_no_cookie_for_is_the_stacks", || {
        sysctl("2");
        let mut lab = lab("what_the_kernel_wants_no_cookie_for_is_the_stacks");
        let _listeners = listeners("[::]:853", 1);
        let elsewhere: IpAddr = "203.0.113.5".parse().unwrap();
        fs::write("/proc/sys/net/ipv4/conf/lo/forwarding", "1").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/lo/forwarding", "1").unwrap();
        ip("route add default dev here");
        ip("-6 route add default dev here");
        let group = syn().frame().patched(0, &[1, 0, 0x5e, 0, 0, 1]);
        for (name, frame, wanted) in [
            ("to the listener", syn().frame(), COOKIE),
            ("to the listener, IPv6", syn().v6().frame(), COOKIE),
            ("without options", Build::tcp(853, SYN, INITIAL, &[]).frame(), COOKIE),
            ("to a port without a listener", Build::tcp(8853, SYN, INITIAL, &[]).frame(), PASSES),
            ("to another machine", syn().server(elsewhere).frame(), PASSES),
            ("to another machine, IPv6", syn().v6().server("2001:db8:9::5".parse().unwrap()).frame(), PASSES),
            ("to a group", group, PASSES),
            ("with FIN", Build::tcp(853, SYN | 1, INITIAL, &[]).frame(), PASSES),
            (
                "with octets",
                Build::tcp(853, SYN, INITIAL, &CLIENT_HELLO).frame(),
                Verdict::pass(Reason::ClientHello),
            ),
            ("SYN-ACK", Build::tcp(853, SYN | ACK, INITIAL, &[]).frame(), Verdict::pass(Reason::Control)),
        ] {
            let outcome = lab.judge(&frame.octets);
            assert_eq!(outcome.verdict, Some(wanted), "{name}");
            let is_answered = wanted == COOKIE;
            assert_eq!(outcome.action, if is_answered { XDP_TX } else { XDP_PASS }, "{name}");
            assert!(is_answered || outcome.octets == frame.octets, "{name}: passed, but not as it was");
        }
        for value in ["0", "1"] {
            sysctl(value);
            assert_eq!(lab.judge(&syn().frame().octets).verdict, Some(PASSES), "tcp_syncookies = {value}");
        }
    });
}

/// A counter of TCP in the calling thread's namespace.
fn tcp_counter(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").expect("readable");
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let place = names.split(' ').position(|other| other == name).expect("a counter of Linux");
    values.split(' ').nth(place).and_then(|value| value.parse().ok()).expect("a number")
}

/// dotd that asks for cookies, in a namespace with `value` for tcp_syncookies, and the holder of the peer's program.
fn started(mode: &str, value: &'static str, config: Config) -> (Network, Option<Ebpf>, Server) {
    let network = Network::new();
    network.server.run(move || sysctl(value));
    let peer = (mode == "native").then(|| network.client.run(|| pass_everything(CLIENT_INTERFACE)));
    let dotd = Server::start(&network, &config.xdp(mode));
    (network, peer, dotd)
}

fn asking(how: &str) -> Config {
    Config::new().set("xdp", "syn_cookies", &format!("\"{how}\""))
}

/// Goal: real clients connect with XDP's cookies, over both IP versions, natively and generic; cleartext is refused by
/// the TLS layer, because the gate does not know such a connection; the learner records nothing. Method: every SYN gets
/// a cookie; kdig, openssl, a bare socket; the kernel's counters show that it checked cookies and made none. Covers:
/// A-74, C-9.
#[test]
fn real_clients_connect_by_cookies() {
    require!(Root, Bpf, Command("kdig"), Command("openssl"));
    for mode in ["generic", "native"] {
        let (network, _peer, dotd) = started(mode, "2", asking("always"));
        let mut connected = 0;
        for address in [SERVER_V4, SERVER_V6] {
            for _ in 0..3 {
                let said = kdig(&network.client, address, "+tls www.dotd.test A");
                assert!(is_answered_over_tls(&said), "{mode} {address}: {}", said.text);
                connected += 1;
            }
            let said = s_client(&network.client, address, &["-brief"]);
            assert!(said.has("CONNECTION ESTABLISHED"), "{mode} {address}: {}", said.text);
            connected += 1;
        }
        let mut bare = tcp(&network.client, (SERVER_V4, DOT_PORT).into());
        bare.write_all(&CLEARTEXT_QUERY).expect("open");
        let heard = read_to_close(&mut bare);
        assert!(heard.first().is_none_or(|kind| *kind == 0x15), "{mode}: an alert at most: {heard:02x?}");
        let stats = dotd.stats();
        assert_eq!(stats.packets("answer", "syn_cookie"), connected + 1, "{mode}");
        assert_eq!(stats.packets("pass", "syn"), 0, "{mode}");
        assert!(stats.packets("pass", "unknown_flow") > 0, "{mode}: a SYN's own word was believed");
        let counter = |name: &'static str| network.server.run(move || tcp_counter(name));
        assert_eq!(counter("SyncookiesRecv"), connected + 1, "{mode}: the kernel checks them");
        assert_eq!(counter("SyncookiesSent"), 0, "{mode}: the kernel made some itself");
        let said = dotd.operate(&["xdp", "show"]);
        assert!(said.has("cookies      always\n") && said.has("dotd_cookie"), "{}", said.text);
        dotd.stop();
    }
}

/// Goal: where the kernel makes no cookies SYNs pass and clients connect as usual, and `xdp show` and `check` say why;
/// where it makes them only for full queues, they say that. Method: both values of the sysctl.
#[test]
fn what_is_not_active_says_why() {
    require!(Root, Bpf, Command("kdig"));
    for (value, line) in [
        ("0", "cookies      off (net.ipv4.tcp_syncookies is 0: set it to 1)\n"),
        ("1", "cookies      always (while a listener's queue is full)\n"),
    ] {
        let (network, _peer, dotd) = started("generic", value, asking("always"));
        let said = kdig(&network.client, SERVER_V4, "+tls www.dotd.test A");
        assert!(is_answered_over_tls(&said), "{value}: {}", said.text);
        let stats = dotd.stats();
        assert_eq!((stats.packets("answer", "syn_cookie"), stats.packets("pass", "syn")), (0, 1), "{value}");
        let said = dotd.operate(&["xdp", "show"]);
        assert!(said.has(line), "{value}: {}", said.text);
        dotd.stop();
    }
}

/// Sends cleartext to dotd from the same port each time, until `is_seen`; then resets the connection.
fn say_cleartext(network: &Network, is_seen: impl Fn() -> bool) {
    let stream: TcpStream = network.client.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("root may");
        socket.bind(&SocketAddr::new(CLIENT_V4, 40_000).into()).expect("a free port");
        socket.set_linger(Some(Duration::ZERO)).expect("a reset at its end");
        socket.connect(&SocketAddr::new(SERVER_V4, DOT_PORT).into()).expect("a listener");
        socket.into()
    });
    (&stream).write_all(&CLEARTEXT_QUERY).expect("open");
    eventually("the kernel half has seen it", || is_seen().then_some(()));
}

/// Goal: the learner records nothing from a SYN-ACK that is a cookie of the stack, and deletes what it knew about these
/// ports: until the ACK arrives it is unknown which SYN the cookie answers, so the number of another SYN must not say
/// where the stream begins. Method: cleartext from one port, first behind a request, which the gate knows, then behind
/// a cookie.
#[test]
fn cookies_of_the_stack_teach_the_gate_nothing() {
    require!(Root, Bpf);
    let (network, _peer, dotd) = started("generic", "1", Config::new());
    say_cleartext(&network, || dotd.stats().packets("drop", "cleartext_on_dot") > 0);
    dotd.counts("the reset has come", |stats| stats.counter("connections_open", "open") == 0);
    network.server.run(|| sysctl("2"));
    say_cleartext(&network, || dotd.stats().packets("pass", "unknown_flow") > 0);
    assert_eq!(dotd.stats().packets("pass", "stream"), 0, "it was looked for in the wrong place");
    assert!(network.server.run(|| tcp_counter("SyncookiesRecv")) > 0, "it came by a cookie");
    dotd.stop();
}

/// The least number of frames of the flood, and the number after which it ends by itself.
const FRAMES: u64 = 20_000;
const FRAMES_MAX: u64 = 50_000_000;

/// Goal: under a flood of SYNs from a million spoofed addresses, at the default `tcp_syncookies = 1`, XDP answers with
/// cookies once the flood is above the rate and the queue is full; real clients connect meanwhile with XDP's cookies;
/// each SYN is counted once. Method: raw SYNs from one end, kdig from there too. Covers: A-74, C-9.
#[test]
fn clients_connect_through_a_spoofed_flood() {
    require!(Root, Bpf, Command("kdig"));
    for mode in ["generic", "native"] {
        let config = asking("auto").set("xdp.limit", "syn_flood_rate", "1000");
        let (network, _peer, dotd) = started(mode, "1", config);
        // SYN-ACKs for these addresses get no answer, as on a real network.
        network.server.ip(&format!("route add default via {CLIENT_V4}"));
        let flood = Flood::start(&network, |number| {
            let client = Ipv4Addr::from_bits(0x0a80_0000 + (number % 1_000_000) as u32);
            let syn = Build::tcp(853, SYN, number as u32, &[]).tcp_options(4);
            (number < FRAMES_MAX).then(|| syn.client(client.into()).server(SERVER_V4).frame())
        });
        dotd.counts("the flood is answered", |stats| stats.packets("answer", "syn_cookie") > FRAMES);
        let serve = || {
            let said = kdig(&network.client, SERVER_V4, "+tls +timeout=10 www.dotd.test A");
            assert!(is_answered_over_tls(&said), "{mode}: {}", said.text);
        };
        (0..20).for_each(|_| serve());
        // The learner does record the kernel's own SYN-ACKs, so such connections are not unknown. On a busy machine the
        // flood may have been below the rate for all of the above.
        eventually("a client comes by a cookie of XDP's", || {
            serve();
            (dotd.stats().packets("pass", "unknown_flow") > 0).then_some(())
        });
        let before = dotd.stats().packets("answer", "syn_cookie");
        dotd.counts("it goes on", |stats| stats.packets("answer", "syn_cookie") > before + FRAMES);
        let sent = flood.stop();
        let taken = |stats: &Stats| stats.packets("answer", "syn_cookie") + stats.packets("pass", "syn");
        let mut last = 0;
        eventually("the counters stand still", || {
            let now = taken(&dotd.stats());
            std::mem::replace(&mut last, now).eq(&now).then_some(())
        });
        assert!((sent..sent + 200).contains(&last), "{mode}: {sent} and kdig's sent, {last} counted");
        assert!(
            network.server.run(|| tcp_counter("SyncookiesRecv")) > 0,
            "{mode}: no client came by a cookie"
        );
        println!("{mode}: {sent} SYN, {} by cookie", dotd.stats().packets("answer", "syn_cookie"));
        dotd.stop();
    }
}
