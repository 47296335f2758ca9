//! Tests of spans: what each event adds to which span, and the bounds.

use super::*;

fn event(at_us: u64, client: &str, what: What) -> TraceEvent {
    TraceEvent { at_us, worker: Some(0), client: client.to_owned(), session: None, what }
}

fn query(id: u16) -> What {
    What::Query { id, octets: 40, qtype: Some(1), name: None, ids: None }
}

fn response(id: u16) -> What {
    let (by, took_us) = ("forwarded".to_owned(), Some(500));
    What::Response { id, octets: 80, rcode: 0, by, took_us, backend: Some("b".to_owned()), tries: Some(1) }
}

/// Goal: a connection, its handshake and its queries become spans with their times: the connection from its SYN on, a query in
/// a trace of its own with a link; a datagram is a query alone. Method: the events of one session and one datagram.
/// Covers: C-703
#[test]
fn a_session_becomes_spans() {
    let mut spans = Spans::default();
    let client = "[2001:db8::7]:1000";
    let end = What::Ended { end: "client".to_owned(), queries: 2, open_us: 9 };
    let accepted = What::Accepted { listener: "[::1]:853".to_owned(), syn_us: Some(20) };
    for (at_us, what) in [
        (120, accepted),
        (300, query(7)),
        (310, query(8)),
        (400, response(8)),
        (450, response(7)),
        (500, end),
    ] {
        spans.take(event(at_us, client, what));
    }
    let found: Vec<_> = spans.done.iter().map(|span| (span.name, span.start_us, span.end_us)).collect();
    assert_eq!(found, [("query", 310, 400), ("query", 300, 450), ("connection", 100, 500)]);
    let connection = spans.done[2].ids;
    assert!(
        spans.done[..2]
            .iter()
            .all(|span| span.link == Some(connection) && span.ids.trace != connection.trace)
    );
    assert_eq!(spans.done[2].attributes[0], ("client.address", Value::Text("[2001:db8::7]".to_owned())));
    spans.take(event(600, "192.0.2.7:9", query(1)));
    spans.take(event(610, "192.0.2.7:9", response(1)));
    assert_eq!((spans.done.len(), spans.clients.len(), spans.lost), (4, 0, 0));
    assert_eq!(
        spans.seen.iter().map(|seen| seen.transport).collect::<Vec<_>>(),
        ["do53-tcp", "do53-tcp", "do53-udp"]
    );
}

/// Goal: nothing grows without bound: queries without a response, and clients whose end was lost. Method: more of each than
/// there is room for.
#[test]
fn what_is_followed_is_bounded() {
    let mut spans = Spans::default();
    let accepted = || What::Accepted { listener: String::new(), syn_us: None };
    spans.take(event(1, "192.0.2.7:1", accepted()));
    (0..300).for_each(|id| spans.take(event(2, "192.0.2.7:1", query(id))));
    assert_eq!(spans.lost, 300 - QUERIES_MAX as u64);
    (0..CONNECTIONS_MAX).for_each(|port| spans.take(event(3, &format!("192.0.2.8:{port}"), accepted())));
    assert_eq!((spans.clients.len(), spans.lost), (CONNECTIONS_MAX, 301 - QUERIES_MAX as u64));
    spans.take(event(FORGOTTEN_US + 10, "192.0.2.9:1", accepted()));
    assert_eq!(spans.clients.len(), 1);
}

/// Goal: a client that has queries refused for hours makes its connection's span no longer than it may be. Method: more refusals
/// than there is room for.
#[test]
fn events_of_a_connection_are_bounded() {
    let (mut spans, client) = (Spans::default(), "192.0.2.7:1");
    let accepted = || What::Accepted { listener: "[::1]:853".to_owned(), syn_us: None };
    (0..2).for_each(|_| spans.take(event(1, client, accepted())));
    for _ in 0..SPAN_EVENTS_MAX {
        let reason = "queries_refused".to_owned();
        spans.take(event(2, client, What::Refused { reason, key: None, alert: None }));
    }
    spans.take(event(3, client, What::Ended { end: "client".to_owned(), queries: 0, open_us: 2 }));
    let connection = &spans.done[0];
    assert_eq!((connection.events.len(), connection.events_dropped), (SPAN_EVENTS_MAX, 2));
    let servers = connection.attributes.iter().filter(|(name, _)| *name == "server.address");
    assert_eq!(servers.count(), 1);
}

/// Goal: the queries of a session that is older than its trace are not taken for datagrams, and stand in no bucket. Method: a
/// query and its response of a session whose begin was not traced. Covers: C-703, C-704
#[test]
fn a_session_may_be_older_than_its_trace() {
    let mut spans = Spans::default();
    for (at_us, what) in [(1, query(7)), (2, response(7))] {
        spans.take(TraceEvent { session: Some("0.5".to_owned()), ..event(at_us, "192.0.2.7:1", what) });
    }
    let attributes = &spans.done[0].attributes;
    assert!(spans.seen.is_empty() && attributes.iter().all(|(name, _)| *name != "dotd.transport"));
    spans.take(event(3, "192.0.2.7:1", What::Ended { end: "client".to_owned(), queries: 1, open_us: 2 }));
    assert_eq!((spans.done.len(), spans.clients.len()), (1, 0));
}
