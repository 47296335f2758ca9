//! Records that carry nothing, inside an established session: the cheapest way for a client to keep a server busy.
//!
//! Before: a session whose client seals records that no library would. After: a bounded number of them, then the right
//! end.

use dot_tests::{
    harness::{
        clients::read_to_close,
        config::Config,
        dot::Dot,
        message::{framed, www},
        netns::{Network, SERVER_V4},
        scene::{assert_served, honest, scripted},
        scripted::Scripted,
        sealer::{ALERT, APPLICATION_DATA, HANDSHAKE, Sealer},
        server::Server,
    },
    require,
};

/// Alert: a warning that close_notify comes (RFC 8446 §6.1).
const USER_CANCELED: [u8; 2] = [1, 90];
/// Records after which the connection must be closed.
const RECORDS_MAX: usize = 100_000;

/// One worker: if it spins, no other client is served.
fn scene() -> (Network, Scripted, Server) {
    scripted(Config::new().xdp("off").set("server", "workers", "1"), honest)
}

fn sealer(network: &Network) -> Sealer {
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_served(&mut session);
    session.into_sealer()
}

/// Goal: empty records, and warnings, are bounded: a run of them ends the session with unexpected_message, however they
/// are mixed, and memory does not grow (RFC 8446 §5.4). Method: each without end until dotd closes; the counter, and
/// another client on the only worker.
#[test]
fn records_that_carry_nothing_are_counted() {
    require!(Root);
    let (network, backend, dotd) = scene();
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    let kinds: [&[(u8, &[u8])]; 3] = [
        &[(APPLICATION_DATA, &[])],
        &[(ALERT, &USER_CANCELED)],
        &[(APPLICATION_DATA, &[]), (ALERT, &USER_CANCELED)],
    ];
    for (count, kind) in (1..).zip(kinds) {
        let mut sealer = sealer(&network);
        let is_closed = (0..RECORDS_MAX).any(|number| {
            let (content_type, content) = kind[number % kind.len()];
            !sealer.send(content_type, content)
        });
        assert!(is_closed, "{RECORDS_MAX} records of nothing");
        dotd.counts("it is counted", |stats| stats.counter("session_ends", "tls") == count);
        assert_served(&mut innocent);
    }
    assert_eq!(backend.received().len(), 6, "nothing was taken for a query");
}

/// Goal: a few empty records between queries, which old middleboxes made, are no offence. Method: thirty before each of
/// ten queries, all of which reach the backend.
#[test]
fn a_few_empty_records_are_nothing() {
    require!(Root);
    let (network, backend, dotd) = scene();
    let mut sealer = sealer(&network);
    for id in 0..10 {
        assert!((0..30).all(|_| sealer.send(APPLICATION_DATA, &[])));
        assert!(sealer.send(APPLICATION_DATA, &framed(&www(id))));
    }
    dotd.counts("all are forwarded", |stats| stats.counter("queries", "forwarded") == 11);
    assert_eq!(backend.received().len(), 11);
    assert_eq!(dotd.stats().sum("session_ends", ""), 0);
}

/// Goal: a record that is not allowed in a session ends it at once: change_cipher_spec or an alert in clear, a
/// handshake message of another phase, a fatal alert. Method: each once; the end, its counter, and no answer to the
/// query behind it.
#[test]
fn what_has_no_place_in_a_session_ends_it() {
    require!(Root);
    let (network, backend, dotd) = scene();
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    let in_clear: [&[u8]; 2] = [&[20, 3, 3, 0, 1, 1], &[21, 3, 3, 0, 2, 1, 0]];
    // HelloRequest, a new ClientHello, Finished; then a fatal alert.
    let sealed: [(u8, &[u8]); 4] = [
        (HANDSHAKE, &[0; 4]),
        (HANDSHAKE, &[1, 0, 0, 2, 3, 3]),
        (HANDSHAKE, &[20, 0, 0, 0]),
        (ALERT, &[2, 80]),
    ];
    let mut ends = 0;
    let mut ended = |mut sealer: Sealer, octets: Vec<u8>| {
        let query = sealer.seal(APPLICATION_DATA, &framed(&www(7)));
        let _ = std::io::Write::write_all(sealer.tcp(), &[octets, query].concat());
        let _ = read_to_close(sealer.tcp());
        ends += 1;
        dotd.counts("it is counted", |stats| stats.counter("session_ends", "tls") == ends);
        assert_served(&mut innocent);
    };
    for octets in in_clear {
        ended(sealer(&network), octets.to_vec());
    }
    for (content_type, content) in sealed {
        let mut sealer = sealer(&network);
        let octets = sealer.seal(content_type, content);
        ended(sealer, octets);
    }
    assert_eq!(backend.received().len(), 12, "no query behind it was taken");
}
