//! Backends that are slow, lose datagrams, or change: no query is lost, and no descriptor is leaked.
//!
//! Before: a scripted backend and a patient client. After: NOERROR, and as many descriptors as before.

use std::{collections::HashSet, fs, sync::Mutex};

use nix::sys::signal::Signal;

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        eventually,
        message::{A, host, reply_to, www},
        netns::{Network, SERVER_V4},
        scene::{HONEST, honest, scripted_with},
        scripted::{Act, Received, Scripted},
        server::Server,
    },
    require,
};

/// Enough time for a query to be sent again and answered on a busy machine.
const PATIENT: &str = "timeout = \"8s\"";

/// Goal: a backend slower than the time after which a query is sent again still answers: an answer to its first
/// datagram counts as well. Method: all answers are held until the query was sent again.
#[test]
fn a_slow_backend_still_answers() {
    require!(Root);
    let hold = |query: &Received| vec![Act::Hold(reply_to(&query.octets, A, &[HONEST.to_vec()]))];
    let (network, backend, dotd) = scripted_with(Config::new(), PATIENT, hold);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask(&www(1));
    dotd.counts("it is sent again", |stats| stats.counter("backend", "retransmitted") >= 1);
    eventually("both are held", || (backend.held() >= 2).then_some(()));
    backend.release();
    assert_eq!(session.receive().rdata(A), [HONEST]);
    dotd.counts("once", |stats| {
        stats.counter("responses", "NOERROR") == 1 && stats.difference() == [0, 0, 0]
    });
}

/// Goal: a lost datagram delays its client briefly and causes no SERVFAIL. Method: the backend ignores the first
/// datagram of every query.
#[test]
fn a_lost_datagram_is_sent_again() {
    require!(Root);
    let seen = Mutex::new(HashSet::new());
    let lose = move |query: &Received| match seen.lock().expect("nobody panics").insert(query.octets.clone())
    {
        true => vec![],
        false => honest(query),
    };
    let (network, _backend, dotd) = scripted_with(Config::new(), PATIENT, lose);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask_all(&(0..9).map(host).collect::<Vec<_>>());
    for _ in 0..9 {
        assert_eq!(session.receive().rdata(A), [HONEST]);
    }
    let stats = dotd.counts("all is over", |stats| stats.difference() == [0; 3]);
    assert!(stats.counter("backend", "retransmitted") >= 9, "{stats:?}");
}

/// Goal: a reload that changes the backends leaves no descriptor of the old ones behind. Method: twelve reloads while
/// queries are asked; as many descriptors at the end as before.
#[test]
fn reloads_leave_no_descriptor_behind() {
    require!(Root);
    let network = Network::new();
    let backend = Scripted::start(&network, honest);
    let config = |weight: u64| Config::new().backend_with(backend.address, &format!("weight = {weight}"));
    let mut dotd = Server::start(&network, &config(1));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let descriptors =
        |dotd: &Server| fs::read_dir(format!("/proc/{}/fd", dotd.pid())).expect("it runs").count();
    assert_eq!(session.exchange(&www(1)).rdata(A), [HONEST]);
    let before = descriptors(&dotd);
    for reload in 1..=12 {
        dotd.rewrite_config(&config(reload + 1));
        dotd.signal(Signal::SIGHUP);
        dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == reload);
        assert_eq!(session.exchange(&www(1)).rdata(A), [HONEST]);
    }
    eventually("old sockets are closed", || (descriptors(&dotd) <= before + 4).then_some(()));
    dotd.stop();
}

/// Goal: a backend that is silent or slow with much in flight does not get a multiple of its load, and second tries are
/// sent in batches. Method: 5,000 queries at a UDP backend that answers nothing; datagrams and system calls. Covers:
///
#[test]
fn a_silent_backend_gets_a_share_more() {
    require!(Root);
    const QUERIES: u16 = 5000;
    let config =
        Config::new().xdp("off").set("server", "workers", "1").set("session", "in_flight_max", "10000");
    let (network, backend, dotd) = scripted_with(config, "timeout = \"4s\"", |_| Vec::new());
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let queries: Vec<_> = (0..QUERIES).map(host).collect();
    queries.chunks(500).for_each(|some| session.ask_all(some));
    for _ in 0..QUERIES {
        assert_eq!(session.receive().rcode(), 2);
    }
    let stats = dotd.stats();
    let [again, calls, sent] =
        ["retransmitted", "send_calls", "sent"].map(|label| stats.counter("backend", label));
    // A fifth of 5,000, and 320 a second for four seconds, twice as many where sweeps are late.
    assert!((1..1000 + 2 * 4 * 320).contains(&again), "{stats:?}");
    assert!(calls * 4 < sent, "{calls} calls for {sent} datagrams");
    assert!(backend.received().len() as u64 <= sent);
    assert_eq!(stats.difference(), [0; 3]);
}
