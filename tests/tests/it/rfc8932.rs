//! RFC 8932, privacy of a DNS operator: what logs may contain, and where cleartext may go.
//!
//! Before: `harness::scene`. After: neither logs nor the wire show which client asked for which name.

use std::{io::Write, net::SocketAddr};

use nix::sys::signal::Signal;

use dot_tests::{
    harness::{
        clients::{DOT_PORT, read_to_close, tcp},
        config::Config,
        dot::Dot,
        message::{A, Opt, Query, framed},
        netns::{CLIENT_V4, CLIENT_V6, Network, SERVER_V4, SERVER_V6},
        offer::Offer,
        scene::{embedded, scripted_with},
        scratch::Scratch,
        server::Server,
    },
    require,
};

/// Goal: at the default level, whatever clients do, logs hold no qname and no full client address (RFC 8932 §5.2.1).
/// Method: answered, unanswered, malformed and refused clients over both families, a reload and a stop; then every
/// line is searched. Covers: C-73
#[test]
fn default_logs_name_nobody() {
    require!(Root);
    let config = Config::new().xdp("off").set("session", "connections_per_prefix_max", "3");
    let (network, _backend, mut dotd) = scripted_with(config, "timeout = \"100ms\"", |_| Vec::new());
    for address in [SERVER_V4, SERVER_V6] {
        let mut session = Dot::connect(&network.client, address);
        let query = Query::new(1, "whoaskedthis.example", A);
        assert_eq!(session.exchange(&query.clone().opt(Opt::default()).octets()).rcode(), 2);
        assert_eq!(
            session.exchange(&query.clone().opt(Opt::default()).opt(Opt::default()).octets()).rcode(),
            1
        );
        session.ask(&[0; 5]);
        let _ = session.end();
        let mut raw = tcp(&network.client, SocketAddr::new(address, DOT_PORT));
        raw.write_all(&framed(&query.octets())).expect("open");
        let _ = read_to_close(&mut raw);
        let held: Vec<_> =
            (0..5).map(|_| Dot::attempt(&network.client, address, &Offer::default())).collect();
        assert!(held.iter().any(Result::is_err), "the cap refused no connection");
    }
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload is done", |stats| stats.counter("control", "reloads_ok") == 1);
    let ended = dotd.stop();
    let said = (ended.stdout + &ended.stderr).to_lowercase();
    assert!(said.contains("ready"), "the search looks at what was written: {said}");
    for secret in ["whoaskedthis".to_owned(), CLIENT_V4.to_string(), CLIENT_V6.to_string()] {
        assert!(!said.contains(&secret), "{secret} stands in the logs: {said}");
    }
}

/// Goal: the embedded zone, a server inside dotd, logs no qname either. Method: names that exist and names that do not.
/// Covers: C-73
#[test]
fn the_embedded_zone_logs_no_name() {
    require!(Root);
    let (network, dotd) = embedded(&Config::new().xdp("off"));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for (qname, rcode) in [("www.dotd.test", 0), ("whoaskedthis.dotd.test", 3), ("whoaskedthis.example", 5)] {
        assert_eq!(session.exchange(&Query::new(1, qname, A).octets()).rcode(), rcode, "{qname}");
    }
    let ended = dotd.stop();
    assert!(!(ended.stdout.clone() + &ended.stderr).contains("whoaskedthis"), "{ended:?}");
    assert!(!ended.stderr.contains("www.dotd.test"), "{ended:?}");
}

/// Goal: a cleartext backend beyond loopback is refused unless the operator permits it (RFC 8932 §5.1.1). Method: the
/// client's address as backend, without and with `allow_cleartext`. Covers: C-74
#[test]
fn a_distant_cleartext_backend_needs_permission() {
    require!(Root);
    let network = Network::new();
    let distant = SocketAddr::new(CLIENT_V4, 53);
    let config = Config::new().xdp("off").backend(distant);
    let ended = Server::attempt(&network, &config, Scratch::new(), &[]).expect_err("refused");
    assert!(ended.code == Some(1) && ended.stderr.contains("allow_cleartext"), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    let config = Config::new().xdp("off").backend_with(distant, "allow_cleartext = true");
    Server::start(&network, &config).stop();
}

/// Goal: `log.client_address` decides what a line of level debug says about a client; by default no line names one,
/// because such lines are not written. Method: a session and a failed handshake under each value. Covers: C-73
#[test]
fn lines_name_clients_as_far_as_they_may() {
    require!(Root);
    let whole = CLIENT_V4.to_string();
    let network_of = |address: &str| format!("{}.0/24", address.rsplit_once('.').expect("IPv4").0);
    for (how, expected) in [("none", "-".to_owned()), ("prefix", network_of(&whole)), ("full", whole.clone())]
    {
        let config = Config::new().xdp("off").set("log", "level", "\"debug\"");
        let (network, dotd) = embedded(&config.set("log", "client_address", &format!("\"{how}\"")));
        drop(Dot::connect(&network.client, SERVER_V4));
        let mut cleartext = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        cleartext.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("open");
        let _ = read_to_close(&mut cleartext);
        dotd.counts("both have ended", |stats| {
            stats.sum("session_ends", "") == 1 && stats.counter("handshakes", "failed_not_tls") == 1
        });
        let said = dotd.stop().stderr;
        let line =
            |event: &str| said.lines().find(|line| line.contains(event)).unwrap_or_default().to_owned();
        let (ended, failed) = (line("a session has ended"), line("a handshake has failed"));
        assert!(ended.contains(&format!("client={expected} end=")), "{how}: {said}");
        assert!(failed.contains(&format!("client={expected} cause=\"failed_not_tls\"")), "{how}: {said}");
        assert_eq!(said.contains(&whole), how == "full", "{said}");
    }
}
