//! `[access]`: which clients may ask, by address, listener, server name and client certificate; with the kernel half
//! and without it.
//!
//! Before: lists in the config. After: a client that may not ask is closed, dropped or REFUSED, and counted by its reason.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use dot_tests::{
    harness::{
        clients::{kdig, read_to_close, tcp, udp},
        config::Config,
        dot::{Dot, End},
        eventually,
        message::{A, OPTION_EDE, Opt, Query, REFUSED},
        netns::{CLIENT_V4, CLIENT_V6, Network, SERVER_V4, SERVER_V6},
        response::Message,
        scratch::Scratch,
        server::Server,
        uninterrupted,
    },
    require,
};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Without the kernel half: every list is applied by the engine.
fn without_xdp() -> Config {
    Config::new().xdp("off").set("listen", "do53", "[\"0.0.0.0:53\"]")
}

fn list(prefix: &str) -> String {
    format!("[\"{prefix}\"]")
}

fn query(id: u16) -> Vec<u8> {
    Query::new(id, "dotd.test", A).opt(Opt::default()).octets()
}

/// The answer that a client on UDP gets within a moment, if any.
fn heard(socket: &UdpSocket) -> Option<Message> {
    let mut octets = [0; 1500];
    match uninterrupted(|| socket.recv(&mut octets)) {
        Ok(length) => Message::parse(&octets[..length]),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Whether the server closes a new connection without sending an octet.
fn is_closed(network: &Network, port: u16) -> bool {
    let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, port));
    read_to_close(&mut stream).is_empty()
}

/// EDE 18 with its text.
fn is_prohibited(message: &Message) -> bool {
    message.option(OPTION_EDE).is_some_and(|octets| octets.starts_with(&[0, 18]))
}

/// Goal: `xdp.deny` and `access.deny` hold where the kernel half does not run: no handshake, no answer over any transport.
/// Method: XDP off; the client's address on one list, then on the other, then on none; TLS, TCP and UDP.
///
#[test]
fn lists_hold_without_the_kernel_half() {
    require!(Root);
    let network = Network::new();
    let client = format!("{CLIENT_V4}/32");
    let mut dotd = Server::start(&network, &without_xdp().set("xdp", "deny", &list(&client)));
    for reloads in 0..2 {
        assert!(is_closed(&network, 853) && is_closed(&network, 53));
        let clear = udp(&network.client, SocketAddr::new(SERVER_V4, 53));
        clear.send(&query(1)).expect("sent");
        let stats = dotd
            .counts("each was turned away", |stats| stats.counter("access", "denied") == 3 * (reloads + 1));
        assert_eq!(stats.counter("connections", "refused_access"), 2 * (reloads + 1));
        assert_eq!(stats.counter("queries", "dropped_denied"), reloads + 1);
        clear.set_read_timeout(Some(Duration::from_millis(1))).expect("not zero");
        assert!(heard(&clear).is_none(), "a dropped datagram was answered");
        dotd.rewrite_config(&without_xdp().set("access", "deny", &list(&client)));
        dotd.signal(Signal::SIGHUP);
        dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == reloads + 1);
    }
    dotd.rewrite_config(&without_xdp());
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the last reload", |stats| stats.counter("control", "reloads_ok") == 3);
    assert_eq!(Dot::connect(&network.client, SERVER_V4).exchange(&query(2)).rcode(), 0);
    let stats = dotd.counts("every end is in the books", |stats| stats.difference() == [0; 3]);
    assert_eq!(stats.counter("queries", "received"), 3);
}

/// Goal: the kernel half drops clients on `access.deny`, so that the engine does not see them; clients that must get
/// REFUSED pass. Method: XDP on; datagrams of a denied client until one is dropped; then a reload with `denied =
/// "refuse"`.
#[test]
fn the_kernel_half_drops_who_is_denied() {
    require!(Root, Bpf);
    let network = Network::new();
    let config = Config::new().set("listen", "do53", "[\"0.0.0.0:53\"]");
    let config = config.set("access", "deny", &list(&format!("{CLIENT_V4}/32")));
    let mut dotd = Server::start(&network, &config);
    let clear = udp(&network.client, SocketAddr::new(SERVER_V4, 53));
    eventually("XDP drops it", || {
        clear.send(&query(1)).expect("sent");
        (dotd.stats().packets("drop", "denied") > 0).then_some(())
    });
    let stats = dotd.stats();
    assert_eq!((stats.counter("access", "denied"), stats.counter("queries", "received")), (0, 0));
    dotd.rewrite_config(&config.set("access", "denied", "\"refuse\""));
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 1);
    clear.send(&query(2)).expect("sent");
    let answer = heard(&clear).expect("an answer");
    assert!(answer.rcode() == REFUSED && is_prohibited(&answer), "{answer:?}");
}

/// Goal: the kernel half also drops clients outside `access.allow`; those on it are served, and a reload without the list ends it.
/// Method: XDP on; an allow list with the client's IPv6 address alone; datagrams over IPv4 until one is dropped; a session over IPv6.
///
#[test]
fn the_kernel_half_drops_clients_outside_the_allow_list() {
    require!(Root, Bpf);
    let network = Network::new();
    let open = Config::new().set("listen", "do53", "[\"0.0.0.0:53\"]");
    let config = open.clone().set("access", "allow", &list(&format!("{CLIENT_V6}/128")));
    let mut dotd = Server::start(&network, &config);
    let clear = udp(&network.client, SocketAddr::new(SERVER_V4, 53));
    eventually("XDP drops it", || {
        clear.send(&query(1)).expect("sent");
        (dotd.stats().packets("drop", "denied") > 0).then_some(())
    });
    assert_eq!(Dot::connect(&network.client, SERVER_V6).exchange(&query(2)).rcode(), 0);
    let stats = dotd.stats();
    assert_eq!((stats.counter("access", "not_allowed"), stats.counter("queries", "received")), (0, 1));
    dotd.rewrite_config(&open);
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 1);
    clear.send(&query(3)).expect("sent");
    assert_eq!(heard(&clear).expect("an answer").rcode(), 0);
}

/// Goal: where the config asks for it, a client that is not on the allow list gets REFUSED with the extended error 18
/// on every transport, and the backend gets no query. Method: an allow list of another network; TLS, TCP and UDP.
///
#[test]
fn who_is_not_allowed_is_refused() {
    require!(Root);
    let network = Network::new();
    let config =
        without_xdp().set("access", "allow", &list("198.51.100.0/24")).set("access", "denied", "\"refuse\"");
    let dotd = Server::start(&network, &config);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for id in 1..3 {
        let answer = session.exchange(&query(id));
        assert!(answer.rcode() == REFUSED && is_prohibited(&answer), "{answer:?}");
    }
    let clear = udp(&network.client, SocketAddr::new(SERVER_V4, 53));
    clear.send(&query(3)).expect("sent");
    let answer = heard(&clear).expect("an answer");
    assert!(answer.rcode() == REFUSED && is_prohibited(&answer), "{answer:?}");
    let stats = dotd.counts("all are refused", |stats| stats.counter("access", "queries_refused") == 3);
    assert_eq!((stats.counter("queries", "forwarded"), stats.counter("access", "not_allowed")), (0, 2));
    let status = dotd.status();
    assert_eq!(status["access"].as_str(), Some("1 prefix allowed; others are refused"), "{status}");
}

/// Goal: a reload that denies a client ends its session in order; with `denied = "refuse"` the session goes on, and its
/// queries are REFUSED. Method: one session over two reloads.
#[test]
fn a_reload_judges_open_sessions() {
    require!(Root);
    let network = Network::new();
    let mut dotd = Server::start(&network, &without_xdp());
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&query(1)).rcode(), 0);
    let denied = without_xdp().set("access", "deny", &list(&format!("{CLIENT_V4}/32")));
    dotd.rewrite_config(&denied.clone().set("access", "denied", "\"refuse\""));
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 1);
    assert_eq!(session.exchange(&query(2)).rcode(), REFUSED);
    dotd.rewrite_config(&denied);
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the session is over", |stats| stats.counter("session_ends", "denied") == 1);
    assert!(session.end() == End::CloseNotify, "it ends in order");
}

/// Goal: the list of a listener applies to that listener alone. Method: two ports, one with a list.
#[test]
fn a_list_of_a_listener_holds_there() {
    require!(Root);
    let network = Network::new();
    let listener = format!("[{{ address = \"{SERVER_V4}:8530\", allow = [\"198.51.100.0/24\"] }}]");
    let config = Config::new()
        .xdp("off")
        .set("listen", "dot", &format!("[\"{SERVER_V4}:853\", \"{SERVER_V4}:8530\"]"))
        .set("access", "listener", &listener);
    let dotd = Server::start(&network, &config);
    assert!(is_closed(&network, 8530));
    assert_eq!(Dot::connect(&network.client, SERVER_V4).exchange(&query(1)).rcode(), 0);
    dotd.counts("counted", |stats| stats.counter("access", "not_allowed") == 1);
}

/// Goal: clients are identified by the server name that they send and by their certificates; a client with another name
/// or certificate, or with none, gets no answer. Method: kdig with each name, and without; then with two certificates
/// of one authority.
#[test]
fn names_open_the_door() {
    require!(Root, Command("kdig"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let ca = scratch.write("ca.pem", authority.pem());
    let certified = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        let cert = scratch.write(&format!("{name}.crt"), certificate.pem());
        let key = scratch.write(&format!("{name}.key"), key.serialize_pem());
        format!("+tls-certfile={} +tls-keyfile={}", cert.display(), key.display())
    };
    let (phone, tablet) = (certified("phone.example"), certified("tablet.example"));
    let config = Config::new()
        .xdp("off")
        .set("tls", "client_ca", &format!("\"{}\"", ca.display()))
        .set("access", "server_names", "[\"dns.example\", \"*.dot.example\"]")
        .set("access", "client_names", "[\"phone.example\"]");
    let dotd = Server::launch(&network, &config, scratch, &[]);
    let asks = |server_name: &str, certificate: &str| {
        let sni = if server_name.is_empty() { String::new() } else { format!("+tls-sni={server_name}") };
        kdig(&network.client, SERVER_V4, &format!("+tls {sni} {certificate} dotd.test A")).has("NOERROR")
    };
    assert!(asks("dns.example", &phone) && asks("Anna.DOT.example", &phone));
    for (server_name, certificate) in [("", &phone), ("other.example", &phone), ("dns.example", &tablet)] {
        assert!(!asks(server_name, certificate), "{server_name} {certificate}");
    }
    let stats = dotd.counts("three were turned away", |stats| stats.counter("session_ends", "denied") == 3);
    assert_eq!((stats.counter("access", "server_name"), stats.counter("access", "client_name")), (2, 1));
    assert_eq!(stats.counter("queries", "received"), 2);
}
