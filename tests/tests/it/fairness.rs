//! One client that asks without end, and one that wants an answer: the second gets it (ATTACKS: the innocent client).
//!
//! Before: a scripted backend that holds what the flood asks, or a server that is stopped while a crowd sends. After: the
//! innocent was answered meanwhile.
//! Never: measures time: what counts is who waited, and who was answered while how many others were not.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use nix::sys::signal::Signal;

use dot_tests::{
    harness::{
        clients::{DOT_PORT, tcp},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query, reply_to, www},
        netns::{Network, SERVER_V4, SERVER_V6},
        raw_hello::{greased_hello, handshake_record, retried_hellos},
        scene::{HONEST, embedded, honest, scripted_with},
        scripted::{Act, Received, Scripted},
        server::Server,
        stats::Stats,
    },
    require,
};

/// Holds what the flood asks for (`slow…`), and answers the rest.
fn slow_for_the_flood(query: &Received) -> Vec<Act> {
    let is_slow = query.octets.windows(5).any(|octets| octets == b"\x04slow");
    if is_slow { vec![Act::Hold(reply_to(&query.octets, A, &[HONEST.to_vec()]))] } else { honest(query) }
}

fn scene(in_flight_max: &str) -> (Network, Scripted, Server) {
    let config = Config::new()
        .xdp("off")
        .set("server", "workers", "1")
        .set("session", "in_flight_max", in_flight_max)
        .set("session", "message_timeout", "\"60s\"");
    scripted_with(config, "transport = \"tcp\"\ntimeout = \"30s\"", slow_for_the_flood)
}

/// Goal: whoever asks more than a slow backend answers fills half of what it can have in flight, others are answered
/// meanwhile, and nothing of the flood is lost either. Method: 20 sessions with 500 queries each, which the backend
/// holds, where a backend over TCP has at most 4096; an innocent session asks ten times; then the backend answers
/// all. Covers: A-33, C-15
#[test]
fn a_flood_of_queries_leaves_room_for_others() {
    require!(Root);
    let (network, backend, dotd) = scene("65535");
    let queries: Vec<Vec<u8>> = (0..500).map(|id| Query::new(id, "slow.dotd.test", A).octets()).collect();
    let mut flood: Vec<Dot> = (0..20).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
    for session in &mut flood {
        assert!(session.try_ask_all(&queries), "the socket has room for what dotd does not read");
    }
    let stats = dotd.counts("the flood is in flight", |stats| {
        stats.counter("backend_outstanding", "outstanding") >= 2048
    });
    assert!(stats.counter("backend_outstanding", "outstanding") < 2500, "{stats:?}");
    let mut innocent = Dot::connect(&network.client, SERVER_V6);
    for id in 0..10 {
        let answer = innocent.exchange(&Query::new(id, "www.dotd.test", A).octets());
        assert_eq!(answer.rdata(A), [HONEST]);
    }
    assert_eq!(dotd.stats().counter("backend", "full"), 0);
    // Those who waited for room go on as their own answers come.
    eventually("all of the flood is answered", || {
        backend.release();
        (dotd.stats().counter("responses", "NOERROR") == 20 * 500 + 10).then_some(())
    });
    assert_eq!(dotd.stats().difference(), [0; 3]);
    drop(flood);
    dotd.stop();
}

/// Connections of a crowd.
const CROWD: usize = 300;

/// dotd does nothing until it is told to go on, so that all that is sent meanwhile is there at once.
fn stop(dotd: &mut Server) {
    dotd.signal(Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", dotd.pid());
    eventually("dotd is stopped", || fs::read_to_string(&stat).ok()?.contains(") T ").then_some(()));
}

/// A crowd's connections, each of which has sent `first`, and dotd has read that.
fn crowd(network: &Network, innocent: &mut Dot, first: &[u8]) -> Vec<TcpStream> {
    let dot = SocketAddr::new(SERVER_V4, DOT_PORT);
    let mut crowd: Vec<TcpStream> = (0..CROWD).map(|_| tcp(&network.client, dot)).collect();
    for stream in &mut crowd {
        stream.write_all(first).expect("open");
        // Read before the next one sends, so that none waits for another.
        assert_eq!(innocent.exchange(&www(1)).rcode(), 0);
    }
    crowd
}

/// Goal: the signature of a handshake waits for its turn, whichever records bring what it is for, so that a crowd whose
/// hellos become whole at once delays nobody. Method: 300 connections send the first octet of their hello in a record of
/// its own, or a hello that a HelloRetryRequest answers, one after the other; dotd is stopped while they send the rest; all
/// but those of the first turns have waited then.
#[test]
fn signatures_wait_for_their_turn_whatever_brings_them() {
    require!(Root);
    // The crowd comes one by one, however long that takes.
    let config = Config::new().xdp("off").set("server", "workers", "1");
    let config = config.set("session", "handshake_timeout", "\"60s\"");
    let (network, mut dotd) = embedded(&config);
    let hello = greased_hello();
    let [first, second] = retried_hellos();
    let flights = [
        (handshake_record(&hello[..1]), handshake_record(&hello[1..])),
        (handshake_record(&first), handshake_record(&second)),
    ];
    let mut innocent = Dot::connect(&network.client, SERVER_V6);
    for (round, (flight, rest)) in flights.into_iter().enumerate() {
        let before = dotd.stats().counter("fairness", "handshakes_waited");
        let mut crowd = crowd(&network, &mut innocent, &flight);
        stop(&mut dotd);
        crowd.iter_mut().for_each(|stream| stream.write_all(&rest).expect("open"));
        innocent.ask(&www(2));
        dotd.signal(Signal::SIGCONT);
        assert_eq!(innocent.receive().rcode(), 0);
        let waited = |stats: &Stats| stats.counter("fairness", "handshakes_waited") - before;
        let stats = dotd.counts("the crowd has waited", |stats| waited(stats) >= CROWD as u64 / 2);
        assert_eq!(
            stats.sum("handshakes", "failed_"),
            (round * CROWD) as u64,
            "those of the last round left"
        );
        for stream in &mut crowd {
            let mut record = [0; 5];
            stream.read_exact(&mut record).expect("an answer of the server's");
            assert_eq!(record[0], 22);
        }
        drop(crowd);
        dotd.counts("the crowd has left", |stats| stats.counter("connections_open", "open") == 1);
    }
    dotd.stop();
}
