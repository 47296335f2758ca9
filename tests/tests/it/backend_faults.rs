//! Backends at their worst: an ICMP error for an answer, half a frame, all of them gone and back at once, more queries
//! over one connection than there are IDs.
//!
//! Before: real ICMP over the veth, scripted backends. After: each query has exactly one answer, and few connections
//! were opened.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        eventually,
        message::{A, NETWORK_ERROR, OPTION_EDE, Opt, Query, SERVFAIL, host, reply_to},
        netns::{CLIENT_V4, Network, SERVER_V4},
        response::Message,
        scene::{HONEST, honest, scripted_with},
        scripted::{Act, Mood, Received, Scripted},
        server::Server,
    },
    require,
};

const TRANSPORTS: [&str; 2] = ["udp", "tcp"];

fn truth(query: &Received) -> Vec<u8> {
    reply_to(&query.octets, A, &[HONEST.to_vec()])
}

/// Goal: an ICMP error is an answer: the query fails, or goes to another backend, without waiting for its deadline.
/// Method: a closed port across the veth, so that ICMP comes over the wire, and a route that says unreachable, each
/// over UDP and TCP with a timeout longer than any client waits; alone, then in front of an honest backend. Covers:
///
#[test]
fn icmp_errors_are_failures_at_once() {
    require!(Root);
    let routed: SocketAddr = "198.51.100.1:53".parse().expect("an address");
    let closed = SocketAddr::new(CLIENT_V4, 5399);
    for (address, transport) in [closed, routed].into_iter().flat_map(|at| TRANSPORTS.map(|word| (at, word)))
    {
        let network = Network::new();
        network.server.ip("route add unreachable 198.51.100.0/24");
        let keys = format!("transport = \"{transport}\"\nallow_cleartext = true\ntimeout = \"30s\"");
        let gone = Config::new().set("balance", "policy", "\"first\"").backend_with(address, &keys);
        let dotd = Server::start(&network, &gone);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        let answer = session.exchange(&Query::new(1, "www.dotd.test", A).opt(Opt::default()).octets());
        let ede = answer.option(OPTION_EDE).map(|ede| ede[..2].to_vec());
        assert_eq!(
            (answer.rcode(), ede.as_deref()),
            (SERVFAIL, Some(&NETWORK_ERROR[..])),
            "{address} {transport}"
        );
        dotd.stop();
        let backend = Scripted::start(&network, honest);
        let dotd = Server::start(&network, &gone.backend(backend.address));
        let mut session = Dot::connect(&network.client, SERVER_V4);
        for id in 0..10 {
            assert_eq!(session.exchange(&host(id)).rdata(A), [HONEST], "{address} {transport}");
        }
        assert_eq!(dotd.stats().difference(), [0; 3]);
    }
}

/// Goal: half a frame is no response: whether the connection then closes or stays open, its queries are asked again
/// over another one, and no query waits behind it. Method: a prefix of 200, fifty octets, then a close or silence; the
/// next queries.
#[test]
fn half_a_frame_is_no_response() {
    require!(Root);
    for closes in [true, false] {
        let is_first = AtomicBool::new(true);
        let script = move |query: &Received| {
            let half = [&[0, 200][..], &truth(query)[..30], &[0; 20]].concat();
            match (is_first.swap(false, Relaxed), closes) {
                (true, true) => vec![Act::SendRaw(half), Act::Close],
                (true, false) => vec![Act::SendRaw(half)],
                (false, _) => vec![Act::Send(truth(query))],
            }
        };
        let keys = "transport = \"tcp\"\ntimeout = \"2s\"";
        let (network, _backend, dotd) = scripted_with(Config::new(), keys, script);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        let first = session.exchange(&host(1));
        assert_eq!(first.rcode(), 0, "closes: {closes}: {first:?}");
        eventually("queries are answered", || {
            (session.exchange(&host(2)).rdata(A) == [HONEST]).then_some(())
        });
        for id in 3..20 {
            assert_eq!(session.exchange(&host(id)).rdata(A), [HONEST], "closes: {closes}");
        }
        assert_eq!(dotd.stats().difference(), [0; 3]);
    }
}

/// Goal: when all backends come back at once there is no burst of connections: many clients that ask all the time cause
/// few connections while all backends are gone, and few when they are back, and every client is served again. Method:
/// two backends that close each connection, forty sessions, two workers; connections that carried queries. Covers:
///
#[test]
fn recovery_is_no_stampede() {
    require!(Root);
    let network = Network::new();
    let backends = [(); 2].map(|()| Scripted::start(&network, honest));
    let config = Config::new().set("balance", "health_interval", "\"200ms\"");
    let keys = "transport = \"tcp\"";
    let config = backends.iter().fold(config, |config, backend| config.backend_with(backend.address, keys));
    let dotd = Server::start(&network, &config);
    let mut sessions: Vec<Dot> = (0..40).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
    backends.iter().for_each(|backend| backend.be(Mood::Curt));
    eventually("both are down", || (dotd.backend_states() == ["down", "down"]).then_some(()));
    let mut round = || {
        sessions.iter_mut().for_each(|session| session.ask_all(&(0..10).map(host).collect::<Vec<_>>()));
        let answers: Vec<Message> = sessions
            .iter_mut()
            .flat_map(|session| (0..10).map(|_| session.receive()).collect::<Vec<_>>())
            .collect();
        answers.iter().filter(|answer| answer.rcode() == 0).count()
    };
    let began = Instant::now();
    assert!((0..40).all(|_| round() == 0), "no backend is there");
    // The back-off allows this for two workers and two backends: six attempts within a second, then one each 0.6 s.
    let allowed = 4 * (7 + began.elapsed().as_millis() / 600);
    let down = dotd.stats().counter("backend", "connections");
    assert!(
        u128::from(down) <= allowed,
        "{down} connections, {allowed} allowed, for queries that no backend answers"
    );
    backends.iter().for_each(|backend| backend.be(Mood::Willing));
    eventually("all are served", || (round() == 400).then_some(()));
    assert_eq!(round(), 400);
    let used: HashSet<SocketAddr> =
        backends.iter().flat_map(|backend| backend.received()).map(|query| query.from).collect();
    // Each worker opens a second connection to each backend when 32 queries wait on the first.
    assert!(used.len() <= 8, "{} connections carried what one or two could", used.len());
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: with more queries over one connection than there are message IDs, each query gets its own answer, and the ID
/// of a query in flight is given to no other. Method: one worker, a query that the backend holds; 70,000 more for a
/// thousand names; then the first is answered.
#[test]
fn ids_wrap_around_what_is_in_flight() {
    require!(Root);
    const QUERIES: u32 = 70_000;
    let (count, reused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counter, reuses) = (Arc::clone(&count), Arc::clone(&reused));
    let held = Mutex::new(None);
    let script = move |query: &Received| {
        let key = (query.from, query.octets[..2].to_vec());
        let mut held = held.lock().expect("no script panics");
        counter.fetch_add(1, Relaxed);
        if query.octets.windows(5).any(|part| part == b"\x04held") {
            held.get_or_insert(key);
            return vec![Act::Hold(truth(query))];
        }
        reuses.fetch_add(usize::from(held.as_ref() == Some(&key)), Relaxed);
        vec![Act::Send(truth(query))]
    };
    let config = Config::new().xdp("off").set("server", "workers", "1");
    let keys = "transport = \"tcp\"\ntimeout = \"30s\"";
    let (network, backend, dotd) = scripted_with(config, keys, script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    // Together with one that overtakes it, because a connection that answers nothing gets no further queries.
    session.ask_all(&[Query::new(7, "held.dotd.test", A).octets(), host(1)]);
    assert_eq!(session.receive().id, 1);
    eventually("it is held", || (backend.held() == 1).then_some(()));
    for batch in 0..QUERIES / 250 {
        let ids = (0..250).map(|index| u16::try_from((batch * 250 + index) % 1000).expect("small"));
        session.ask_all(&ids.map(host).collect::<Vec<_>>());
        for _ in 0..250 {
            let answer = session.receive();
            assert_eq!(
                (answer.rdata(A), answer.qname()),
                (vec![&HONEST[..]], format!("host-{}.dotd.test", answer.id))
            );
        }
    }
    backend.release();
    let last = session.receive();
    assert_eq!((last.id, last.qname().as_str()), (7, "held.dotd.test"));
    // The held query may have been asked over another connection too, if this one had no other work.
    let again = count.load(Relaxed) - (QUERIES as usize + 2);
    assert!(again <= 1 && reused.load(Relaxed) == 0, "{again} again, {reused:?} reused");
    let received = backend.received();
    let mut over = HashMap::<SocketAddr, usize>::new();
    received.iter().for_each(|query| *over.entry(query.from).or_default() += 1);
    assert!(
        over.values().any(|queries| *queries > 1 << 16),
        "no socket carried more than there are IDs: {over:?}"
    );
    let stats = dotd.stats();
    assert_eq!(stats.difference(), [0; 3]);
    assert!(stats.counter("backend", "unmatched") <= again as u64, "{stats:?}");
}
