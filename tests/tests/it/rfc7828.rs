//! RFC 7828, edns-tcp-keepalive: the session's own value, hop by hop.
//!
//! Before: `harness::scene`. After: a client may keep its session as long as TIMEOUT says.

use dot_tests::{
    harness::{
        config::Config,
        dot::{Dot, End},
        eventually,
        message::{A, OPTION_KEEPALIVE, Opt, Query, append_opt, reply_to},
        netns::SERVER_V4,
        response::Message,
        scene::{HONEST, honest, scripted, scripted_with},
        scripted::{Act, Received},
    },
    require,
};
use nix::sys::signal::Signal;

fn asking(id: u16) -> Vec<u8> {
    Query::new(id, "www.dotd.test", A).opt(Opt::with(OPTION_KEEPALIVE, &[])).octets()
}

/// Goal: TIMEOUT is the session's idle timeout in units of 100 ms (§3.3.2).
/// Method: two idle timeouts, the option asked for. Covers: C-31
#[test]
fn timeout_is_the_idle_timeout() {
    require!(Root);
    for (idle, units) in [("12s", 120_u16), ("2500ms", 25)] {
        let config = Config::new().set("session", "idle_timeout", &format!("\"{idle}\""));
        let (network, _backend, _dotd) = scripted(config, honest);
        let answer = Dot::connect(&network.client, SERVER_V4).exchange(&asking(1));
        assert_eq!(answer.option(OPTION_KEEPALIVE), Some(units.to_be_bytes().to_vec()), "{idle}");
        assert_eq!(answer.rdata(A), [HONEST]);
    }
}

/// Goal: never in a response to a query without OPT (§3.4), which then has no OPT at all. Method: a plain query; also
/// with `dns.keepalive = false`. Covers: C-33, C-41
#[test]
fn no_opt_no_keepalive() {
    require!(Root);
    let (network, _backend, _dotd) = scripted(Config::new(), honest);
    let answer = Dot::connect(&network.client, SERVER_V4).exchange(&Query::new(1, "dotd.test", A).octets());
    assert_eq!((answer.opt_count(), answer.rdata(A)), (0, vec![&HONEST[..]]));
    let (network, _backend, _dotd) = scripted(Config::new().set("dns", "keepalive", "false"), honest);
    let answer = Dot::connect(&network.client, SERVER_V4).exchange(&asking(1));
    assert_eq!(answer.option(OPTION_KEEPALIVE), None);
}

/// Goal: hop by hop: the option does not reach the backend, and the backend's value does not reach the client.
/// Method: the backend sends TIMEOUT 9999 in its OPT. Covers: C-35
#[test]
fn keepalive_is_hop_by_hop() {
    require!(Root);
    let script = |query: &Received| {
        let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
        append_opt(&mut reply, &Opt::with(OPTION_KEEPALIVE, &9999_u16.to_be_bytes()));
        vec![Act::Send(reply)]
    };
    let (network, backend, _dotd) = scripted(Config::new(), script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let answer = session.exchange(&asking(1));
    assert_eq!(answer.option(OPTION_KEEPALIVE), Some(300_u16.to_be_bytes().to_vec()));
    assert_eq!(answer.options().iter().filter(|(code, _)| *code == OPTION_KEEPALIVE).count(), 1);
    let plain = session.exchange(&Query::new(2, "dotd.test", A).opt(Opt::default()).octets());
    assert!(plain.option(OPTION_KEEPALIVE).is_none_or(|value| value == 300_u16.to_be_bytes()));
    for received in backend.received() {
        let asked = Message::parse(&received.octets).expect("dotd sends whole messages");
        assert_eq!(asked.option(OPTION_KEEPALIVE), None);
    }
}

/// Goal: a client that is answered while dotd drains is told to close: TIMEOUT 0 (§3.3.2). Method: a query is at the
/// backend when TERM comes; its answer, then close_notify. Covers: C-32
#[test]
fn timeout_is_zero_while_draining() {
    require!(Root);
    let hold = |query: &Received| {
        let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
        append_opt(&mut reply, &Opt::default());
        vec![Act::Hold(reply)]
    };
    let (network, backend, mut dotd) = scripted_with(Config::new(), "timeout = \"20s\"", hold);
    let mut idle = Dot::connect(&network.client, SERVER_V4);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask(&asking(1));
    eventually("the query is at the backend", || (backend.held() == 1).then_some(()));
    dotd.signal(Signal::SIGTERM);
    // An idle session ends at once, which shows that draining has begun.
    assert_eq!(idle.end(), End::CloseNotify);
    backend.release();
    assert_eq!(session.receive().option(OPTION_KEEPALIVE), Some(vec![0, 0]));
    assert_eq!(session.end(), End::CloseNotify);
}

/// Goal: a query option with a value, which RFC 7828 §3.2.1 forbids, has one stable outcome.
/// Method: the same query three times, on one session and on another. Covers: C-34
#[test]
fn a_query_option_with_a_value_has_one_outcome() {
    require!(Root);
    let (network, _backend, _dotd) = scripted(Config::new(), honest);
    let query = Query::new(1, "dotd.test", A).opt(Opt::with(OPTION_KEEPALIVE, &[0, 1])).octets();
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let first = session.exchange(&query);
    assert!([0, 1].contains(&first.rcode()), "{first:?}");
    assert_eq!(session.exchange(&query), first);
    assert_eq!(Dot::connect(&network.client, SERVER_V4).exchange(&query), first);
}

/// Goal: near the connection cap TIMEOUT shrinks, at the cap it is 0, which asks clients to close (§3.3.2), and the
/// sessions' real timeout shrinks with it (RFC 7766 §6.2.3); with fewer connections both are as configured. Method:
/// eight places; TIMEOUT as they fill and empty, whichever worker has the other connections. Covers: C-27, C-32
#[test]
fn timeout_shrinks_near_the_cap() {
    require!(Root);
    let config = Config::new()
        .set("session", "idle_timeout", "\"20s\"")
        .set("session", "duration_max", "\"5min\"")
        .set("session", "connections_max", "8");
    let (network, _backend, dotd) = scripted(config, honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let mut hears = |what: &str, units: u16| {
        eventually(what, || {
            let said = session.exchange(&asking(1)).option(OPTION_KEEPALIVE);
            (said == Some(units.to_be_bytes().to_vec())).then_some(())
        });
    };
    let connect = || Dot::connect(&network.client, SERVER_V4);
    let mut others: Vec<Dot> = (0..5).map(|_| connect()).collect();
    hears("six of eight change nothing", 200);
    others.push(connect());
    hears("seven of eight: half of the way to a tenth", 110);
    others.push(connect());
    hears("all places are taken", 0);
    drop(others);
    hears("all are free", 200);
    dotd.stop();
}

/// Goal: a session that was idle before there were many connections ends at the shortened timeout, not at the one with
/// which its timer started. Method: 50 s, which become 5 s at the cap; a session asks once, and two seconds later all
/// other places are taken. Covers: C-27, C-28
#[test]
fn who_was_idle_before_learns_of_it() {
    require!(Root);
    let config =
        Config::new().set("session", "idle_timeout", "\"50s\"").set("session", "connections_max", "8");
    let (network, _backend, dotd) = scripted(config, honest);
    let mut first = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(first.exchange(&asking(1)).rdata(A), [HONEST]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let others: Vec<Dot> = (0..7).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
    assert_eq!(first.end(), End::CloseNotify, "long before 50 s: this client waits for 20 at most");
    drop(first);
    dotd.counts("it was idle", |stats| stats.counter("session_ends", "idle") >= 1);
    drop(others);
}
