//! Answers gather while many are to come: the worker pauses, and every answer still reaches its client.
//!
//! Before: a scripted backend that answers one query at a time. After: pauses were counted, and nothing was lost.

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query},
        netns::SERVER_V4,
        scene::{HONEST, honest, scripted_with},
    },
    require,
};

/// Goal: with many queries at a backend that sends its answers one by one a worker lets them gather, and each client
/// has all of its answers. Method: 250 queries at once, until the ledger has seen a pause.
#[test]
fn answers_gather_while_many_are_to_come() {
    require!(Root);
    let config = Config::new().xdp("off").set("server", "workers", "1");
    let (network, _backend, dotd) = scripted_with(config, "transport = \"udp\"", honest);
    let queries: Vec<Vec<u8>> = (0..250).map(|id| Query::new(id, "www.dotd.test", A).octets()).collect();
    let mut client = Dot::connect(&network.client, SERVER_V4);
    eventually("a pause", || {
        assert!(client.try_ask_all(&queries));
        for _ in &queries {
            assert_eq!(client.receive().rdata(A), [HONEST]);
        }
        (dotd.stats().counter("backend", "pauses") > 0).then_some(())
    });
    assert_eq!(dotd.stats().difference(), [0; 3]);
    dotd.stop();
}

/// Goal: who asks one at a time never waits for others. Method: 50 queries in turn.
#[test]
fn a_single_query_is_never_held_up() {
    require!(Root);
    let config = Config::new().xdp("off").set("server", "workers", "1");
    let (network, _backend, dotd) = scripted_with(config, "transport = \"udp\"", honest);
    let mut client = Dot::connect(&network.client, SERVER_V4);
    for id in 0..50 {
        let answer = client.exchange(&Query::new(id, "www.dotd.test", A).octets());
        assert_eq!(answer.rdata(A), [HONEST]);
    }
    assert_eq!(dotd.stats().counter("backend", "pauses"), 0);
    dotd.stop();
}
