//! PROXY protocol, version 2: towards backends, and from a load balancer. (Section 2.2 of its specification.)
//!
//! Before: `proxy_v2 = true`, or `listen.proxy_protocol_from`. After: the client is known where it should be, and only
//! configured senders are trusted.

use std::{collections::HashMap, fs::File, io::Write as _, net::SocketAddr, process::Stdio};

use dot_tests::{
    harness::{
        backends::{Backend, PROXIED_PORT, PROXIED_TLS_PORT},
        clients::{is_nothing_but_an_alert, read_to_close, tcp},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Opt, Query, SERVFAIL, TXT, reply_to},
        netns::{CLIENT_V4, CLIENT_V6, Network, SERVER_V4, SERVER_V6},
        offer::Offer,
        pki::Authority,
        process::{Process, bound_to_namespace},
        proxied::{Header, header_v4, raw_header},
        scene::{HONEST, embedded, honest, scripted_with},
        scratch::Scratch,
        scripted::{Act, Received},
        server::Server,
    },
    require,
};

const OVER_UDP: &str = "proxy_v2 = true";
const OVER_TCP: &str = "proxy_v2 = true\ntransport = \"tcp\"";
/// PP2_TYPE_ALPN "dot"; PP2_TYPE_SSL: TLS, no certificate, version.
const TLVS: &[u8] = b"\x01\x00\x03dot\x20\x00\x0f\x01\x00\x00\x00\x01\x21\x00\x07TLSv1.3";

fn host(id: u16) -> Vec<u8> {
    Query::new(id, &format!("host-{id}.dotd.test"), A).opt(Opt::default()).octets()
}

fn header(query: &Received) -> Header {
    query.proxy.clone().unwrap_or_else(|| panic!("no header: {query:?}"))
}

fn ask_all(session: &mut Dot, count: u16) {
    session.ask_all(&(0..count).map(host).collect::<Vec<_>>());
    for _ in 0..count {
        assert_eq!(session.receive().rdata(A), [HONEST]);
    }
}

/// Goal: every datagram names its client, octet by octet, for both IP versions at once. Method: an IPv4 and an IPv6
/// client ask 50 queries each in one write; the scripted backend keeps headers. Covers: C-75
#[test]
fn each_datagram_names_its_client() {
    require!(Root);
    let (network, backend, dotd) = scripted_with(Config::new(), OVER_UDP, honest);
    for (server, client, family) in [(SERVER_V4, CLIENT_V4, 0x11), (SERVER_V6, CLIENT_V6, 0x21)] {
        let before = backend.received().len();
        ask_all(&mut Dot::connect(&network.client, server), 50);
        let received = backend.received();
        assert_eq!(received.len() - before, 50);
        for query in &received[before..] {
            let header = header(query);
            assert!(!query.is_tcp);
            assert_eq!((header.command, header.family, &*header.tlvs), (0x21, family, TLVS));
            let (source, destination) = header.addresses.expect("addresses");
            assert_eq!((source.ip(), destination), (client, SocketAddr::new(server, 853)));
        }
    }
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: a connection to the backend belongs to one client alone, and its queries all go there. Method: three sessions
/// ask in turn, twice; each header belongs to one of exactly three connections.
#[test]
fn each_connection_belongs_to_one_client() {
    require!(Root);
    let (network, backend, dotd) = scripted_with(Config::new(), OVER_TCP, honest);
    let mut sessions: Vec<Dot> = (0..3).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
    for _ in 0..2 {
        sessions.iter_mut().for_each(|session| ask_all(session, 40));
    }
    let mut clients = HashMap::new();
    for query in backend.received() {
        let (source, _) = header(&query).addresses.expect("addresses");
        assert_eq!(header(&query).tlvs, TLVS);
        assert_eq!(
            clients.insert(query.from, source).unwrap_or(source),
            source,
            "a connection changed hands"
        );
    }
    assert_eq!(clients.len(), 3, "one connection a client: {clients:?}");
    let sources: std::collections::HashSet<_> = clients.values().collect();
    assert_eq!((sources.len(), backend.received().len()), (3, 240));
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: a query whose answer was truncated is asked again over a connection with the same header.
#[test]
fn the_retry_over_tcp_names_the_client_too() {
    require!(Root);
    let script = |query: &Received| {
        let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
        reply[2] |= if query.is_tcp { 0 } else { 0x02 };
        vec![Act::Send(reply)]
    };
    let (network, backend, _dotd) = scripted_with(Config::new(), OVER_UDP, script);
    ask_all(&mut Dot::connect(&network.client, SERVER_V4), 3);
    let received = backend.received();
    let (over_tcp, over_udp): (Vec<_>, Vec<_>) = received.iter().partition(|query| query.is_tcp);
    assert_eq!((over_tcp.len(), over_udp.len()), (3, 3));
    assert!(received.iter().all(|query| header(query) == header(&received[0])));
}

/// Goal: a backend that closes one client's connections does not affect the others. Method: it closes on queries
/// for `host-9`; their client gets SERVFAIL, after two connections at most; another client is answered meanwhile.
#[test]
fn who_is_refused_by_the_backend_is_refused_alone() {
    require!(Root);
    let script = |query: &Received| {
        let qname = dot_tests::harness::response::Message::parse(&query.octets).expect("whole").qname();
        if qname.starts_with("host-9.") { vec![Act::Close] } else { honest(query) }
    };
    let (network, backend, dotd) = scripted_with(Config::new(), OVER_TCP, script);
    let (mut good, mut bad) =
        (Dot::connect(&network.client, SERVER_V4), Dot::connect(&network.client, SERVER_V4));
    for _ in 0..5 {
        assert_eq!(bad.exchange(&host(9)).rcode(), SERVFAIL);
        ask_all(&mut good, 5);
    }
    let closed = backend
        .received()
        .iter()
        .filter(|query| query.octets.windows(6).any(|part| part == b"host-9"))
        .count();
    assert_eq!(closed, 10, "asked once more each, and no more");
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: more clients than there are connections to the backend wait for one another, and none gets SERVFAIL. Method:
/// one worker; 400 sessions with a query each, all sent before any answer is read, and the backend holds the answers of
/// those that have a connection until it has as many as there may be.
#[test]
fn clients_beyond_the_connections_wait() {
    require!(Root);
    const CLIENTS: usize = 400;
    let hold = |query: &Received| vec![Act::Hold(reply_to(&query.octets, A, &[HONEST.to_vec()]))];
    let config = Config::new().xdp("off").set("server", "workers", "1").set(
        "session",
        "connections_per_prefix_max",
        "1000",
    );
    let (network, backend, dotd) = scripted_with(config, &format!("{OVER_TCP}\ntimeout = \"30s\""), hold);
    let mut sessions: Vec<Dot> = (0..CLIENTS).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
    sessions.iter_mut().for_each(|session| session.ask(&host(1)));
    eventually("every connection is taken", || (backend.held() == 256).then_some(()));
    assert_eq!(dotd.stats().counter("backend", "full"), 0);
    backend.release();
    eventually("the others have theirs", || (backend.held() == CLIENTS - 256).then_some(()));
    backend.release();
    for session in &mut sessions {
        assert_eq!(session.receive().rdata(A), [HONEST]);
    }
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: a real resolver reads dotd's headers: over UDP, TCP and TLS it logs the client's own address. Method: Unbound
/// logs queries; a name for each transport. Covers: C-75
#[test]
fn unbound_sees_the_client() {
    require!(Root, Command("unbound"));
    let network = Network::new();
    let issued = Authority::new().issue("ns.dotd.test");
    let unbound = Backend::unbound_proxied(&network, (&issued.cert, &issued.key));
    let tls = format!("proxy_v2 = true\ntransport = \"tls\"\nspki_pins = [\"{}\"]", issued.pin);
    for (number, (port, keys)) in
        [(PROXIED_PORT, OVER_UDP), (PROXIED_PORT, OVER_TCP), (PROXIED_TLS_PORT, &tls)].into_iter().enumerate()
    {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let dotd = Server::start(&network, &Config::new().backend_with(address, keys));
        let mut session = Dot::connect(&network.client, SERVER_V4);
        let name = format!("host-{number}.dotd.test");
        let answer = session.exchange(&Query::new(1, &name, A).opt(Opt::default()).octets());
        assert_eq!((answer.rcode(), answer.rdata(A).len()), (0, 1), "{keys}: {}", unbound.log());
        // The answer is too long for a datagram: over UDP the query is asked again over a connection.
        let answer = session.exchange(&Query::new(2, "big.dotd.test", TXT).opt(Opt::default()).octets());
        assert_eq!(answer.rdata(TXT).len(), 1, "{keys}: {}", unbound.log());
        let line = format!("{CLIENT_V4} {name}. A IN");
        eventually("Unbound logs the client", || unbound.log().contains(&line).then_some(()));
        drop(session);
        dotd.stop();
    }
}

const CLIENT: ([u8; 4], u16) = ([198, 51, 100, 7], 40_007);
const HERE: ([u8; 4], u16) = ([203, 0, 113, 1], 853);

/// dotd that trusts the test's client as a load balancer, and allows few connections for each real client.
fn behind_a_load_balancer() -> Config {
    Config::new()
        .set("listen", "proxy_protocol_from", &format!("[\"{CLIENT_V4}/32\"]"))
        .set("xdp", "cleartext_853", "\"pass\"")
        .set("session", "handshake_timeout", "\"2s\"")
}

fn at_853(server: std::net::IpAddr) -> SocketAddr {
    SocketAddr::new(server, 853)
}

/// A session behind this header, which arrives in two pieces.
fn session_behind(network: &Network, header: &[u8]) -> Dot {
    let mut stream = tcp(&network.client, at_853(SERVER_V4));
    let (front, rest) = header.split_at(header.len().min(5));
    stream.write_all(front).expect("sent");
    std::thread::sleep(std::time::Duration::from_millis(20));
    stream.write_all(rest).expect("sent");
    Dot::over(stream, SERVER_V4, &Offer::default()).unwrap_or_else(|end| panic!("handshake: {end:?}"))
}

/// Goal: the address in a trusted header is the client, for backends and for caps; TLVs and LOCAL are accepted. Method:
/// a cap of one connection for each client; two clients named over one load balancer, the second connection of the
/// first refused; the headers that the backend gets.
#[test]
fn a_trusted_header_names_the_client() {
    require!(Root);
    let config = behind_a_load_balancer().set("session", "connections_per_prefix_max", "1");
    let (network, backend, dotd) = scripted_with(config, OVER_UDP, honest);
    let mut first = session_behind(&network, &header_v4(CLIENT, HERE, &[0x04, 0, 3, 1, 2, 3]));
    ask_all(&mut first, 2);
    let mut second = session_behind(&network, &header_v4(([198, 51, 100, 8], 1), HERE, &[]));
    ask_all(&mut second, 2);
    let named: Vec<_> =
        backend.received().iter().map(|query| header(query).addresses.expect("named").0).collect();
    assert_eq!(named[0], SocketAddr::from(CLIENT));
    assert_eq!(named[3], SocketAddr::from(([198, 51, 100, 8], 1)));
    let mut third = tcp(&network.client, at_853(SERVER_V4));
    third.write_all(&header_v4(CLIENT, HERE, &[])).expect("sent");
    assert!(read_to_close(&mut third).is_empty(), "over its cap");
    let mut local = session_behind(&network, &raw_header(0x20, 0, &[]));
    ask_all(&mut local, 1);
    let last = header(backend.received().last().expect("one"));
    assert_eq!(last.addresses.expect("named").0.ip(), CLIENT_V4, "LOCAL: the connection's own");
    let stats = dotd.stats();
    assert_eq!(stats.counter("connections", "refused_prefix_cap"), 1, "{stats:?}");
    assert_eq!(stats.difference(), [0; 3], "{stats:?}");
}

/// Goal: the rate of handshakes applies to the client that a trusted header names, not to the load balancer. Method:
/// one a second, a burst of two; handshakes for one client until one is refused, then one for another client. Covers:
///
#[test]
fn a_named_clients_handshakes_have_a_rate() {
    require!(Root);
    let (network, dotd) = embedded(&behind_a_load_balancer().set("session", "handshakes_per_second", "1"));
    let attempt = |client| {
        let mut stream = tcp(&network.client, at_853(SERVER_V4));
        stream.write_all(&header_v4(client, HERE, &[])).expect("sent");
        Dot::over(stream, SERVER_V4, &Offer::default())
    };
    let refused = (0..100).position(|_| attempt(CLIENT).is_err());
    assert!(refused.is_some_and(|served| served >= 2), "{refused:?}");
    let _other = attempt(([198, 51, 100, 8], 1)).unwrap_or_else(|end| panic!("handshake: {end:?}"));
    assert_eq!(dotd.stats().counter("connections", "refused_handshake_rate"), 1);
}

/// Goal: an invalid header from a trusted sender closes the connection without an octet, and is counted as such; a
/// connection without a header ends at the handshake's deadline.
#[test]
fn a_trusted_sender_must_send_a_sound_header() {
    require!(Root);
    let (network, dotd) = embedded(&behind_a_load_balancer());
    let bad = [
        b"PROXY TCP4 198.51.100.7 203.0.113.1 40007 853\r\n".to_vec(),
        vec![0x16, 3, 1, 0, 200, 1],
        raw_header(0x11, 0x11, &[0; 12]),
        raw_header(0x21, 0x31, &[0; 216]),
        raw_header(0x21, 0x13, &[0; 12]),
        raw_header(0x21, 0x21, &[0; 35]),
    ];
    for octets in &bad {
        let mut stream = tcp(&network.client, at_853(SERVER_V4));
        stream.write_all(octets).expect("sent");
        assert!(read_to_close(&mut stream).is_empty(), "{octets:02x?}");
    }
    let mut silent = tcp(&network.client, at_853(SERVER_V4));
    silent.write_all(&header_v4(CLIENT, HERE, &[])[..27]).expect("sent");
    assert!(read_to_close(&mut silent).is_empty());
    let stats = dotd.counts("all are counted", |stats| stats.counter("handshakes", "failed_timeout") == 1);
    let malformed = stats.counter("handshakes", "failed_proxy_header");
    assert_eq!(malformed, bad.len() as u64, "{stats:?}");
    assert_eq!(stats.difference(), [0; 3], "{stats:?}");
}

/// Goal: a header from any other sender is not trusted: it is not TLS, and its address is not used. Other clients speak
/// TLS as usual.
#[test]
fn an_untrusted_header_is_not_tls() {
    require!(Root);
    let (network, dotd) = embedded(&behind_a_load_balancer());
    let mut stream = tcp(&network.client, at_853(SERVER_V6));
    stream.write_all(&header_v4(CLIENT, HERE, &[])).expect("sent");
    assert!(is_nothing_but_an_alert(&read_to_close(&mut stream)));
    let mut session = Dot::connect(&network.client, SERVER_V6);
    assert_eq!(session.exchange(&Query::new(1, "www.dotd.test", A).octets()).rcode(), 0);
    let stats = dotd.counts("it is counted", |stats| stats.counter("handshakes", "failed_not_tls") == 1);
    assert_eq!(stats.counter("handshakes", "failed_proxy_header"), 0, "{stats:?}");
}

/// Goal: a real load balancer's header is read, and its client is named to the backend. Method: HAProxy with
/// send-proxy-v2 in the client's namespace; who connects to it comes from 127.0.0.9.
#[test]
fn haproxy_is_understood() {
    require!(Root, Command("haproxy"));
    let (network, backend, dotd) = scripted_with(behind_a_load_balancer(), OVER_UDP, honest);
    let scratch = Scratch::new();
    let text = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
         frontend dot\n bind 127.0.0.1:853\n default_backend dotd\n\
         backend dotd\n server one {SERVER_V4}:853 send-proxy-v2\n"
    );
    let config = scratch.write("haproxy.cfg", text);
    let mut command = bound_to_namespace("haproxy");
    let log = File::create(scratch.path().join("log")).expect("our own folder");
    command.arg("-db").arg("-f").arg(config).stdout(Stdio::null()).stderr(log);
    let _haproxy = Process::start("haproxy", &network.client, &scratch, command);
    let stream = eventually("HAProxy listens", || {
        network.client.run(|| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            socket.bind(&SocketAddr::from(([127, 0, 0, 9], 0)).into()).expect("loopback is ours");
            socket.connect(&SocketAddr::from(([127, 0, 0, 1], 853)).into()).is_ok().then(|| socket.into())
        })
    });
    let mut session = Dot::over(stream, SERVER_V4, &Offer::default()).expect("a handshake through HAProxy");
    ask_all(&mut session, 5);
    let (source, destination) = header(&backend.received()[0]).addresses.expect("named");
    assert_eq!((source.ip(), destination), ([127, 0, 0, 9].into(), SocketAddr::from(([127, 0, 0, 1], 853))));
    assert_eq!(dotd.stats().difference(), [0; 3]);
}
