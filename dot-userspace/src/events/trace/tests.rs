//! Tests of traces: which clients they hear of, and what a slow reader loses.

use super::*;

fn trace(number: u64, subject: Subject, room: usize) -> (Trace, mpsc::Receiver<TraceEvent>) {
    let (events, receiver) = mpsc::channel(room);
    let lost = Arc::default();
    (Trace { number, subject, sample: 1, with_names: false, option: None, events, lost }, receiver)
}

/// Goal: a trace gets the events of its clients or of its session, and no others; names only if they are wanted;
/// nothing before it starts and after its end. Method: two traces, two clients.
#[test]
fn a_trace_hears_of_its_own() {
    let tracing = Tracing::default();
    let [ours, other]: [SocketAddr; 2] =
        ["192.0.2.7:1000", "198.51.100.1:1000"].map(|at| at.parse().unwrap());
    let tell = |client, session| {
        tracing.tell(client, session, |names| What::Query {
            id: 1,
            octets: 40,
            qtype: Some(1),
            name: names.then(|| "www.".to_owned()),
            ids: None,
        })
    };
    tell(ours, None);
    let (first, mut by_prefix) = trace(1, Subject::Clients("192.0.2.0/24".parse().unwrap()), 8);
    let (second, mut by_session) = trace(2, Subject::Session(3, 17), 8);
    tracing.begin(3, first);
    tracing.begin(3, Trace { with_names: true, ..second });
    tell(ours, Some(4));
    tell(other, Some(17));
    tell(other, Some(18));
    let event = by_prefix.try_recv().unwrap();
    assert_eq!((event.client.as_str(), event.session.as_deref()), ("192.0.2.7:1000", Some("3.4")));
    assert!(matches!(event.what, What::Query { name: None, .. }) && by_prefix.try_recv().is_err());
    let event = by_session.try_recv().unwrap();
    assert!(matches!(event.what, What::Query { name: Some(_), .. }) && by_session.try_recv().is_err());
    tracing.end(1);
    drop(by_session);
    tracing.end(9);
    assert!(!tracing.is_on(), "the trace of a closed reader is removed");
}

/// Goal: a reader that does not read loses events, and learns how many; the number of traces is limited; a sample
/// contains whole connections. Method: room for two events; one trace more than permitted; many connections.
///
#[test]
fn a_slow_reader_loses_events() {
    let tracing = Tracing::default();
    let everybody = Subject::Clients("0.0.0.0/0".parse().unwrap());
    let (slow, _receiver) = trace(1, everybody, 2);
    let lost = Arc::clone(&slow.lost);
    tracing.begin(0, slow);
    let at = |port| SocketAddr::new([192, 0, 2, 7].into(), port);
    (0..5).for_each(|_| tracing.tell(at(9), None, |_| What::Session));
    assert_eq!(lost.load(Relaxed), 3);
    let mut readers = Vec::new();
    for number in 2..9 {
        let (more, reader) = trace(number, everybody, 5000);
        tracing.begin(0, Trace { sample: 10, ..more });
        readers.push(reader);
    }
    assert_eq!(tracing.traces.borrow().len(), TRACES_MAX);
    for port in 0..1000 {
        (0..2).for_each(|_| tracing.tell(at(port), None, |_| What::Session));
    }
    let mut heard = std::collections::BTreeMap::new();
    while let Ok(event) = readers[0].try_recv() {
        *heard.entry(event.client).or_insert(0) += 1;
    }
    assert!((50..150).contains(&heard.len()) && heard.values().all(|events| *events == 2), "{}", heard.len());
}
