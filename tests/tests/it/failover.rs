//! Several backends: which one gets a query, and which one gets it next when the first is silent, down or closed.
//!
//! Before: two backends, one of which fails. After: each query has exactly one answer, from the other one.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use dot_tests::{
    harness::{
        DEADLINE,
        backends::{Backend, dnsperf_queries},
        clients::dnsperf,
        config::Config,
        dot::Dot,
        eventually,
        message::{A, OPTION_EDE, Opt, Query, SERVFAIL, host, reply_to},
        netns::{Network, SERVER_V4},
        response::Message,
        scripted::{Act, Mood, Received, Scripted},
        server::Server,
    },
    require,
};
use nix::sys::signal::Signal;

const ONE: [u8; 4] = [192, 0, 2, 1];
const TWO: [u8; 4] = [192, 0, 2, 2];
const TRANSPORTS: [&str; 2] = ["transport = \"udp\"", "transport = \"tcp\""];

fn answering(rdata: [u8; 4]) -> impl Fn(&Received) -> Vec<Act> + Send + Sync + 'static {
    move |query| vec![Act::Send(reply_to(&query.octets, A, &[rdata.to_vec()]))]
}

/// Two backends that answer with different addresses, and dotd in front of them.
fn two(policy: &str, keys: &str) -> (Network, [Scripted; 2], Server) {
    let network = Network::new();
    let backends = [ONE, TWO].map(|rdata| Scripted::start(&network, answering(rdata)));
    let config = Config::new().set("balance", "policy", &format!("\"{policy}\"")).set(
        "balance",
        "health_interval",
        "\"200ms\"",
    );
    let config = backends.iter().fold(config, |config, backend| config.backend_with(backend.address, keys));
    let dotd = Server::start(&network, &config);
    (network, backends, dotd)
}

fn await_states(dotd: &Server, expected: [&str; 2]) {
    eventually(&format!("backends are {expected:?}"), || (dotd.backend_states() == expected).then_some(()));
}

/// Goal: a query whose backend is a black hole is answered by another one within its deadline, once; later answers of
/// the first are dropped and counted. Method: the first holds its replies; policy `first`, over UDP and TCP, with an
/// interval of health checks that is too long to matter.
#[test]
fn a_silent_backends_query_goes_to_another() {
    require!(Root);
    for keys in TRANSPORTS {
        let network = Network::new();
        let hold = |query: &Received| vec![Act::Hold(reply_to(&query.octets, A, &[ONE.to_vec()]))];
        let (first, second) = (Scripted::start(&network, hold), Scripted::start(&network, answering(TWO)));
        let config = Config::new().set("balance", "policy", "\"first\"");
        let config = config.backend_with(first.address, keys).backend_with(second.address, keys);
        let dotd = Server::start(&network, &config);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        session.ask_all(&(0..20).map(host).collect::<Vec<_>>());
        let mut ids: Vec<u16> = (0..20)
            .map(|_| {
                let answer = session.receive();
                assert_eq!(answer.rdata(A), [TWO], "{keys}");
                answer.id
            })
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..20).collect::<Vec<_>>());
        assert_eq!(first.held(), 20, "{keys}: each was asked of the first, once");
        first.release();
        // A connection on which no query waits any more is closed.
        let late = if keys == TRANSPORTS[0] { 20 } else { 0 };
        let stats =
            dotd.counts("late ones are dropped", |stats| stats.counter("backend", "unmatched") == late);
        assert_eq!(stats.counter("backend", "failed_over"), 20);
        assert!(session.is_quiet() && stats.difference() == [0; 3], "{stats:?}");
    }
}

/// Goal: the answer of a backend that needs longer than its share of the deadline still counts if there is no other
/// backend: a query that is sent again keeps its port and ID. Method: the replies are held until the query has come
/// twice.
#[test]
fn a_slow_backend_is_waited_for() {
    require!(Root);
    let network = Network::new();
    let hold = |query: &Received| vec![Act::Hold(reply_to(&query.octets, A, &[ONE.to_vec()]))];
    let backend = Scripted::start(&network, hold);
    let dotd = Server::start(&network, &Config::new().backend_with(backend.address, "timeout = \"8s\""));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask(&host(1));
    eventually("the query is sent again", || (backend.held() == 2).then_some(()));
    backend.release();
    assert_eq!(session.receive().rdata(A), [ONE]);
    let received = backend.received();
    assert_eq!((&received[0].octets, received[0].from), (&received[1].octets, received[1].from));
    let stats = dotd.counts("the second answer is late", |stats| stats.counter("backend", "unmatched") == 1);
    assert_eq!((stats.counter("backend", "retransmitted"), stats.difference()), (1, [0; 3]));
}

/// Goal: queries for a backend that is down only move to another one. Method: the first backend is a port where nothing
/// listens; over UDP and TCP.
#[test]
fn an_absent_backends_query_goes_to_another() {
    require!(Root);
    for keys in TRANSPORTS {
        let network = Network::new();
        let second = Scripted::start(&network, answering(TWO));
        let config = Config::new().set("balance", "policy", "\"first\"");
        let config = config.backend_with(([127, 0, 0, 1], 9).into(), keys);
        let dotd = Server::start(&network, &config.backend_with(second.address, keys));
        let mut session = Dot::connect(&network.client, SERVER_V4);
        session.ask_all(&(0..50).map(host).collect::<Vec<_>>());
        for _ in 0..50 {
            assert_eq!(session.receive().rdata(A), [TWO], "{keys}");
        }
        await_states(&dotd, ["down", "up"]);
        assert_eq!(dotd.stats().difference(), [0; 3]);
    }
}

/// Goal: health checks find out which backend is up; one that is down gets no queries until it answers again, over UDP
/// and TCP. Method: one of two stops answering, then answers again; policy `round-robin`.
#[test]
fn health_checks_find_who_is_up() {
    require!(Root);
    for keys in TRANSPORTS {
        let (network, backends, dotd) = two("round-robin", keys);
        await_states(&dotd, ["up", "up"]);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        let mut ask = || -> HashMap<Vec<u8>, usize> {
            let mut answers = HashMap::new();
            for id in 0..20 {
                let answer = session.exchange(&host(id));
                *answers.entry(answer.rdata(A)[0].to_vec()).or_default() += 1;
            }
            answers
        };
        assert_eq!(ask(), HashMap::from([(ONE.to_vec(), 10), (TWO.to_vec(), 10)]));
        backends[0].be(Mood::Deaf);
        await_states(&dotd, ["down", "up"]);
        let before = backends[0].received().len();
        assert_eq!(ask(), HashMap::from([(TWO.to_vec(), 20)]));
        assert_eq!(backends[0].received().len(), before, "{keys}: who is down is not asked");
        backends[0].be(Mood::Willing);
        await_states(&dotd, ["up", "up"]);
        assert_eq!(ask().get(ONE.as_slice()), Some(&10));
    }
}

/// Goal: with every backend down queries are still tried, and the first backend that answers is used. Method: both
/// answer nothing until both are down; one query fails; one of them recovers.
#[test]
fn all_down_then_up_recovers() {
    require!(Root);
    for keys in TRANSPORTS {
        let (network, backends, dotd) = two("least-outstanding", &format!("{keys}\ntimeout = \"1500ms\""));
        backends.iter().for_each(|backend| backend.be(Mood::Deaf));
        await_states(&dotd, ["down", "down"]);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        assert_eq!(session.exchange(&host(1)).rcode(), 2);
        backends[1].be(Mood::Willing);
        await_states(&dotd, ["down", "up"]);
        for id in 0..20 {
            assert_eq!(session.exchange(&host(id)).rdata(A), [TWO], "{keys}");
        }
    }
}

/// Goal: a name stays with one backend in any case of its letters, names spread over both, and if one is down its names
/// go to the other. Method: 100 names twice in different case; then one backend stops answering.
#[test]
fn hash_keeps_a_name_with_a_backend() {
    require!(Root);
    let (network, backends, dotd) = two("hash", "");
    await_states(&dotd, ["up", "up"]);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let mut ask = |id: u16, name: &str| -> Vec<u8> {
        session.exchange(&Query::new(id, name, A).octets()).rdata(A)[0].to_vec()
    };
    let names: Vec<String> = (0..100).map(|number| format!("host-{number}.dotd.test")).collect();
    let homes: Vec<Vec<u8>> = names.iter().map(|name| ask(1, name)).collect();
    let shouted: Vec<Vec<u8>> = names.iter().map(|name| ask(2, &name.to_ascii_uppercase())).collect();
    assert_eq!(homes, shouted);
    let at_one = homes.iter().filter(|home| **home == ONE).count();
    assert!((20..=80).contains(&at_one), "{at_one} of 100 at the first");
    backends[0].be(Mood::Deaf);
    await_states(&dotd, ["down", "up"]);
    assert!(names.iter().all(|name| ask(3, name) == TWO));
}

/// Goal: of two NSDs one is stopped under load: no query is lost, and `status` says which one is down; after it
/// continues, it is up again. Method: SIGSTOP, dnsperf of 5,000 queries, SIGCONT; over UDP and TCP.
#[test]
fn a_stopped_nsd_loses_no_query() {
    require!(Root, Command("dnsperf"), Command("nsd"));
    for keys in TRANSPORTS {
        let network = Network::new();
        let nsds = [5300, 5301].map(|port| Backend::nsd(&network, port));
        let config = nsds.iter().fold(Config::new(), |config, nsd| config.backend_with(nsd.address, keys));
        let dotd = Server::start(&network, &config.set("balance", "health_interval", "\"200ms\""));
        await_states(&dotd, ["up", "up"]);
        let queries = dotd.write("queries", dnsperf_queries(5000));
        nsds[0].stop_all();
        let said = dnsperf(&network.client, SERVER_V4, &queries, "-c 5 -q 200 -t 10");
        assert_eq!(said.number_after("Queries completed:"), 5000, "{keys}: {}", said.text);
        assert_eq!(said.number_after("Queries lost:"), 0, "{keys}: {}", said.text);
        await_states(&dotd, ["down", "up"]);
        let stats = dotd.stats();
        assert_eq!(stats.counter("responses", "SERVFAIL"), 0, "{keys}: {stats:?}");
        assert_eq!(stats.difference(), [0; 3], "{keys}: {stats:?}");
        nsds[0].continue_all();
        await_states(&dotd, ["up", "up"]);
    }
}

/// Goal: a restart of the only backend loses no query, however many attempts to reach it fail, if it is back before the
/// deadline. Method: queries to an NSD that has ended, and a new one after six attempts.
#[test]
fn a_restart_within_the_deadline_loses_nothing() {
    require!(Root, Command("nsd"));
    let network = Network::new();
    let nsd = Backend::nsd(&network, 5300);
    let keys = "transport = \"tcp\"\ntimeout = \"30s\"";
    let dotd = Server::start(&network, &Config::new().backend_with(nsd.address, keys));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&host(0)).rcode(), 0);
    drop(nsd);
    session.ask_all(&(0..100).map(host).collect::<Vec<_>>());
    let failed = || dotd.stats().counter("backend", "connect_failed");
    eventually("six attempts fail", || (failed() >= 6).then_some(()));
    let nsd = Backend::nsd(&network, 5300);
    let answers: Vec<Message> = (0..100).map(|_| session.receive()).collect();
    assert!(answers.iter().all(|answer| answer.rcode() == 0), "{:?}", dotd.stats());
    assert_eq!(dotd.stats().difference(), [0; 3]);
    drop(nsd);
}

/// Goal: a backend that answers nothing for a while is not taken for one that holds queries behind a slow one: it gets
/// no additional connections afterwards. Method: NSD is stopped until queries were moved, and goes on.
#[test]
fn a_pause_is_no_stall() {
    require!(Root, Command("nsd"));
    let network = Network::new();
    let nsd = Backend::nsd(&network, 5300);
    let keys = "transport = \"tcp\"\ntimeout = \"8s\"";
    let dotd = Server::start(&network, &Config::new().backend_with(nsd.address, keys));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let mut round = |while_asked: &dyn Fn()| {
        session.ask_all(&(0..100).map(host).collect::<Vec<_>>());
        while_asked();
        assert!((0..100).all(|_| session.receive().rcode() == 0));
    };
    round(&|| ());
    nsd.stop_all();
    let count = |label| dotd.stats().counter("backend", label);
    round(&|| {
        eventually("queries are moved", || (count("moved") > 0).then_some(()));
        nsd.continue_all();
    });
    let before = count("connections");
    (0..5).for_each(|_| round(&|| ()));
    let after = count("connections");
    assert!(after <= before + 2, "{after} connections after {before}");
}

/// Goal: a backend that restarts under load: every query has one answer, SERVFAIL at worst, and afterwards all are
/// answered again without a burst of connections. Method: NSD ends and starts again while a session keeps asking; over
/// UDP and TCP.
#[test]
fn a_restart_under_load_is_survived() {
    require!(Root, Command("nsd"));
    for keys in TRANSPORTS {
        let network = Network::new();
        let nsd = Backend::nsd(&network, 5300);
        let dotd = Server::start(&network, &Config::new().backend_with(nsd.address, keys));
        let mut session = Dot::connect(&network.client, SERVER_V4);
        let mut round = || {
            session.ask_all(&(0..100).map(host).collect::<Vec<_>>());
            let answers: Vec<Message> = (0..100).map(|_| session.receive()).collect();
            let mut ids: Vec<u16> = answers.iter().map(|answer| answer.id).collect();
            ids.sort_unstable();
            assert_eq!(ids, (0..100).collect::<Vec<_>>(), "{keys}: each has one answer");
            answers.iter().filter(|answer| answer.rcode() == 0).count()
        };
        assert_eq!(round(), 100);
        drop(nsd);
        eventually("queries fail", || (round() == 0).then_some(()));
        let starting = std::thread::scope(|scope| {
            let start = scope.spawn(|| Backend::nsd(&network, 5300));
            while !start.is_finished() {
                round();
            }
            start.join().expect("NSD starts")
        });
        eventually(&format!("all are answered within {DEADLINE:?}"), || (round() == 100).then_some(()));
        assert_eq!(round(), 100, "{keys}");
        let stats = dotd.stats();
        assert_eq!(stats.difference(), [0; 3], "{keys}: {stats:?}");
        assert!(stats.counter("backend", "connections") <= 8, "{keys}: {stats:?}");
        drop(starting);
    }
}

/// Goal: a reload that names another backend ends the old one's connections and checks. Method: ten reloads that
/// alternate between two backends over TCP, a query after each; the number of open descriptors does not grow.
#[test]
fn a_reload_leaves_nothing_of_old_backends() {
    require!(Root);
    let network = Network::new();
    let backends = [ONE, TWO].map(|rdata| Scripted::start(&network, answering(rdata)));
    let config = |index: usize| Config::new().backend_with(backends[index].address, TRANSPORTS[1]);
    let mut dotd = Server::start(&network, &config(0));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&host(0)).rdata(A), [ONE]);
    let folder = format!("/proc/{}/fd", dotd.pid());
    let descriptors = || std::fs::read_dir(&folder).expect("it runs").count();
    let before = descriptors();
    for round in 1..=10 {
        dotd.rewrite_config(&config(round % 2));
        dotd.signal(Signal::SIGHUP);
        let expected = [ONE, TWO][round % 2];
        eventually("the new backend answers", || {
            (session.exchange(&host(1)).rdata(A) == [expected]).then_some(())
        });
    }
    eventually("old sockets are closed", || (descriptors() <= before + 2).then_some(()));
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: a backend never has more unanswered queries than its cap: the next backend gets the others, and where no place
/// is left the client gets SERVFAIL with EDE 23 at once. Method: two backends that hold every query, caps of 10 and 20,
/// one worker, 40 queries in one write.
#[test]
fn no_backend_has_more_than_its_cap() {
    require!(Root);
    let network = Network::new();
    let hold = |query: &Received| vec![Act::Hold(reply_to(&query.octets, A, &[ONE.to_vec()]))];
    let backends = [10, 20].map(|cap| (Scripted::start(&network, hold), cap));
    let config = Config::new().set("server", "workers", "1").set("balance", "policy", "\"first\"");
    let config = backends.iter().fold(config, |config, (backend, cap)| {
        config.backend_with(backend.address, &format!("outstanding_max = {cap}\ntimeout = \"20s\""))
    });
    let dotd = Server::start(&network, &config);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let asked = |id| Query::new(id, "www.dotd.test", A).opt(Opt::default()).octets();
    session.ask_all(&(0..40).map(asked).collect::<Vec<_>>());
    for _ in 0..10 {
        let answer = session.receive();
        assert_eq!(
            (answer.rcode(), &answer.option(OPTION_EDE).expect("an EDE")[..2]),
            (SERVFAIL, &[0, 23][..])
        );
    }
    for (backend, cap) in &backends {
        eventually("its share is held", || (backend.held() == *cap).then_some(()));
        backend.release();
    }
    for _ in 0..30 {
        assert_eq!(session.receive().rdata(A), [ONE]);
    }
    assert!(session.is_quiet());
    let stats = dotd.stats();
    assert_eq!((stats.counter("backend", "full"), stats.difference()), (10, [0; 3]), "{stats:?}");
}

/// Goal: a backend that answers its checks and few of the queries is set aside while another backend answers them, and
/// `status` says how many it answers. Method: one of two drops four of five queries; round-robin, an interval of checks
/// longer than any client waits.
#[test]
fn a_backend_that_answers_few_is_set_aside() {
    require!(Root);
    let network = Network::new();
    let count = AtomicUsize::new(0);
    let few = move |query: &Received| match count.fetch_add(1, Relaxed) % 5 {
        0 => answering(ONE)(query),
        _ => Vec::new(),
    };
    let (poor, good) = (Scripted::start(&network, few), Scripted::start(&network, answering(TWO)));
    let config = Config::new().set("server", "workers", "1").set("balance", "policy", "\"round-robin\"");
    let config = config.set("balance", "health_interval", "\"6s\"");
    let keys = "timeout = \"2s\"";
    let dotd =
        Server::start(&network, &config.backend_with(poor.address, keys).backend_with(good.address, keys));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    eventually("it is set aside", || {
        session.ask_all(&(0..40).map(host).collect::<Vec<_>>());
        (0..40).for_each(|_| assert_eq!(session.receive().rcode(), 0));
        (dotd.stats().counter("backend", "set_aside") > 0).then_some(())
    });
    let before = poor.received().len();
    session.ask_all(&(0..40).map(host).collect::<Vec<_>>());
    (0..40).for_each(|_| assert_eq!(session.receive().rdata(A), [TWO]));
    assert_eq!(poor.received().len(), before, "it is asked no more");
    assert_eq!(dotd.backend_states(), ["up", "up"]);
    eventually("status says so", || {
        session.ask_all(&(0..40).map(host).collect::<Vec<_>>());
        (0..40).for_each(|_| assert_eq!(session.receive().rcode(), 0));
        dotd.answered_percent(0).filter(|percent| *percent < 50)
    });
    assert_eq!(dotd.stats().difference(), [0; 3]);
}
