//! DNS over TLS towards backends: how they are authenticated, and what happens when that fails. (RFC 8310 §8, RFC 7858
//! §4.2.)
//!
//! Before: `transport = "tls"` with a name, a pin, or both. After: queries went over TLS to that backend, and to no
//! other.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use dot_tests::{
    harness::{
        backends::{Backend, dnsperf_queries},
        clients::dnsperf,
        config::Config,
        dot::Dot,
        eventually,
        message::{
            A, NETWORK_ERROR, OPTION_EDE, OPTION_KEEPALIVE, OPTION_PADDING, Opt, Query, SERVFAIL, TXT,
        },
        netns::{Network, SERVER_V4},
        pki::{Authority, Issued},
        response::Message,
        scene::{HONEST, honest},
        scratch::Scratch,
        scripted::{Act, Scripted},
        server::Server,
    },
    require,
};

const NAME: &str = "ns.dotd.test";

fn host(id: u16) -> Query {
    Query::new(id, &format!("host-{id}.dotd.test"), A)
}

fn asked(id: u16) -> Vec<u8> {
    host(id).opt(Opt::default()).octets()
}

fn by_pin(pin: &str) -> String {
    format!("transport = \"tls\"\nspki_pins = [\"{pin}\"]")
}

fn by_name(name: &str, ca: &Path) -> String {
    format!("transport = \"tls\"\nserver_name = \"{name}\"\nca = \"{}\"", ca.display())
}

/// A backend with this certificate, and dotd with these config keys for it.
fn scene(issued: &Issued, keys: &str) -> (Network, Scripted, Server) {
    let network = Network::new();
    let backend = Scripted::start_over_tls(&network, issued.serving(), honest);
    let dotd = Server::start(&network, &Config::new().backend_with(backend.address, keys));
    (network, backend, dotd)
}

/// Goal: a name with its authority, a pin, and both together authenticate a backend; queries share connections. Method:
/// 100 queries in one write for each; counters.
#[test]
fn a_backend_that_is_itself_is_asked() {
    require!(Root);
    let (authority, scratch) = (Authority::new(), Scratch::new());
    let (issued, ca) = (authority.issue(NAME), scratch.write("ca.pem", authority.pem()));
    let named = by_name(NAME, &ca);
    for keys in [named.clone(), by_pin(&issued.pin), format!("{named}\nspki_pins = [\"{}\"]", issued.pin)] {
        let (network, backend, dotd) = scene(&issued, &keys);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        session.ask_all(&(0..100).map(asked).collect::<Vec<_>>());
        for _ in 0..100 {
            assert_eq!(session.receive().rdata(A), [HONEST], "{keys}");
        }
        assert_eq!(backend.received().len(), 100);
        let stats = dotd.stats();
        assert!((1..=2).contains(&stats.counter("backend", "connections")), "{stats:?}");
        assert_eq!(stats.difference(), [0; 3], "{stats:?}");
        eventually("it is up", || (dotd.backend_states() == ["up"]).then_some(()));
    }
}

/// Goal: the authority of a backend is watched as certificates are: a new one is trusted without a signal. Method: a
/// file with another authority, so that the backend gets no query; then the right one in its place. Covers: C-304
#[test]
fn a_new_authority_is_believed_without_a_signal() {
    require!(Root);
    let (authority, other, scratch) = (Authority::new(), Authority::new(), Scratch::new());
    let (issued, ca) = (authority.issue(NAME), scratch.write("ca.pem", other.pem()));
    let (network, backend, dotd) = scene(&issued, &by_name(NAME, &ca));
    assert_refused(&network, &dotd, "BadSignature");
    assert!(backend.received().is_empty());
    scratch.write("ca.pem", authority.pem());
    dotd.counts("it is loaded", |stats| stats.counter("control", "reloads_ok") == 1);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    eventually("it is asked", || (session.exchange(&asked(1)).rdata(A) == [HONEST]).then_some(()));
    eventually("it is up", || (dotd.backend_states() == ["up"]).then_some(()));
}

/// Goal: a wrong key, a wrong name, an expired certificate, an unknown authority, a pin that fits with a name that does
/// not, and no TLS at all: SERVFAIL with a reason, no query is sent, and `status` says why. Method: each with a backend
/// that would answer; the queries that it received.
#[test]
fn a_backend_that_is_somebody_else_hears_nothing() {
    require!(Root);
    let (authority, other, scratch) = (Authority::new(), Authority::new(), Scratch::new());
    let ca = scratch.write("ca.pem", authority.pem());
    let (issued, elsewhere) = (authority.issue(NAME), other.issue(NAME));
    let expired = authority.issue_until(NAME, 2020);
    let both = format!("{}\nspki_pins = [\"{}\"]", by_name("else.dotd.test", &ca), issued.pin);
    for (presented, keys, reason) in [
        (&issued, by_pin(&elsewhere.pin), "has none of the configured pins"),
        (&issued, by_name("else.dotd.test", &ca), "not valid for name"),
        (&expired, by_name(NAME, &ca), "expired"),
        (&elsewhere, by_name(NAME, &ca), "BadSignature"),
        (&issued, both, "not valid for name"),
    ] {
        let (network, backend, dotd) = scene(presented, &keys);
        assert_refused(&network, &dotd, reason);
        assert!(backend.received().is_empty(), "{reason}: {:?}", backend.received());
    }
    let network = Network::new();
    let backend = Scripted::start(&network, honest);
    let keys = format!("{}\ntimeout = \"500ms\"", by_pin(&issued.pin));
    let dotd = Server::start(&network, &Config::new().backend_with(backend.address, &keys));
    assert_refused(&network, &dotd, "TLS: timed out");
    assert!(backend.received().is_empty(), "no cleartext: {:?}", backend.received());
}

fn assert_refused(network: &Network, dotd: &Server, reason: &str) {
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let answer = session.exchange(&asked(1));
    assert_eq!(answer.rcode(), SERVFAIL, "{reason}: {answer:?}");
    assert_eq!(answer.option(OPTION_EDE).expect("an EDE")[..2], NETWORK_ERROR, "{reason}");
    eventually("status says why", || {
        let said = dotd.backend_reason(0);
        said.is_some_and(|said| said.contains(reason)).then_some(())
    });
    eventually("it is down", || (dotd.backend_states()[0] == "down").then_some(()));
    let stats = dotd.stats();
    assert!(stats.counter("backend", "tls_failed") >= 1, "{stats:?}");
    assert_eq!(stats.difference(), [0; 3], "{stats:?}");
}

/// Goal: with "next" another backend is asked, with "refuse" none, however long TLS has been failing. Method: the
/// preferred backend has another key; ten queries over a longer time than its health checks need.
#[test]
fn on_tls_failure_decides_about_other_backends() {
    require!(Root);
    for (choice, rcode) in [("next", 0), ("refuse", SERVFAIL)] {
        let network = Network::new();
        let (issued, other) = (Authority::new().issue(NAME), Authority::new().issue(NAME));
        let wrong = Scripted::start_over_tls(&network, issued.serving(), honest);
        let spare = Scripted::start(&network, honest);
        let keys = format!("{}\non_tls_failure = \"{choice}\"", by_pin(&other.pin));
        let config = Config::new().set("balance", "policy", "\"first\"");
        let config = config.set("balance", "health_interval", "\"100ms\"");
        let dotd = Server::start(&network, &config.backend_with(wrong.address, &keys).backend(spare.address));
        let mut session = Dot::connect(&network.client, SERVER_V4);
        for id in 0..5 {
            assert_eq!(session.exchange(&asked(id)).rcode(), rcode, "{choice}, before checks");
        }
        eventually("it is down", || (dotd.backend_states()[0] == "down").then_some(()));
        for id in 5..10 {
            assert_eq!(session.exchange(&asked(id)).rcode(), rcode, "{choice}, known to be down");
        }
        assert_eq!(spare.received().len(), if rcode == 0 { 10 } else { 0 }, "{choice}");
        assert!(wrong.received().is_empty());
        assert_eq!(dotd.stats().difference(), [0; 3]);
    }
}

/// Goal: queries with EDNS are padded to 128 octets towards a TLS backend, whatever the client did; those without EDNS
/// are not changed, nor are those with TSIG (RFC 8467 §4.1). The client's padding and keepalive do not reach the
/// backend. Method: what the backend received.
#[test]
fn queries_are_padded_towards_the_backend() {
    require!(Root);
    let issued = Authority::new().issue(NAME);
    let (network, backend, _dotd) = scene(&issued, &by_pin(&issued.pin));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let odd =
        Opt { options: vec![(OPTION_PADDING, vec![0; 33]), (OPTION_KEEPALIVE, vec![])], ..Opt::default() };
    for query in [host(1).opt(Opt::default()), host(2).opt(odd), host(3)] {
        assert_eq!(session.exchange(&query.octets()).rcode(), 0);
    }
    let received: Vec<Vec<u8>> = backend.received().into_iter().map(|query| query.octets).collect();
    for octets in &received[..2] {
        assert_eq!(octets.len(), 128);
        let message = Message::parse(octets).expect("well-formed");
        assert!(message.option(OPTION_PADDING).is_some_and(|fill| fill.iter().all(|octet| *octet == 0)));
        assert!(message.option(OPTION_KEEPALIVE).is_none());
    }
    assert_eq!(received[2].len(), host(3).octets().len());
}

/// Goal: a connection that the backend closes is opened again with a ticket, and its queries are asked once more.
/// Method: the backend closes on every third query that it gets.
#[test]
fn a_closed_tls_connection_is_opened_again() {
    require!(Root);
    let network = Network::new();
    let issued = Authority::new().issue(NAME);
    let count = AtomicUsize::new(0);
    let script = move |query: &dot_tests::harness::scripted::Received| {
        if count.fetch_add(1, Relaxed) % 3 == 2 { vec![Act::Close] } else { honest(query) }
    };
    let backend = Scripted::start_over_tls(&network, issued.serving(), script);
    let dotd = Server::start(&network, &Config::new().backend_with(backend.address, &by_pin(&issued.pin)));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for id in 0..12 {
        assert_eq!(session.exchange(&asked(id)).rdata(A), [HONEST]);
    }
    let stats = dotd.stats();
    assert!(stats.counter("backend", "retried") >= 4, "{stats:?}");
    assert_eq!(stats.difference(), [0; 3], "{stats:?}");
}

/// Goal: a real resolver's TLS: 5000 queries by dnsperf and an answer of 5 kB, none lost. Method: Unbound with a
/// certificate of the test's authority, known by name. Covers: C-51
#[test]
fn unbound_over_tls_answers_all() {
    require!(Root, Command("unbound"), Command("dnsperf"));
    let (network, scratch, authority) = (Network::new(), Scratch::new(), Authority::new());
    let issued = authority.issue(NAME);
    let unbound = Backend::unbound_with_certificate(&network, (&issued.cert, &issued.key));
    let ca = scratch.write("ca.pem", authority.pem());
    let dotd =
        Server::start(&network, &Config::new().backend_with(unbound.tls_address(), &by_name(NAME, &ca)));
    let queries = dotd.write("queries", dnsperf_queries(5000));
    let said = dnsperf(&network.client, SERVER_V4, &queries, "-c 5 -q 100 -t 10");
    assert_eq!(said.number_after("Queries completed:"), 5000, "{}", said.text);
    assert_eq!(said.number_after("Queries lost:"), 0, "{}", said.text);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let big = session.exchange(&Query::new(1, "big.dotd.test", TXT).opt(Opt::default()).octets());
    assert!(big.rdata(TXT)[0].len() > 5000);
    let stats = dotd.stats();
    assert_eq!(stats.counter("backend", "sent"), 0, "no datagram: {stats:?}");
    assert_eq!(stats.difference(), [0; 3], "{stats:?}");
}

/// Goal: dotd itself can be such a backend, known by the pin that it prints.
#[test]
fn dotd_before_dotd() {
    require!(Root);
    let network = Network::new();
    let port = |port: u16| Config::new().set("listen", "dot", &format!("[\"127.0.0.1:{port}\"]")).xdp("off");
    let behind = Server::start(&network, &port(8853));
    let address = ([127, 0, 0, 1], 8853).into();
    let dotd = Server::start(&network, &Config::new().backend_with(address, &by_pin(&behind.pin())));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let answer =
        session.exchange(&Query::new(1, "www.dotd.test", A).opt(Opt::with(OPTION_PADDING, &[])).octets());
    assert_eq!((answer.rcode(), answer.rdata(A).len()), (0, 1));
    assert_eq!(answer.octets % 468, 0, "padded once, by the first");
    assert_eq!(dotd.stats().difference(), [0; 3]);
    assert_eq!(behind.stats().counter("handshakes", "failed_alpn"), 0);
}

/// Goal: `dotd check` names the fault of an authority's file, and so does a start.
#[test]
fn a_missing_authority_is_named() {
    require!(Root);
    let keys = by_name(NAME, Path::new("/nonexistent/ca.pem"));
    let config = Config::new().backend_with(([127, 0, 0, 1], 8853).into(), &keys);
    let ended = Server::attempt(&Network::new(), &config, Scratch::new(), &[]).expect_err("no start");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("backend.ca: /nonexistent/ca.pem: no such file"), "{}", ended.stderr);
}
