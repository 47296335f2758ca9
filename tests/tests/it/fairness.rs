//! One client that asks without end, and one that wants an answer: the second gets it (ATTACKS: the innocent client).
//!
//! Before: a scripted backend that holds what the flood asks. After: the innocent was answered meanwhile.

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query, reply_to},
        netns::{Network, SERVER_V4, SERVER_V6},
        scene::{HONEST, honest, scripted_with},
        scripted::{Act, Received, Scripted},
        server::Server,
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
