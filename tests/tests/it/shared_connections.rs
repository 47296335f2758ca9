//! Connections to a backend are shared: one query that closes, stalls or outlives a connection affects no other.
//!
//! Before: a backend over TCP, TLS, or UDP with TC=1 that closes on some names, answers in order, or falls silent on
//! one connection. After: each query of the innocent client was answered, and the bad ones used a bounded number of
//! connections.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Mutex,
};

use dot_tests::{
    harness::{
        backends::Backend,
        config::Config,
        dot::Dot,
        eventually,
        message::{A, AAAA, OPTION_EDE, Opt, Query, SERVFAIL, append_opt, host, reply_to},
        netns::{Network, SERVER_V4, SERVER_V6},
        pki::Authority,
        response::Message,
        scene::{HONEST, honest, scripted_with},
        scripted::{Act, Received, Scripted},
        server::Server,
    },
    require,
};

const TCP: &str = "transport = \"tcp\"";

fn qname(query: &Received) -> String {
    Message::parse(&query.octets).expect("dotd sends whole messages").qname()
}

fn named(id: u16, qname: &str) -> Vec<u8> {
    Query::new(id, qname, A).opt(Opt::default()).octets()
}

/// Answers all names over a connection, but closes on those that begin with `kill`; truncates over UDP.
fn closes_upon_some(query: &Received) -> Vec<Act> {
    match (query.is_tcp, qname(query).starts_with("kill")) {
        (true, true) => vec![Act::Close],
        (true, false) => honest(query),
        (false, _) => {
            let mut cut = reply_to(&query.octets, A, &[]);
            cut[2] |= 0x02;
            vec![Act::Send(cut)]
        }
    }
}

/// In each round an attacker sends queries that close connections, and an innocent client sends others, each in a write
/// of its own and from different networks. Returns how many of the innocent client's queries were not answered.
fn rounds_beside(network: &Network, rounds: u16, bad: impl Fn(u16) -> Vec<Vec<u8>>) -> usize {
    let (mut attacker, mut innocent) =
        (Dot::connect(&network.client, SERVER_V4), Dot::connect(&network.client, SERVER_V6));
    let mut lost = 0;
    for round in 0..rounds {
        let bad = bad(round);
        attacker.ask_all(&bad);
        innocent.ask_all(&(0..10).map(host).collect::<Vec<_>>());
        lost += (0..10).filter(|_| innocent.receive().rdata(A) != [HONEST]).count();
        for _ in 0..bad.len() {
            assert_eq!(attacker.receive().rcode(), SERVFAIL);
        }
    }
    lost
}

/// Goal: a client whose queries make the backend close its connections, each with a new name, does not disturb other
/// clients. Method: over TCP, TLS, and UDP with TC=1, one worker, so that all share connections: three such queries
/// beside ten innocent ones, fifty times.
#[test]
fn queries_that_close_connections_take_nobody_along() {
    require!(Root);
    for transport in ["tcp", "tls", "udp"] {
        let network = Network::new();
        let issued = Authority::new().issue("ns.dotd.test");
        let backend = match transport {
            "tls" => Scripted::start_over_tls(&network, issued.serving(), closes_upon_some),
            _ => Scripted::start(&network, closes_upon_some),
        };
        let pin =
            if transport == "tls" { format!("spki_pins = [\"{}\"]", issued.pin) } else { String::new() };
        let keys = format!("transport = \"{transport}\"\n{pin}");
        let config = Config::new().set("server", "workers", "1").backend_with(backend.address, &keys);
        let dotd = Server::start(&network, &config);
        let killers =
            |round: u16| (0..3).map(|id| named(id, &format!("kill-{round}-{id}.bad.test"))).collect();
        assert_eq!(rounds_beside(&network, 50, killers), 0, "{transport}: innocents lost of 500");
        let stats = dotd.stats();
        assert_eq!(stats.difference(), [0; 3], "{transport}: {stats:?}");
        assert!(
            backend.accepted() < 1500,
            "{transport}: {} connections for 150 bad queries",
            backend.accepted()
        );
    }
}

/// Closes on names that begin with `kill`, never answers those that begin with `hang`.
fn kills_or_hangs(query: &Received) -> Vec<Act> {
    if qname(query).starts_with("hang") { Vec::new() } else { closes_upon_some(query) }
}

/// The attacker asks for two names that close connections, and gets failures: it is set apart.
fn set_apart(attacker: &mut Dot, innocent: &mut Dot, dotd: &Server, backend: &Scripted) {
    let mut round = 0;
    eventually("the attacker is set apart", || {
        for id in 0..2 {
            innocent.ask_all(&(0..10).map(host).collect::<Vec<_>>());
            attacker.ask(&named(id, &format!("kill-{round}-{id}.n{round}-{id}.bad.test")));
            (0..10).for_each(|_| assert_eq!(innocent.receive().rdata(A), [HONEST]));
            assert_eq!(attacker.receive().rcode(), SERVFAIL);
            assert_eq!(innocent.exchange(&host(1)).rdata(A), [HONEST]);
        }
        round += 1;
        let (ours, theirs) = (named(1, "apart-attacker.dotd.test"), named(2, "apart-innocent.dotd.test"));
        let answers = [attacker.exchange(&ours), innocent.exchange(&theirs)];
        assert!(answers.iter().all(|answer| answer.rdata(A) == [HONEST]), "{:?}", dotd.stats());
        let received = backend.received();
        let last = |name: &str| received.iter().rfind(|one| qname(one).starts_with(name)).map(|one| one.from);
        (last("apart-attacker") != last("apart-innocent")).then_some(())
    });
}

/// Goal: a client that is set apart and asks for names that are never answered takes no connection from clients that
/// lost theirs because of another client's query. Method: forty such queries wait; then ten rounds of a killer beside
/// an innocent client.
#[test]
fn queries_that_hang_hold_no_place_of_suspects() {
    require!(Root);
    let config = Config::new().set("server", "workers", "1");
    let (network, backend, dotd) = scripted_with(config, TCP, kills_or_hangs);
    let mut attacker = Dot::connect(&network.client, SERVER_V4);
    let mut innocent = Dot::connect(&network.client, SERVER_V6);
    set_apart(&mut attacker, &mut innocent, &dotd, &backend);
    attacker.ask_all(&(0..40).map(|id| named(id, &format!("hang-{id}.bad.test"))).collect::<Vec<_>>());
    eventually("some hang", || {
        // An innocent client goes on asking.
        assert_eq!(innocent.exchange(&host(1)).rdata(A), [HONEST]);
        let hanging = backend.received().iter().filter(|one| qname(one).starts_with("hang")).count();
        (hanging >= 5).then_some(())
    });
    let killers = |round: u16| vec![named(round, &format!("kill-{round}.worse.test"))];
    assert_eq!(rounds_beside(&network, 10, killers), 0, "innocents lost of 100");
    (0..40).for_each(|_| assert_eq!(attacker.receive().rcode(), SERVFAIL));
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// An honest answer with TTL 0, which no cache keeps.
fn without_ttl(query: &Received) -> Vec<Act> {
    let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
    // With one record the last octet of the TTL stands before RDLENGTH and four octets of RDATA.
    let ttl_end = reply.len() - 7;
    reply[ttl_end] = 0;
    append_opt(&mut reply, &Opt::default());
    vec![Act::Send(reply)]
}

/// Goal: with the cache on, too, dotd knows which client's queries close connections. Method: see `set_apart`. Covers:
///
#[test]
fn a_client_is_set_apart_with_the_cache_on() {
    require!(Root);
    let config = Config::new().set("server", "workers", "1").set("dns", "cache_entries", "10000");
    let uncached = |query: &Received| match qname(query).starts_with("kill") {
        true => vec![Act::Close],
        false => without_ttl(query),
    };
    let (network, backend, dotd) = scripted_with(config, TCP, uncached);
    let mut attacker = Dot::connect(&network.client, SERVER_V4);
    let mut innocent = Dot::connect(&network.client, SERVER_V6);
    set_apart(&mut attacker, &mut innocent, &dotd, &backend);
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: a query on which a connection closed twice, without other queries on it, is recognised by its question and not
/// asked again for a while, and the client is told so; another question for that name is asked. Method: an innocent
/// client that keeps the backend answering; then the bad query again, in other case, and as AAAA.
#[test]
fn a_query_that_closes_connections_is_refused_for_a_while() {
    require!(Root);
    let config = Config::new().set("server", "workers", "1");
    let is_killer = |query: &Received| qname(query).to_lowercase().starts_with("kill");
    let script = move |query: &Received| match is_killer(query)
        && query.octets.windows(5).any(|part| part == [0, 0, 1, 0, 1])
    {
        true => vec![Act::Close],
        false => honest(query),
    };
    let (network, backend, dotd) = scripted_with(config, TCP, script);
    eventually("it is known", || {
        assert_eq!(rounds_beside(&network, 1, |_| vec![named(1, "kill.dotd.test")]), 0);
        (dotd.stats().counter("backend", "refused") > 0).then_some(())
    });
    let killers = || backend.received().iter().filter(|query| is_killer(query)).count();
    let asked = killers();
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for name in ["kill.dotd.test", "KILL.dotd.test"] {
        let answer = session.exchange(&named(1, name));
        let ede = answer.option(OPTION_EDE).expect("an EDE");
        assert_eq!((answer.rcode(), &ede[..2]), (SERVFAIL, &[0, 0][..]));
        assert!(String::from_utf8_lossy(&ede[2..]).contains("closes its connections"), "{ede:?}");
    }
    assert_eq!(killers(), asked, "it was asked again");
    assert_eq!(session.exchange(&Query::new(1, "kill.dotd.test", AAAA).octets()).rcode(), 0);
    let stats = dotd.stats();
    assert!(stats.counter("backend", "refused") >= 2, "{stats:?}");
    assert_eq!(stats.difference(), [0; 3]);
}

/// Goal: a connection that accepts queries and never answers loses none of them, and is not used any more. Method: the
/// first connection that carries a query never answers; 40 queries in turn, then 40 at once.
#[test]
fn a_silent_connection_is_left() {
    require!(Root);
    let first = Mutex::new(None);
    let script = move |query: &Received| {
        let deaf = *first.lock().expect("no script panics").get_or_insert(query.from);
        if query.from == deaf { Vec::new() } else { honest(query) }
    };
    let config = Config::new().set("server", "workers", "1");
    let (network, backend, dotd) = scripted_with(config, TCP, script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for id in 0..40 {
        assert_eq!(session.exchange(&host(id)).rdata(A), [HONEST], "{id}");
    }
    session.ask_all(&(0..40).map(host).collect::<Vec<_>>());
    for _ in 0..40 {
        assert_eq!(session.receive().rdata(A), [HONEST]);
    }
    let received = backend.received();
    let deaf = received[0].from;
    assert_eq!(received.iter().filter(|query| query.from == deaf).count(), 1, "one query waited there");
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// A backend that answers each connection in order. It never answers a name that begins with `slow`, so that all other
/// queries of that connection wait.
fn in_order() -> impl Fn(&Received) -> Vec<Act> + Send + Sync + 'static {
    let stalled = Mutex::new(HashSet::<SocketAddr>::new());
    move |query| {
        let mut stalled = stalled.lock().expect("no script panics");
        if qname(query).starts_with("slow") {
            stalled.insert(query.from);
        }
        if stalled.contains(&query.from) { Vec::new() } else { honest(query) }
    }
}

/// Goal: a slow name delays no other query, where the backend answers a connection in order. Method: five slow names,
/// each in one write with twenty others.
#[test]
fn a_slow_name_holds_nobody() {
    require!(Root);
    let config = Config::new().set("server", "workers", "1");
    let (network, backend, dotd) = scripted_with(config, TCP, in_order());
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for round in 0..5 {
        let slow = named(1000, &format!("slow-{round}.dotd.test"));
        session.ask_all(&std::iter::once(slow).chain((0..20).map(host)).collect::<Vec<_>>());
        let answers: HashMap<u16, Message> =
            (0..21).map(|_| session.receive()).map(|one| (one.id, one)).collect();
        assert!((0..20).all(|id| answers[&id].rdata(A) == [HONEST]), "{round}: {answers:?}");
        assert_eq!(answers[&1000].rcode(), SERVFAIL);
    }
    assert_eq!(dotd.stats().difference(), [0; 3]);
    let used: HashSet<SocketAddr> = backend.received().iter().map(|query| query.from).collect();
    assert!(used.len() <= 5 * 12, "{} connections", used.len());
}

/// Goal: a backend that answers once per connection answers all that it is asked at once. Method: it closes after each
/// answer; 40 queries in one write, three times.
#[test]
fn a_backend_that_answers_once_answers_all() {
    require!(Root);
    let served = Mutex::new(HashSet::<SocketAddr>::new());
    let script = move |query: &Received| match served.lock().expect("no panic").insert(query.from) {
        true => honest(query).into_iter().chain([Act::Close]).collect(),
        false => Vec::new(),
    };
    let (network, backend, dotd) = scripted_with(Config::new(), TCP, script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for _ in 0..3 {
        session.ask_all(&(0..40).map(host).collect::<Vec<_>>());
        let lost = (0..40).filter(|_| session.receive().rdata(A) != [HONEST]).count();
        assert_eq!(lost, 0, "of 40");
    }
    let stats = dotd.stats();
    assert_eq!(stats.difference(), [0; 3], "{stats:?}");
    let asked = backend.received().len();
    assert!(asked < 400, "{asked} queries were sent for 120");
}

/// Goal: clients that ask for other names are served by a real resolver that closes its connections on some names, as
/// Unbound does with `local-zone: deny`. Method: names below such a zone, a new one each, beside innocent queries; over
/// TCP and TLS.
#[test]
fn a_resolver_that_denies_serves_the_others() {
    require!(Root, Command("unbound"));
    for transport in ["tcp", "tls"] {
        let network = Network::new();
        let issued = Authority::new().issue("ns.dotd.test");
        let unbound = Backend::unbound_that_denies(&network, (&issued.cert, &issued.key));
        let (address, pin) = match transport {
            "tls" => (unbound.tls_address(), format!("spki_pins = [\"{}\"]", issued.pin)),
            _ => (unbound.address, String::new()),
        };
        let keys = format!("transport = \"{transport}\"\n{pin}");
        let config = Config::new().set("server", "workers", "1").backend_with(address, &keys);
        let dotd = Server::start(&network, &config);
        let bad = |round: u16| (0..3).map(|id| named(id, &format!("n{round}-{id}.deny.dotd.test"))).collect();
        let (mut attacker, mut innocent) =
            (Dot::connect(&network.client, SERVER_V4), Dot::connect(&network.client, SERVER_V4));
        for round in 0..50 {
            let bad: Vec<_> = bad(round);
            attacker.ask_all(&bad);
            innocent.ask_all(&(0..10).map(host).collect::<Vec<_>>());
            let answered = (0..10).filter(|_| innocent.receive().rcode() == 0).count();
            assert_eq!(answered, 10, "{transport}: round {round}: {}", unbound.log());
            bad.iter().for_each(|_| assert_eq!(attacker.receive().rcode(), SERVFAIL));
        }
        assert_eq!(dotd.stats().difference(), [0; 3]);
    }
}

/// Goal: the same for a real server that answers a connection in order: a name that it waits for delays no other query.
/// Method: dnsmasq, which asks a server that never answers for some names; five of them beside 100 queries. Covers:
/// A-213, C-211
#[test]
fn a_name_that_dnsmasq_waits_for_holds_nobody() {
    require!(Root, Command("dnsmasq"));
    let network = Network::new();
    let never = Scripted::start(&network, |_| Vec::new());
    let dnsmasq = Backend::dnsmasq(&network, HONEST, never.address);
    let config = Config::new().set("server", "workers", "1").backend_with(dnsmasq.address, TCP);
    let dotd = Server::start(&network, &config);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for round in 0..5 {
        let slow = named(1000, &format!("n{round}.slow.test"));
        session.ask_all(&std::iter::once(slow).chain((0..20).map(host)).collect::<Vec<_>>());
        let answers: HashMap<u16, Message> =
            (0..21).map(|_| session.receive()).map(|one| (one.id, one)).collect();
        assert!((0..20).all(|id| answers[&id].rdata(A) == [HONEST]), "{round}: {answers:?}");
    }
    assert_eq!(dotd.stats().difference(), [0; 3]);
}
