//! A session that ends in order loses no answer: everything that was written arrives, then close_notify, then FIN.
//!
//! Before: a client that goes on asking while its session ends, and whose kernel buffers little. After: the client has
//! every answer that dotd counted, and no reset destroyed one.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;

use dot_tests::{
    harness::{
        clients::tcp_with_window,
        config::Config,
        dot::{Dot, End},
        message::{A, Query, framed, www},
        netns::{Network, SERVER_V4},
        offer::Offer,
        scene::{HONEST, embedded, honest, scripted},
    },
    require,
};

/// A client's receive buffer: most answers wait at the server.
const WINDOW_OCTETS: usize = 4096;
/// The pause that makes a reader slow.
const PAUSE: Duration = Duration::from_millis(1);

/// A session of a client that accepts little at a time.
fn session(network: &Network) -> Dot {
    let stream = tcp_with_window(&network.client, (SERVER_V4, 853).into(), WINDOW_OCTETS);
    Dot::over(stream, SERVER_V4, &Offer::default()).expect("a session")
}

/// Reads to the end, slowly: with pauses, so that many octets are in transit when dotd ends the session. Returns the
/// number of answers.
fn read_slowly(session: &mut Dot) -> usize {
    let mut answers = 0;
    while session.receive_octets().is_some() {
        answers += 1;
        if answers % 50 == 0 {
            thread::sleep(PAUSE);
        }
    }
    answers
}

/// That many framed queries, back to back.
fn queries(count: usize) -> Vec<u8> {
    framed(&Query::new(7, "dotd.test", A).octets()).repeat(count)
}

/// Goal: a client that asks on beyond `queries_max` gets every answer up to it, then close_notify and FIN: octets that
/// dotd does not read any more must not cause a reset, which would destroy answers in transit. Method: three times as
/// many queries as are allowed, written by a thread while the answers are read through a small window. Covers: A-270,
/// C-255
#[test]
fn queries_max_loses_no_answer() {
    require!(Root);
    const ALLOWED: usize = 10_000;
    let config = Config::new().set("session", "queries_max", &ALLOWED.to_string());
    let (network, dotd) = embedded(&config);
    let mut session = session(&network);
    let writer = session.send_in_the_background(&queries(3 * ALLOWED));
    let answers = read_slowly(&mut session);
    assert_eq!((answers, session.end()), (ALLOWED, End::CloseNotify));
    drop(session);
    writer.join().expect("its errors do not matter");
    let stats = dotd.counts("it is counted", |stats| stats.counter("session_ends", "queries") == 1);
    assert_eq!(stats.counter("owed", "lost_octets"), 0);
}

/// Goal: the same over TCP in clear: all answers, then FIN and no reset.
#[test]
fn queries_max_loses_no_answer_in_clear() {
    require!(Root);
    const ALLOWED: usize = 10_000;
    let address = SocketAddr::from((SERVER_V4, 53));
    let listen = format!("[\"{address}\"]");
    let config = Config::new().set("listen", "do53", &listen);
    let (network, dotd) = embedded(&config.set("session", "queries_max", &ALLOWED.to_string()));
    let mut stream = tcp_with_window(&network.client, address, WINDOW_OCTETS);
    let mut other = stream.try_clone().expect("a socket");
    let writer = thread::spawn(move || other.write_all(&queries(3 * ALLOWED)));
    let (mut octets, mut chunk) = (Vec::new(), [0; 2048]);
    loop {
        match stream.read(&mut chunk).expect("FIN, not RST") {
            0 => break,
            more => octets.extend(&chunk[..more]),
        }
        thread::sleep(PAUSE);
    }
    let mut answers = 0;
    let mut rest = &octets[..];
    while let Some((length, message)) = rest.split_first_chunk::<2>() {
        rest = &message[usize::from(u16::from_be_bytes(*length))..];
        answers += 1;
    }
    assert_eq!(answers, ALLOWED);
    drop(stream);
    let _ = writer.join().expect("it does not panic");
    dotd.counts("it is counted", |stats| stats.counter("session_ends", "queries") == 1);
}

/// Goal: TERM in the middle of a pipeline loses no answer to a query that was read. Method: queries without end, TERM
/// after the first thousand answers; as many answers as queries that the backend had, close_notify. Covers: A-271,
/// C-255
#[test]
fn term_in_mid_pipeline_loses_no_answer() {
    require!(Root);
    let (network, backend, mut dotd) = scripted(Config::new(), honest);
    let mut session = session(&network);
    let writer = session.send_in_the_background(&framed(&www(7)).repeat(200_000));
    for _ in 0..1000 {
        assert_eq!(session.receive().rdata(A), [HONEST]);
    }
    dotd.signal(Signal::SIGTERM);
    let answers = 1000 + read_slowly(&mut session);
    assert_eq!((answers, session.end()), (backend.received().len(), End::CloseNotify));
    drop(session);
    writer.join().expect("its errors do not matter");
    let (ended, _scratch) = dotd.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
