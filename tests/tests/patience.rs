//! Backends that are slow, lose datagrams, or change: nothing is lost by it, and nothing is left behind.
//!
//! Before: a scripted backend and a patient client. After: NOERROR, and as many descriptors as before.

use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        message::{A, reply_to, www},
        netns::{Network, SERVER_V4},
        scene::{HONEST, honest, scripted},
        scripted::{Act, Received, Scripted},
        server::Server,
    },
    require,
};

/// Goal: a backend slower than the time after which a query is sent again still answers: the answer to the
/// first datagram is as good as any. Method: all answers are held until it was sent again.
#[test]
fn a_slow_backend_still_answers() {
    require!(Root);
    let hold = |query: &Received| vec![Act::Hold(reply_to(&query.octets, A, &[HONEST.to_vec()]))];
    let (network, backend, dotd) = scripted(Config::new(), hold);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask(&www(1));
    dotd.counts("it is sent again", |stats| stats.counter("backend", "retransmitted") >= 1);
    backend.release();
    assert_eq!(session.receive().rdata(A), [HONEST]);
    dotd.counts("once", |stats| {
        stats.counter("responses", "NOERROR") == 1 && stats.difference() == [0, 0, 0]
    });
}

/// Goal: a lost datagram costs its client a moment and no SERVFAIL. Method: the backend ignores the first of
/// each three datagrams.
#[test]
fn a_lost_datagram_is_sent_again() {
    require!(Root);
    let seen = AtomicU32::new(0);
    let lose = move |query: &Received| match seen.fetch_add(1, Relaxed) % 3 {
        0 => vec![],
        _ => honest(query),
    };
    let (network, _backend, _dotd) = scripted(Config::new(), lose);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask_all(&(0..9).map(www).collect::<Vec<_>>());
    for _ in 0..9 {
        assert_eq!(session.receive().rdata(A), [HONEST]);
    }
}

/// Goal: a reload that changes the backends leaves nothing of the old ones behind. Method: twelve of them
/// under use; descriptors at the end as after the first.
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
    let mut first = 0;
    for reload in 1..=12 {
        dotd.rewrite_config(&config(reload + 1));
        dotd.signal(Signal::SIGHUP);
        dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == reload);
        assert_eq!(session.exchange(&www(1)).rdata(A), [HONEST]);
        // The worker hears of it, and the sweeper of the old backend ends, within a turn or two.
        thread::sleep(Duration::from_millis(150));
        if reload == 1 {
            first = descriptors(&dotd);
        }
    }
    let last = descriptors(&dotd);
    assert!(last <= first + 4, "{first} descriptors after the first reload, {last} after the twelfth");
    dotd.stop();
}
