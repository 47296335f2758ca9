//! A worker pauses while many answers are expected, so that it handles them together; every answer still reaches its
//! client.
//!
//! Before: a scripted backend that answers one query at a time. After: pauses were counted, and no answer was lost.

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query, header, reply_to},
        netns::{Network, SERVER_V4, SERVER_V6},
        scene::{HONEST, honest, scripted_with},
        scripted::{Act, Received, Scripted},
        server::Server,
    },
    require,
};

/// The number of queries that hang, over four sessions together.
const HANGING: u16 = 1000;

fn is_slow(query: &Received) -> bool {
    query.octets.windows(5).any(|octets| octets == b"\x04slow")
}

/// A thousand queries that `script` does not answer are at the backend.
fn hanging(script: fn(&Received) -> Vec<Act>) -> (Network, Scripted, Server, Vec<Dot>) {
    let config = Config::new().xdp("off").set("server", "workers", "1");
    let script = move |query: &Received| if is_slow(query) { script(query) } else { honest(query) };
    let (network, backend, dotd) = scripted_with(config, "timeout = \"30s\"", script);
    let mut sessions: Vec<Dot> = (0..4).map(|_| Dot::connect(&network.client, SERVER_V6)).collect();
    for session in &mut sessions {
        let queries: Vec<Vec<u8>> =
            (0..HANGING / 4).map(|id| Query::new(id, "slow.dotd.test", A).octets()).collect();
        session.ask_all(&queries);
    }
    dotd.counts("a thousand are there", |stats| {
        stats.counter("backend_outstanding", "outstanding") == u64::from(HANGING)
    });
    (network, backend, dotd, sessions)
}

/// Goal: with many queries at a backend that sends its answers one by one, a worker pauses to gather them, and each
/// client gets all of its answers. Method: four sessions with 250 queries each, repeated until the ledger has counted a
/// pause.
#[test]
fn answers_gather_while_many_are_to_come() {
    require!(Root);
    let config = Config::new().xdp("off").set("server", "workers", "1");
    let (network, _backend, dotd) = scripted_with(config, "transport = \"udp\"", honest);
    let queries: Vec<Vec<u8>> = (0..250).map(|id| Query::new(id, "www.dotd.test", A).octets()).collect();
    let mut clients: Vec<Dot> = (0..4).map(|_| Dot::connect(&network.client, SERVER_V4)).collect();
    eventually("a pause", || {
        clients.iter_mut().for_each(|client| client.ask_all(&queries));
        for client in &mut clients {
            for _ in &queries {
                assert_eq!(client.receive().rdata(A), [HONEST]);
            }
        }
        (dotd.stats().counter("backend", "pauses") > 0).then_some(())
    });
    assert_eq!(dotd.stats().difference(), [0; 3]);
    dotd.stop();
}

/// Goal: a client that asks one query at a time never waits for others. Method: 50 queries in turn.
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

/// Goal: queries that hang at a silent backend delay no other query: neither one that dotd answers itself nor one that
/// a backend answers. Method: a thousand of them; 200 queries one at a time that dotd refuses, and 200 that the backend
/// answers at once; no pause was counted.
#[test]
fn queries_that_hang_hold_nobody_up() {
    require!(Root);
    let (network, _backend, dotd, _sessions) = hanging(|_| Vec::new());
    let mut client = Dot::connect(&network.client, SERVER_V4);
    for id in 0..200 {
        // An unknown opcode.
        assert_eq!(client.exchange(&header(id, 0x1000, [0; 4])).rcode(), 4);
        let answer = client.exchange(&Query::new(id, "www.dotd.test", A).octets());
        assert_eq!(answer.rdata(A), [HONEST]);
    }
    assert_eq!(dotd.stats().counter("backend", "pauses"), 0);
    dotd.stop();
}

/// Goal: a slow backend, whose answers come one at a time while a thousand are awaited, delays no other query either.
/// Method: for each query that dotd answers itself the backend releases one answer.
#[test]
fn a_slow_backend_holds_nobody_up() {
    require!(Root);
    let hold = |query: &Received| vec![Act::Hold(reply_to(&query.octets, A, &[HONEST.to_vec()]))];
    let (network, backend, dotd, mut sessions) = hanging(hold);
    let mut client = Dot::connect(&network.client, SERVER_V4);
    for id in 0..HANGING / 4 {
        backend.release_one();
        assert_eq!(client.exchange(&header(id, 0x1000, [0; 4])).rcode(), 4);
        assert_eq!(sessions[0].receive().rdata(A), [HONEST]);
    }
    assert_eq!(dotd.stats().counter("backend", "pauses"), 0);
    dotd.stop();
}
