//! `balance.hedge_percent`: a query that is late at one backend is also sent to another, and gets one answer.
//!
//! Before: a backend that answered well and now holds some queries. After: another one answered them, without
//! fail-over, which would begin seconds later.

use dot_tests::{
    harness::{
        backends::Backend,
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query, SERVFAIL, SOA, header, question, reply_to},
        netns::{Network, SERVER_V4},
        response::Message,
        scripted::{Act, Received, Scripted},
        server::Server,
        stats::Stats,
    },
    require,
};

const ONE: [u8; 4] = [192, 0, 2, 1];
const TWO: [u8; 4] = [192, 0, 2, 2];
/// After this many plain queries the latency of the first backend is known.
const WARM_UP: u16 = 300;
/// Fail-over begins after a quarter of it, which is too late to matter here.
const TIMEOUT: &str = "timeout = \"30s\"";
const TRANSPORTS: [&str; 2] = ["transport = \"udp\"", "transport = \"tcp\""];

fn is_meant(query: &[u8], start: &str) -> bool {
    Message::parse(query).is_some_and(|query| query.qname().starts_with(start))
}

/// Answers at once, but holds the answers to queries for `host-9…`.
fn holding_some(query: &Received) -> Vec<Act> {
    let reply = reply_to(&query.octets, A, &[ONE.to_vec()]);
    vec![if is_meant(&query.octets, "host-9") { Act::Hold(reply) } else { Act::Send(reply) }]
}

fn host(number: u16) -> Vec<u8> {
    Query::new(number, &format!("host-{number}.dotd.test"), A).octets()
}

/// Policy `first`, one worker, and hedging.
fn config(percent: &str) -> Config {
    Config::new()
        .set("server", "workers", "1")
        .set("session", "in_flight_max", "1000")
        .set("balance", "policy", "\"first\"")
        .set("balance", "hedge_percent", percent)
}

/// Teaches dotd that the first backend answers at once.
fn warm_up(session: &mut Dot) {
    for start in (0..WARM_UP).step_by(50) {
        // None of them is held, and all are in NSD's zone.
        session.ask_all(&(start..start + 50).map(|number| host(number + 100)).collect::<Vec<_>>());
        (0..50).for_each(|_| assert_eq!(session.receive().rcode(), 0));
    }
}

/// Asks queries that the first backend holds, one after the other, until one of them has had a second try, because a
/// slow machine may have used up the share of second tries before. Returns its number, and how many queries wait for
/// the first backend alone.
fn ask_until_hedged(session: &mut Dot, dotd: &Server) -> (u16, usize) {
    let fate = |stats: &Stats| ["hedged", "hedge_over_budget"].map(|label| stats.counter("backend", label));
    for (others, number) in (900..1000).enumerate() {
        let before = fate(&dotd.stats());
        session.ask(&host(number));
        let after = fate(&dotd.counts("it is late", |stats| fate(stats) != before));
        if after[0] > before[0] {
            return (number, others);
        }
        warm_up(session);
    }
    panic!("a hundred were late, and none was hedged");
}

/// Each of `pairs` tries, whose first one was held, has one answer too many, which comes late. A slow machine makes other pairs:
/// of queries that were sent again or moved to another connection, and second tries that were not sent any more.
fn await_late_answers(dotd: &Server, pairs: u64) -> Stats {
    let at_most = |stats: &Stats| {
        ["hedged", "retransmitted", "retried", "moved"]
            .map(|label| stats.counter("backend", label))
            .iter()
            .sum()
    };
    let stats = dotd.counts("what comes second is dropped", |stats| {
        let late = stats.counter("backend", "unmatched") + stats.counter("backend", "hedge_failed");
        (pairs..=at_most(stats)).contains(&late)
    });
    assert_eq!(stats.counter("backend", "failed_over"), 0, "{stats:?}");
    assert_eq!(stats.difference(), [0; 3], "{stats:?}");
    stats
}

/// Goal: the query is answered once, by a real server beside the slow one; the answer of the slow one is dropped and
/// counted. Method: a scripted backend that answers 300 queries and holds the next one; NSD, which has the name; over
/// UDP and TCP.
#[test]
fn a_late_query_is_asked_of_another_too() {
    require!(Root, Command("nsd"));
    for keys in TRANSPORTS {
        let network = Network::new();
        let (first, nsd) = (Scripted::start(&network, holding_some), Backend::nsd(&network, 5300));
        let keys = format!("{keys}\n{TIMEOUT}");
        let config = config("5").backend_with(first.address, &keys).backend_with(nsd.address, &keys);
        let dotd = Server::start(&network, &config);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        warm_up(&mut session);
        let (number, others) = ask_until_hedged(&mut session, &dotd);
        let answer = session.receive();
        let (said, host) = (answer.rdata(A).first().copied(), u8::try_from(number % 250).expect("small"));
        assert_eq!((answer.id, said), (number, Some(&[198, 51, 100, host][..])), "{keys}: NSD's");
        assert_eq!(first.held(), others + 1, "{keys}: the first still has it");
        first.release();
        (0..others).for_each(|_| assert_eq!(session.receive().rdata(A), [ONE]));
        let stats = await_late_answers(&dotd, 1);
        assert!(stats.counter("backend", "hedge_won") >= 1, "{keys}: {stats:?}");
        assert!(session.is_quiet(), "{keys}: one answer");
    }
}

/// Goal: while a backend stalls, another one gets no more than the percentage of all queries. Method: 400 queries held
/// at once, all of them late; each still gets one answer in the end.
#[test]
fn second_tries_are_at_most_their_percentage() {
    require!(Root);
    for keys in TRANSPORTS {
        let network = Network::new();
        let second = |query: &Received| vec![Act::Send(reply_to(&query.octets, A, &[TWO.to_vec()]))];
        let (first, second) = (Scripted::start(&network, holding_some), Scripted::start(&network, second));
        let keys = format!("{keys}\n{TIMEOUT}");
        let config = config("5").backend_with(first.address, &keys).backend_with(second.address, &keys);
        let dotd = Server::start(&network, &config);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        warm_up(&mut session);
        let before = dotd.stats().counter("backend", "hedged");
        let held: Vec<u16> = (900..1000).chain(9000..9300).collect();
        session.ask_all(&held.iter().copied().map(host).collect::<Vec<_>>());
        dotd.counts("every one was late", |stats| {
            stats.counter("backend", "hedged") + stats.counter("backend", "hedge_over_budget") >= 400
        });
        let all = usize::from(WARM_UP) + held.len();
        assert!(second.received().len() * 20 <= all, "{keys}: {} of {all}", second.received().len());
        eventually("the first has them all", || (first.held() == held.len()).then_some(()));
        first.release();
        let mut answered: Vec<u16> = held.iter().map(|_| session.receive().id).collect();
        answered.sort_unstable();
        assert_eq!(answered, held, "{keys}: each has one answer");
        let pairs = dotd.stats().counter("backend", "hedged") - before;
        let stats = await_late_answers(&dotd, pairs);
        assert!(stats.counter("backend", "hedged") >= 1, "{keys}: {stats:?}");
    }
}

/// Goal: a failure of the second backend does not end the wait for the first. Method: SERVFAIL from the second at once,
/// then the answer of the first.
#[test]
fn a_second_backends_failure_is_not_preferred() {
    require!(Root);
    let network = Network::new();
    let failing = |query: &Received| {
        let mut reply = reply_to(&query.octets, A, &[]);
        reply[3] |= u8::try_from(SERVFAIL).expect("four bits");
        vec![Act::Send(reply)]
    };
    let (first, second) = (Scripted::start(&network, holding_some), Scripted::start(&network, failing));
    let config = config("5").backend_with(first.address, TIMEOUT).backend_with(second.address, TIMEOUT);
    let dotd = Server::start(&network, &config);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    warm_up(&mut session);
    let (_, others) = ask_until_hedged(&mut session, &dotd);
    let stats = dotd.counts("and was not believed", |stats| stats.counter("backend", "hedge_failed") >= 1);
    assert_eq!(stats.counter("responses", "SERVFAIL"), 0, "{stats:?}");
    assert!(session.is_quiet());
    first.release();
    (0..=others).for_each(|_| assert_eq!(session.receive().rdata(A), [ONE]));
    await_late_answers(&dotd, 1);
}

/// Goal: when both are silent there is one failure, and their later answers are dropped. Method: both hold; a deadline
/// of two seconds.
#[test]
fn two_tries_fail_once() {
    require!(Root);
    let network = Network::new();
    let backends = [(); 2].map(|()| Scripted::start(&network, holding_some));
    let keys = "timeout = \"2s\"";
    let config = backends.iter().fold(config("5"), |config, one| config.backend_with(one.address, keys));
    let dotd = Server::start(&network, &config);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    warm_up(&mut session);
    session.ask(&host(9));
    eventually("both have it", || backends.iter().all(|one| one.held() > 0).then_some(()));
    assert_eq!(session.receive().rcode(), SERVFAIL);
    backends.iter().for_each(Scripted::release);
    let stats = dotd.counts("both answers are late", |stats| stats.counter("backend", "unmatched") >= 2);
    assert_eq!((stats.counter("responses", "SERVFAIL"), stats.counter("backend", "timeout")), (1, 1));
    assert_eq!(stats.difference(), [0; 3], "{stats:?}");
    assert!(session.is_quiet());
}

/// Goal: a request that must not be repeated goes to one backend, however late it is. Method: NOTIFY and UPDATE are
/// held, then a query, which is hedged although the others were late before it.
#[test]
fn notify_and_update_are_asked_once() {
    require!(Root);
    let network = Network::new();
    let second = |query: &Received| vec![Act::Send(reply_to(&query.octets, A, &[TWO.to_vec()]))];
    let holding = |query: &Received| match query.octets[2] >> 3 & 15 {
        0 => holding_some(query),
        _ => vec![Act::Hold(reply_to(&query.octets, A, &[]))],
    };
    let (first, second) = (Scripted::start(&network, holding), Scripted::start(&network, second));
    let config = config("5").set("dns", "notify", "true").set("dns", "update", "true");
    let config = config.backend_with(first.address, TIMEOUT).backend_with(second.address, TIMEOUT);
    let dotd = Server::start(&network, &config);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    warm_up(&mut session);
    for flags in [0x2400, 0x2800] {
        session.ask(&[header(1, flags, [1, 0, 0, 0]), question("dotd.test", SOA)].concat());
    }
    eventually("both are held", || (first.held() == 2).then_some(()));
    ask_until_hedged(&mut session, &dotd);
    assert_eq!(session.receive().rdata(A), [TWO]);
    let opcodes: Vec<u8> = second.received().iter().map(|query| query.octets[2] >> 3 & 15).collect();
    assert!(opcodes.iter().all(|opcode| *opcode == 0), "{opcodes:?}");
    assert!(dotd.stats().counter("backend", "hedged") >= 1);
}
