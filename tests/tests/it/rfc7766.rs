//! RFC 7766, DNS over TCP: partial reads, pipelining, order, half-close, and frames that hold no message.
//!
//! Before: `harness::scene`. After: what a client that pipelines queries may rely on.

use dot_tests::{
    harness::{
        config::Config,
        dot::{Dot, End},
        eventually,
        message::{A, Query, TXT, framed, header, host, reply_to},
        netns::{Network, SERVER_V4},
        response::Message,
        scene::{HONEST, embedded, honest, scripted, scripted_with},
        scripted::{Act, Received, Scripted},
    },
    require,
};
use std::{
    collections::{HashMap, HashSet},
    thread,
    time::Duration,
};

/// Holds every name that starts with `slow`, answers the rest at once.
fn slow_names_wait(query: &Received) -> Vec<Act> {
    let reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
    let is_slow = Message::parse(&query.octets).is_some_and(|query| query.qname().starts_with("slow"));
    vec![if is_slow { Act::Hold(reply) } else { Act::Send(reply) }]
}

/// Goal: a message may come in any pieces; a partial read never closes (RFC 7766 §8).
/// Method: the prefix as 1 + 1 octet, then every single cut of the message, each piece a record. Covers: C-13
#[test]
fn messages_may_come_in_pieces() {
    require!(Root);
    let (network, _backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let frame = framed(&host(1));
    for octet in &frame {
        session.send(&[*octet]);
    }
    assert_eq!(session.receive().id, 1);
    for cut in 1..frame.len() {
        session.send(&frame[..cut]);
        session.send(&frame[cut..]);
        assert_eq!(session.receive().id, 1, "cut at {cut}");
    }
}

/// Goal: two messages in one write are two queries, and a message and a half wait for the other half.
/// Method: 2, then 1½ + ½ in two records. Covers: C-13, C-17
#[test]
fn one_write_may_hold_many_messages() {
    require!(Root);
    let (network, _backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask_all(&[host(1), host(2)]);
    assert_eq!(HashSet::from([session.receive().id, session.receive().id]), HashSet::from([1, 2]));
    let third = framed(&host(3));
    session.send(&[&*framed(&host(4)), &third[..9]].concat());
    assert_eq!(session.receive().id, 4);
    session.send(&third[9..]);
    assert_eq!(session.receive().id, 3);
}

/// Goal: 1000 queries in one write are all answered, each with its own question (RFC 7766 §6.2.1.1), although
/// only 256 may be in flight. Method: the set of IDs that come back, and dotd's own sums. Covers: C-17
#[test]
fn answers_1000_pipelined_queries() {
    require!(Root);
    let (network, _backend, dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask_all(&(0..1000).map(host).collect::<Vec<_>>());
    let mut open: HashSet<u16> = (0..1000).collect();
    while !open.is_empty() {
        let answer = session.receive();
        assert_eq!((answer.rcode(), answer.qname()), (0, format!("host-{}.dotd.test", answer.id)));
        assert!(open.remove(&answer.id), "{} came twice", answer.id);
    }
    let stats = dotd.stats();
    assert_eq!((stats.counter("queries", "received"), stats.counter("queries", "forwarded")), (1000, 1000));
}

/// Goal: a slow first query does not delay a fast second one (RFC 7766 §7).
/// Method: the backend holds the first until the second's response has arrived. Covers: C-18
#[test]
fn responses_leave_out_of_order() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), slow_names_wait);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session
        .ask_all(&[Query::new(1, "slow.dotd.test", A).octets(), Query::new(2, "fast.dotd.test", A).octets()]);
    assert_eq!(session.receive().id, 2);
    eventually("the slow query waits at the backend", || (backend.held() == 1).then_some(()));
    backend.release();
    assert_eq!(session.receive().id, 1);
}

/// Goal: one ID in flight many times on a session: every response still matches its question (§6.2.1). Method: 100
/// queries with ID 7 and different names in one write. Covers: C-20, A-32
#[test]
fn duplicate_ids_in_flight_keep_their_questions() {
    require!(Root);
    let script = |query: &Received| {
        let octets = Message::parse(&query.octets).map(|query| query.qname()).unwrap_or_default();
        let number =
            octets.trim_start_matches("host-").split('.').next().and_then(|digits| digits.parse().ok());
        vec![Act::Send(reply_to(&query.octets, A, &[vec![192, 0, 2, number.unwrap_or(255)]]))]
    };
    let (network, _backend, _dotd) = scripted(Config::new(), script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let queries: Vec<_> =
        (0..100).map(|index| Query::new(7, &format!("host-{index}.dotd.test"), A).octets()).collect();
    session.ask_all(&queries);
    let mut answers = HashMap::new();
    for _ in 0..100 {
        let answer = session.receive();
        assert_eq!(answer.id, 7);
        answers.insert(answer.qname(), answer.rdata(A)[0][3]);
    }
    for index in 0..100 {
        assert_eq!(answers.get(&format!("host-{index}.dotd.test")), Some(&index));
    }
}

/// Goal: a response leaves on the session its query came on (§5).
/// Method: two sessions, the same ID and crossing order. Covers: C-8
#[test]
fn responses_keep_to_their_session() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), slow_names_wait);
    let mut first = Dot::connect(&network.client, SERVER_V4);
    let mut second = Dot::connect(&network.client, SERVER_V4);
    first.ask(&Query::new(9, "slow-first.dotd.test", A).octets());
    second.ask(&Query::new(9, "slow-second.dotd.test", A).octets());
    eventually("both wait at the backend", || (backend.held() == 2).then_some(()));
    backend.release();
    assert_eq!(second.receive().qname(), "slow-second.dotd.test");
    assert_eq!(first.receive().qname(), "slow-first.dotd.test");
}

/// Two queries of `session` that the backend holds.
fn leave_two_waiting(session: &mut Dot, backend: &Scripted) {
    session.ask_all(&[
        Query::new(1, "slow-1.dotd.test", A).octets(),
        Query::new(2, "slow-2.dotd.test", A).octets(),
    ]);
    eventually("both wait at the backend", || (backend.held() == 2).then_some(()));
}

/// Goal: after a half-close outstanding queries are answered, then come close_notify and FIN (RFC 1035 §4.2.2). Method:
/// the backend holds two replies until the client has sent close_notify and FIN. Covers: C-22, A-36
#[test]
fn half_close_still_gets_its_answers() {
    require!(Root);
    let (network, backend, dotd) = scripted(Config::new(), slow_names_wait);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    leave_two_waiting(&mut session, &backend);
    session.half_close();
    backend.release();
    assert_eq!(HashSet::from([session.receive().id, session.receive().id]), HashSet::from([1, 2]));
    assert_eq!(session.end(), End::CloseNotify);
    dotd.counts("the client's end is counted", |stats| stats.counter("session_ends", "client") == 1);
}

/// Goal: a client that crashes with queries in flight uses no resources afterwards: slots are free again, and the sums
/// are exact. Method: RST while the backend holds two replies; release them, watch the gauges. Covers: C-23, A-37
#[test]
fn a_client_that_leaves_frees_its_slots() {
    require!(Root);
    let (network, backend, dotd) = scripted(Config::new(), slow_names_wait);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    leave_two_waiting(&mut session, &backend);
    session.abort();
    dotd.counts("the connection is gone", |stats| stats.counter("session_ends", "transport") == 1);
    backend.release();
    let stats =
        dotd.counts("the slots are free", |stats| stats.counter("backend_outstanding", "outstanding") == 0);
    assert_eq!(stats.counter("queries", "received"), 2);
    assert_eq!(stats.counter("responses", "client_gone"), 2);
    assert_eq!(stats.sum("responses", ""), 2, "their client was gone");
    assert_eq!(stats.difference(), [0; 3]);
}

/// Goal: half a message, then silence, ends its session at `message_timeout`, and octets do not reset it (§6.2.3).
/// Method: short timeout; one prefix octet, then silence; a second session lives on. Covers: C-14, A-6
#[test]
fn half_a_message_is_cut_at_its_deadline() {
    require!(Root);
    let (network, _backend, dotd) =
        scripted(Config::new().set("session", "message_timeout", "\"300ms\""), honest);
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    for part in [&[0_u8][..], &[0xff, 0xff, 0]] {
        let mut stalled = Dot::connect(&network.client, SERVER_V4);
        stalled.send(part);
        assert_eq!(stalled.end(), End::CloseNotify);
    }
    dotd.counts("both are counted", |stats| stats.counter("session_ends", "message_timeout") == 2);
    assert_eq!(innocent.exchange(&host(1)).rdata(A), [HONEST]);
}

/// Goal: octets do not reset the deadline of their message (§6.2.3): a message that trickles in ends its session at the
/// deadline. Method: an octet now and then of a message that would take minutes to become whole. Covers: C-14, A-8
#[test]
fn a_trickling_message_is_cut_at_its_deadline() {
    require!(Root);
    let (network, backend, dotd) =
        scripted(Config::new().set("session", "message_timeout", "\"300ms\""), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.send(&[0xff, 0xff]);
    eventually("it is cut while octets come", || {
        session.send(&[0]);
        (!session.is_quiet()).then_some(())
    });
    dotd.counts("it is counted", |stats| stats.counter("session_ends", "message_timeout") == 1);
    assert_eq!(backend.received().len(), 0);
}

/// Goal: octets do not count as activity: a session is idle from its last whole message on, even if part of another one
/// trickles in (§6.2.3). Method: a message may take a minute, a session may be idle for one second; after an answer,
/// octets of a message that would take minutes to become whole. Covers: C-14
#[test]
fn only_whole_messages_keep_a_session_from_being_idle() {
    require!(Root);
    let config = Config::new().set("session", "message_timeout", "\"1min\"");
    let (network, _backend, dotd) = scripted(config.set("session", "idle_timeout", "\"1s\""), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&host(1)).rdata(A), [HONEST]);
    session.send(&[0xff, 0xff]);
    eventually("it is cut while octets come", || {
        session.send(&[0]);
        (!session.is_quiet()).then_some(())
    });
    let stats = dotd.counts("it was idle", |stats| stats.counter("session_ends", "idle") == 1);
    assert_eq!(stats.counter("session_ends", "message_timeout"), 0);
}

/// Goal: a session that dotd does not read, because there is no room for its queries, misses no deadline, although half
/// a record of it has arrived: all of its queries are answered when there is room again. Method: one query in flight,
/// which the backend holds beyond `message_timeout`; behind it a second, and half a record with a third, in one write.
/// Covers: C-14, C-17, A-33
#[test]
fn a_held_session_is_not_late() {
    require!(Root);
    let config = Config::new().set("session", "message_timeout", "\"2s\"");
    let config = config.set("session", "in_flight_max", "1");
    let (network, backend, dotd) = scripted_with(config, "timeout = \"20s\"", slow_names_wait);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let slow = framed(&Query::new(1, "slow.dotd.test", A).octets());
    let first = session.seal(&[slow, framed(&host(2))].concat());
    let second = session.seal(&framed(&host(3)));
    let (half, rest) = second.split_at(second.len() / 2);
    session.send_below_tls(&[&first, half].concat());
    eventually("the first is held", || (backend.held() == 1).then_some(()));
    // This takes longer than the deadline; other sessions go on.
    for id in 0..25 {
        assert_eq!(Dot::connect(&network.client, SERVER_V4).exchange(&host(id)).id, id);
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(dotd.stats().counter("session_ends", "message_timeout"), 0);
    backend.release();
    assert_eq!([session.receive().id, session.receive().id], [1, 2]);
    session.send_below_tls(rest);
    assert_eq!(session.receive().id, 3);
}

/// Goal: a client that asks without end and never reads is slowed down by backpressure, then cut, in bounded memory;
/// another client is served meanwhile. Method: queries for 5,000 octets each until dotd stops reading; its end and its
/// memory.
#[test]
fn a_client_that_never_reads_is_cut() {
    require!(Root);
    let config = Config::new().set("session", "write_timeout", "\"500ms\"");
    let (network, dotd) = embedded(&config);
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    let mut greedy = Dot::connect(&network.client, SERVER_V4);
    let queries = vec![Query::new(1, "big.dotd.test", TXT).octets(); 100];
    let is_held = (0..1000).any(|_| !greedy.try_ask_all(&queries));
    assert!(is_held, "dotd took 100,000 queries from a client that reads nothing");
    dotd.counts("it is counted", |stats| stats.counter("session_ends", "slow_reader") == 1);
    assert_eq!(innocent.exchange(&Query::new(2, "dotd.test", A).octets()).rdata(A), [[192, 0, 2, 53]]);
    let kib = dotd.memory_kib("VmHWM");
    assert!(kib < 256 * 1024, "{kib} KiB for one session that does not read");
}

/// Goal: a frame that cannot be a message ends its session, and affects no backend and no other session. Method: a
/// zero-length frame, and messages of 1 to 11 octets.
#[test]
fn frames_shorter_than_a_header_end_the_session() {
    require!(Root);
    let (network, backend, dotd) = scripted(Config::new(), honest);
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    for length in 0..12 {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        session.ask(&vec![0; length]);
        assert_eq!(session.receive_octets(), None, "{length} octets are answered");
    }
    let stats = dotd.counts("all are counted", |stats| stats.counter("session_ends", "framing") == 12);
    assert_eq!(backend.received().len(), 0);
    let (received, dropped) = (stats.counter("queries", "received"), stats.sum("queries", "dropped_"));
    assert_eq!(received, dropped, "a message that was received was dropped for a reason");
    assert_eq!(innocent.exchange(&host(1)).rdata(A), [HONEST]);
}

/// Goal: a header alone is FORMERR, with its ID and nothing more. Method: twelve octets with QDCOUNT 0. Covers: A-16,
///
#[test]
fn a_header_alone_is_formerr() {
    require!(Root);
    let (network, _dotd) = embedded(&Config::new());
    let answer = Dot::connect(&network.client, SERVER_V4).exchange(&header(0x0102, 0x0100, [0; 4]));
    assert_eq!((answer.id, answer.rcode(), answer.counts), (0x0102, 1, [0; 4]));
}

/// Goal: a message with QR=1 is dropped and counted, and the session lives on. Method: a response, then a query; only
/// the query is answered.
#[test]
fn a_response_from_a_client_is_dropped() {
    require!(Root);
    let (network, backend, dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask_all(&[Query::new(1, "a.dotd.test", A).flags(0x8100).octets(), host(2)]);
    assert_eq!(session.receive().id, 2);
    assert_eq!(backend.received().len(), 1);
    let stats = dotd.stats();
    assert_eq!(stats.counter("queries", "dropped_is_response"), 1);
    assert_eq!(stats.counter("queries", "received"), 2);
}

/// Goal: many stalled clients block no other client (RFC 1035 §4.2.2). Method: 300 sessions that have sent half a
/// prefix, one that asks. Covers: C-15
#[test]
fn stalled_sessions_block_nobody() {
    require!(Root);
    let (network, _backend, _dotd): (Network, _, _) = scripted(Config::new(), honest);
    let mut stalled: Vec<Dot> = (0..300)
        .map(|_| {
            let mut session = Dot::connect(&network.client, SERVER_V4);
            session.send(&[0]);
            session
        })
        .collect();
    let mut good = Dot::connect(&network.client, SERVER_V4);
    for id in 0..20 {
        assert_eq!(good.exchange(&host(id)).id, id);
    }
    assert!(stalled.iter_mut().all(Dot::is_quiet));
}
