//! RFC 9210, DNS over TCP in operation: an operator's caps and deadlines, and how they are reported.
//!
//! Before: `harness::scene` with one cap lowered. After: the cap holds, is counted, and affects no client below it.

use std::{
    fs,
    io::Write,
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::TcpFastOpenConnect};
use socket2::{Domain, Socket, Type};

use dot_tests::{
    harness::{
        DEADLINE,
        clients::{DOT_PORT, http, read_to_close, tcp},
        config::Config,
        dot::{Dot, End},
        eventually,
        message::{A, Query, framed, reply_to, www},
        netns::{Namespace, Network, SERVER_V4, SERVER_V6},
        offer::Offer,
        scene::{HONEST, embedded, honest, scripted, scripted_with},
        scratch::Scratch,
        scripted::{Act, Received, Scripted},
        server::Server,
    },
    require,
};

/// Goal: `queries_max` ends a session after its last answer, with close_notify (RFC 9210 §4.2).
/// Method: five are allowed, seven are sent in one write; five come back. Covers: C-24
#[test]
fn queries_max_ends_a_session_in_order() {
    require!(Root);
    let (network, _backend, dotd) = scripted(Config::new().set("session", "queries_max", "5"), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask_all(&(0..7).map(www).collect::<Vec<_>>());
    let mut ids: Vec<u16> = (0..5).map(|_| session.receive().id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2, 3, 4]);
    assert_eq!((session.receive_octets(), session.end()), (None, End::CloseNotify));
    dotd.counts("it is counted", |stats| stats.counter("session_ends", "queries") == 1);
}

/// Goal: `duration_max` ends even a busy session, with close_notify.
/// Method: one second is allowed; the client asks until it ends. Covers: C-24
#[test]
fn duration_max_ends_a_busy_session() {
    require!(Root);
    let (network, _backend, dotd) = scripted(Config::new().set("session", "duration_max", "\"1s\""), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    while session.is_quiet() {
        session.ask(&www(1));
        if session.receive_octets().is_none() {
            break;
        }
    }
    assert_eq!(session.end(), End::CloseNotify);
    dotd.counts("it is counted", |stats| stats.counter("session_ends", "duration") == 1);
}

/// Goal: queries that a session has in flight when its time is over are still answered (RFC 7766 §6.2.3). Method: a
/// query that the backend holds until after `duration_max`; its answer, then close_notify. Covers: C-24
#[test]
fn duration_max_owes_no_answer() {
    require!(Root);
    let hold = |query: &Received| vec![Act::Hold(reply_to(&query.octets, A, &[HONEST.to_vec()]))];
    let config = Config::new().set("session", "duration_max", "\"2s\"");
    let (network, backend, dotd) = scripted_with(config, "timeout = \"30s\"", hold);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask(&www(1));
    eventually("it is held", || (backend.held() == 1).then_some(()));
    thread::sleep(Duration::from_millis(2500));
    backend.release();
    assert_eq!((session.receive().id, session.receive_octets()), (1, None));
    assert_eq!(session.end(), End::CloseNotify);
    dotd.counts("it is counted", |stats| stats.counter("session_ends", "duration") == 1);
}

/// Holds every answer until it is released, so that a client that asked is not idle.
fn hold(query: &Received) -> Vec<Act> {
    vec![Act::Hold(reply_to(&query.octets, A, &[HONEST.to_vec()]))]
}

/// Sessions that wait for an answer, each to query 1.
fn busy<const COUNT: usize>(network: &Network, backend: &Scripted, servers: [IpAddr; COUNT]) -> [Dot; COUNT] {
    let sessions = servers.map(|server| {
        let mut session = Dot::connect(&network.client, server);
        session.ask(&www(1));
        session
    });
    eventually("all wait at the backend", || (backend.held() == COUNT).then_some(()));
    sessions
}

/// Goal: one client prefix gets no more than its share of connections, and another is served (RFC 9210 §4.2). Method:
/// three are allowed, and busy; the fourth from IPv4 is closed, the first from IPv6 is served; a free place is used
/// again. Covers: C-25
#[test]
fn a_prefix_has_its_cap() {
    require!(Root);
    let config = Config::new().set("session", "connections_per_prefix_max", "3");
    let (network, backend, dotd) = scripted_with(config, "timeout = \"30s\"", hold);
    let [first, mut second, mut third] = busy(&network, &backend, [SERVER_V4; 3]);
    let refused = Dot::attempt(&network.client, SERVER_V4, &Offer::default());
    assert!(matches!(refused, Err(End::BareFin | End::Reset)), "{refused:?}");
    let _other = Dot::connect(&network.client, SERVER_V6);
    assert_eq!(dotd.stats().counter("connections", "refused_prefix_cap"), 1);
    first.abort();
    dotd.counts("a place is free", |stats| stats.counter("connections_open", "open") == 3);
    let _again = Dot::connect(&network.client, SERVER_V4);
    backend.release();
    for session in [&mut second, &mut third] {
        assert_eq!(session.receive().rdata(A), [HONEST]);
    }
    assert_eq!(dotd.stats().counter("session_ends", "evicted"), 0);
}

/// Goal: a listen address gets no more than its share of connections, and another has its own; at the cap the longest
/// idle session of that address gives way, with close_notify (RFC 9210 §4.2, RFC 7766 §6.2.2). Method: two are allowed,
/// and busy; the third to IPv4 is closed, one to IPv6 is served; a free place is used again; after the answers have
/// arrived, a further connection gets the place of an idle one. Covers: C-244
#[test]
fn a_listener_has_its_cap() {
    require!(Root);
    let config =
        Config::new().set("server", "workers", "1").set("session", "connections_per_listener_max", "2");
    let (network, backend, dotd) = scripted_with(config, "timeout = \"30s\"", hold);
    let [first, mut second] = busy(&network, &backend, [SERVER_V4; 2]);
    let refused = Dot::attempt(&network.client, SERVER_V4, &Offer::default());
    assert!(matches!(refused, Err(End::BareFin | End::Reset)), "{refused:?}");
    let mut other = Dot::connect(&network.client, SERVER_V6);
    assert_eq!(dotd.stats().counter("connections", "refused_listener_cap"), 1);
    first.abort();
    dotd.counts("a place is free", |stats| stats.counter("connections_open", "open") == 2);
    let mut again = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(dotd.stats().counter("session_ends", "evicted"), 0);
    backend.release();
    assert_eq!(second.receive().rdata(A), [HONEST]);
    let _new = eventually("one that is idle gives way", || {
        Dot::attempt(&network.client, SERVER_V4, &Offer::default()).ok()
    });
    let stats = dotd.counts("it is counted", |stats| stats.counter("session_ends", "evicted") == 1);
    assert!(other.is_quiet(), "the other address has its own cap");
    assert_eq!(again.end(), End::CloseNotify);
    assert!(second.is_quiet(), "it was busy later");
    assert_eq!(stats.counter("connections", "refused_total_cap"), 0);
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: a client prefix begins no more handshakes than its rate allows, without XDP, and another has its own; a reload
/// takes the limit away. Method: a rate of one a second, a burst of two; handshakes until one is refused; one from
/// IPv6; ten after the reload. Covers: C-244, A-233
#[test]
fn handshakes_have_a_rate_without_xdp() {
    require!(Root);
    let config = Config::new().xdp("off");
    let limited = config.clone().set("session", "handshakes_per_second", "1");
    let (network, dotd) = embedded(&limited);
    let mut served = Vec::new();
    let refused = (0..100).find_map(|_| {
        Dot::attempt(&network.client, SERVER_V4, &Offer::default()).map(|session| served.push(session)).err()
    });
    assert!(matches!(refused, Some(End::BareFin | End::Reset)), "{refused:?}");
    assert!(served.len() >= 2, "two at once: {}", served.len());
    let _other = Dot::connect(&network.client, SERVER_V6);
    let stats = dotd.stats();
    let count = |label| stats.counter("connections", label);
    assert_eq!((count("refused_handshake_rate"), count("accepted")), (1, served.len() as u64 + 2));
    assert_eq!(stats.sum("handshakes", "full_tls13"), served.len() as u64 + 1);
    assert_eq!(stats.difference(), [0; 3]);
    dotd.rewrite_config(&config);
    let said = dotd.operate(&["reload"]);
    assert!(said.is_success, "{}", said.text);
    let _unlimited: Vec<Dot> = (0..10).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
    assert_eq!(dotd.stats().counter("connections", "refused_handshake_rate"), 1);
}

/// Goal: the process has a cap for all clients together. Method: two are allowed, over both families, and busy; the
/// third is closed and counted. Covers: C-25
#[test]
fn the_process_has_its_cap() {
    require!(Root);
    let config = Config::new().set("session", "connections_max", "2");
    let (network, backend, dotd) = scripted_with(config, "timeout = \"30s\"", hold);
    let mut held = busy(&network, &backend, [SERVER_V4, SERVER_V6]);
    let refused = Dot::attempt(&network.client, SERVER_V4, &Offer::default());
    assert!(matches!(refused, Err(End::BareFin | End::Reset)), "{refused:?}");
    let stats = dotd.counts("it is counted", |stats| stats.counter("connections", "refused_total_cap") == 1);
    assert_eq!(stats.counter("connections", "accepted"), 3);
    backend.release();
    for session in &mut held {
        assert_eq!(session.receive().rdata(A), [HONEST]);
    }
}

/// Goal: at the cap the session that has been idle longest gives way, with close_notify, and the new connection is
/// served (RFC 7766 §6.2.2); at a prefix's cap it is a session of that prefix, even if another one has been idle
/// longer. Method: three places, for all or for the prefix; sessions that were busy one after the other; a fourth.
/// Covers: C-25
#[test]
fn the_longest_idle_session_gives_way() {
    require!(Root);
    for (cap, gone) in [("connections_max", 0), ("connections_per_prefix_max", 1)] {
        let config = Config::new().set("server", "workers", "1").set("session", cap, "3");
        let (network, _backend, dotd) = scripted(config, honest);
        let from_v4 = if cap == "connections_max" { 2 } else { 3 };
        let servers = std::iter::once(SERVER_V6).chain(std::iter::repeat_n(SERVER_V4, from_v4));
        let mut sessions: Vec<Dot> = servers.map(|server| Dot::connect(&network.client, server)).collect();
        for session in &mut sessions {
            assert_eq!(session.exchange(&www(1)).rdata(A), [HONEST]);
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(1200));
        let mut new = Dot::connect(&network.client, SERVER_V4);
        assert_eq!(new.exchange(&www(2)).rdata(A), [HONEST]);
        assert_eq!(sessions.remove(gone).end(), End::CloseNotify, "{cap}");
        for session in &mut sessions {
            assert_eq!(session.exchange(&www(3)).rdata(A), [HONEST], "{cap}");
        }
        let stats = dotd.stats();
        assert_eq!(stats.counter("session_ends", "evicted"), 1);
        assert_eq!((stats.sum("connections", "refused_"), stats.difference()), (0, [0; 3]));
    }
}

/// Goal: the cap on connections stays below the limit on open files, and the log says so (§4.2).
/// Method: prlimit gives dotd 1024 descriptors. Covers: C-26
#[test]
fn connections_max_fits_the_open_files() {
    require!(Root, Command("prlimit"));
    let network = Network::new();
    let wrapper = ["prlimit", "--nofile=1024:1024"];
    let dotd = Server::launch(&network, &Config::new().xdp("off"), Scratch::new(), &wrapper);
    let ended = dotd.stop();
    let line = ended.stderr.lines().find(|line| line.contains("connections_max=")).expect("a line about it");
    let cap = line.split("connections_max=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let cap: u32 = cap.and_then(|digits| digits.parse().ok()).expect("a number");
    assert!((1..1024).contains(&cap), "{line}");
}

/// Goal: `in_flight_max` is backpressure, not refusal: more queries wait in the socket and are all answered.
/// Method: four in flight, two hundred in one write. Covers: C-17
#[test]
fn in_flight_max_is_backpressure() {
    require!(Root);
    let (network, _backend, dotd) = scripted(Config::new().set("session", "in_flight_max", "4"), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask_all(&(0..200).map(www).collect::<Vec<_>>());
    let mut ids: Vec<u16> = (0..200).map(|_| session.receive().id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..200).collect::<Vec<_>>());
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: metrics cover TLS connections and queries fully (§6), in OpenMetrics form, and health is 200. Method:
/// `control.http`; both paths by hand. Covers: C-29
#[test]
fn metrics_and_health_are_served() {
    require!(Root);
    let (network, dotd) = embedded(&Config::new().set("control", "http", "\"127.0.0.1:8853\""));
    let _ = Dot::connect(&network.client, SERVER_V4).exchange(&Query::new(1, "dotd.test", A).octets());
    dotd.counts("it is counted", |stats| stats.counter("responses", "NOERROR") == 1);
    let ask = |path: &str| http(&network.server, path);
    let metrics = ask("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.trim_end().ends_with("# EOF"), "{metrics}");
    for part in
        ["dotd_packets_total{", "dotd_handshakes_total{", "dotd_queries_total{", "dotd_responses_total{"]
    {
        assert!(metrics.contains(part), "{part} in {metrics}");
    }
    assert!(ask("/health").starts_with("HTTP/1.1 200"));
    assert!(ask("/other").starts_with("HTTP/1.1 404"));
}

/// A counter of TCP's in this thread's network namespace.
fn tcp_counter(wanted: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").expect("Linux has it");
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(name, _)| *name == wanted).map_or(0, |(_, value)| value.parse().expect("a number"))
}

/// Sets `net.ipv4.tcp_fastopen`: whether clients and servers may use it, with or without a cookie.
fn permit_fast_open(namespace: &Namespace, bits: u32) {
    let setting = "/proc/sys/net/ipv4/tcp_fastopen";
    namespace.run(move || fs::write(setting, bits.to_string()).expect("our own namespace"));
}

/// A connection whose first octets go out with its SYN.
fn fast_open(network: &Network) -> TcpStream {
    network.client.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        setsockopt(&socket, TcpFastOpenConnect, &true).expect("Linux has it");
        socket.connect(&SocketAddr::new(SERVER_V4, DOT_PORT).into()).expect("nothing is sent yet");
        socket.set_read_timeout(Some(DEADLINE)).expect("not zero");
        socket.into()
    })
}

/// Goal: with `listen.fast_open` a ClientHello in a SYN is served (§4.1, RFC 7858 §3.4), also through XDP; a query in
/// cleartext there gets no DNS answer. If the machine does not permit Fast Open, `status` says so, and clients are
/// served with ordinary handshakes. Method: TCP_FASTOPEN_CONNECT without cookies; the kernel's own counter. Covers:
/// C-10
#[test]
fn a_hello_in_a_syn_is_served() {
    require!(Root, Bpf);
    let query = Query::new(1, "dotd.test", A).octets();
    let passive = |network: &Network| network.server.run(|| tcp_counter("TCPFastOpenPassive"));
    for mode in ["native", "off"] {
        let network = Network::new();
        let config = Config::new().xdp(mode).set("xdp", "cleartext_853", "\"count\"");
        permit_fast_open(&network.client, 0x5);
        permit_fast_open(&network.server, 0x203);
        let dotd = Server::start(&network, &config.set("listen", "fast_open", "true"));
        let mut session = Dot::over(fast_open(&network), SERVER_V4, &Offer::default()).expect("served");
        assert_eq!(session.exchange(&query).rdata(A), [[192, 0, 2, 53]], "{mode}");
        assert_eq!(passive(&network), 1, "{mode}: the hello came with the SYN");
        assert_eq!(dotd.status()["listeners"][0]["fast_open"], "on");
        let mut cleartext = fast_open(&network);
        cleartext.write_all(&framed(&query)).expect("it goes with the SYN");
        let heard = read_to_close(&mut cleartext);
        assert!(heard.first().is_none_or(|kind| *kind == 0x15), "an alert at most: {heard:02x?}");
    }
    let network = Network::new();
    permit_fast_open(&network.client, 0x5);
    permit_fast_open(&network.server, 1);
    let dotd = Server::start(&network, &Config::new().xdp("off").set("listen", "fast_open", "true"));
    let mut session = Dot::over(fast_open(&network), SERVER_V4, &Offer::default()).expect("served");
    assert_eq!(session.exchange(&query).rdata(A), [[192, 0, 2, 53]]);
    let state = dotd.status()["listeners"][0]["fast_open"].clone();
    assert_eq!(
        (passive(&network), state.as_str()),
        (0, Some("off (net.ipv4.tcp_fastopen is 1: set it to 3)"))
    );
}

/// Goal: clients are served under SYN cookies too, with XDP and without (§4.1), and the gate still holds. Method:
/// `tcp_syncookies = 2`, which makes a cookie of every SYN; DoT and cleartext. Covers: C-9
#[test]
fn syn_cookies_change_nothing() {
    require!(Root, Bpf);
    for mode in ["native", "generic", "off"] {
        let network = Network::new();
        network
            .server
            .run(|| fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").expect("our own namespace"));
        let dotd = Server::start(&network, &Config::new().xdp(mode));
        for address in [SERVER_V4, SERVER_V6] {
            let mut session = Dot::connect(&network.client, address);
            let answer = session.exchange(&Query::new(1, "dotd.test", A).octets());
            assert_eq!(answer.rdata(A), [[192, 0, 2, 53]], "{mode} {address}");
        }
        assert!(network.server.run(|| tcp_counter("SyncookiesRecv")) >= 2, "the kernel made no cookies");
        // A cookie does not show where a stream begins, so the gate lets cleartext pass; TLS is the security boundary.
        let mut raw = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        raw.write_all(&framed(&Query::new(2, "dotd.test", A).octets())).expect("open");
        dotd.counts("cleartext is refused", |stats| stats.counter("handshakes", "failed_not_tls") > 0);
    }
}
