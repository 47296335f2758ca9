//! Tests of the tap: the fields of each message, whole queries in a sample, as much of a client as may be shown, and bounds.

use std::collections::BTreeMap;

use prost::Message as _;
use tokio::{sync::mpsc::Receiver, task::LocalSet};

use super::*;
use crate::config::{Dnstap, DnstapMessages};

/// The part of dnstap.proto that dotd writes, as prost reads it.
#[derive(Clone, PartialEq, prost::Message)]
struct Outer {
    #[prost(bytes = "vec", optional, tag = "1")]
    identity: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    version: Option<Vec<u8>>,
    #[prost(message, optional, tag = "14")]
    message: Option<Inner>,
    #[prost(int32, required, tag = "15")]
    kind: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Inner {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(int32, optional, tag = "2")]
    family: Option<i32>,
    #[prost(int32, optional, tag = "3")]
    protocol: Option<i32>,
    #[prost(bytes = "vec", optional, tag = "4")]
    query_address: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "5")]
    response_address: Option<Vec<u8>>,
    #[prost(uint32, optional, tag = "6")]
    query_port: Option<u32>,
    #[prost(uint32, optional, tag = "7")]
    response_port: Option<u32>,
    #[prost(uint64, optional, tag = "8")]
    query_seconds: Option<u64>,
    #[prost(fixed32, optional, tag = "9")]
    query_nanoseconds: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "10")]
    query: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "12")]
    response_seconds: Option<u64>,
    #[prost(fixed32, optional, tag = "13")]
    response_nanoseconds: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "14")]
    response: Option<Vec<u8>>,
}

fn run<F: Future>(body: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, body)
}

/// The frames of all batches in the queue.
fn frames(batches: &mut Receiver<Batch>) -> Vec<Outer> {
    let mut found = Vec::new();
    while let Ok(batch) = batches.try_recv() {
        let mut rest = batch.octets.as_slice();
        let before = found.len();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (frame, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            found.push(Outer::decode(frame).unwrap());
            rest = after;
        }
        assert_eq!((found.len() - before) as u64, batch.frames);
    }
    found
}

fn way(carrier: Carrier) -> Way {
    let [asker, asked] = ["[::ffff:192.0.2.77]:4242", "[::ffff:192.0.2.1]:853"].map(|at| at.parse().unwrap());
    Way { asker: Some(asker), asked, carrier }
}

/// A header and a question, with RD or without.
fn message(id: u16, is_recursive: bool) -> Vec<u8> {
    let mut octets = id.to_be_bytes().to_vec();
    octets.extend([u8::from(is_recursive), 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
    octets
}

const ALL: [Tapped; 4] =
    [Tapped::ClientQuery, Tapped::ClientResponse, Tapped::BackendQuery, Tapped::BackendResponse];

/// Goal: each message has its type, protocol, addresses, times and octets, and no others. Method: one of each kind, with and
/// without RD, over each carrier; prost reads them. Covers: C-580
#[test]
fn each_message_has_its_fields() {
    run(async {
        let config = Dnstap { identity: "resolver-1".into(), ..Dnstap::default() };
        let (sink, mut batches) = TapSink::new(&config, &TapCounts::default());
        assert!(!is_on());
        send_to(Some(sink));
        assert!(is_on());
        turn_time::begin(tokio::time::Instant::now());
        let now = turn_time::moment();
        let of = |id| OfQuery { id, read: Some(now), began: Some(now) };
        for (what, carrier) in ALL.into_iter().zip([Carrier::Dot, Carrier::Udp, Carrier::Tcp, Carrier::Udp]) {
            tell(what, of(7), || way(carrier), &message(7, true));
            tell(what, of(7), || way(carrier), &message(7, false));
        }
        send_to(None);
        assert!(!is_on());
        let found = frames(&mut batches);
        let kinds: Vec<_> = found.iter().map(|frame| frame.message.as_ref().unwrap().kind).collect();
        assert_eq!(kinds, [5, 5, 6, 6, 7, 3, 8, 4]);
        let protocols: Vec<_> = found.iter().filter_map(|frame| frame.message.as_ref()?.protocol).collect();
        assert_eq!(protocols, [3, 3, 1, 1, 2, 2, 1, 1]);
        for (number, frame) in found.into_iter().enumerate() {
            assert_eq!((frame.kind, frame.identity.as_deref()), (1, Some(&b"resolver-1"[..])));
            assert!(frame.version.unwrap().starts_with(b"dotd "));
            let inner = frame.message.unwrap();
            assert_eq!(inner.family, Some(1), "an IPv4-mapped address counts as IPv4");
            assert_eq!(inner.query_address.as_deref(), Some(&[192, 0, 2, 77][..]));
            assert_eq!(inner.response_address.as_deref(), Some(&[192, 0, 2, 1][..]));
            assert_eq!((inner.query_port, inner.response_port), (Some(4242), Some(853)));
            assert!(inner.query_seconds > Some(1_700_000_000) && inner.query_nanoseconds.is_some());
            let is_response = matches!(inner.kind, 4 | 6 | 8);
            assert_eq!(
                (inner.response_seconds.is_some(), inner.response_nanoseconds.is_some()),
                (is_response, is_response)
            );
            let octets = message(7, number % 2 == 0);
            let (query, response) = if is_response { (None, Some(octets)) } else { (Some(octets), None) };
            assert_eq!((inner.query, inner.response), (query, response));
        }
    });
}

/// Goal: a sample contains all messages of a query or none, and about as many queries as configured. Method: the four
/// messages of 2,000 queries, with one query of four wanted. Covers: C-581
#[test]
fn a_sample_has_whole_queries() {
    run(async {
        let config = Dnstap { sample: 4, ..Dnstap::default() };
        let (sink, mut batches) = TapSink::new(&config, &TapCounts::default());
        send_to(Some(sink));
        turn_time::begin(tokio::time::Instant::now());
        let read = Some(turn_time::moment());
        let mut found = Vec::new();
        for id in 0..2000 {
            for what in ALL {
                tell(what, OfQuery { id, read, began: None }, || way(Carrier::Dot), &message(id, true));
            }
            found.extend(frames(&mut batches));
        }
        send_to(None);
        found.extend(frames(&mut batches));
        let mut seen: BTreeMap<Vec<u8>, Vec<i32>> = BTreeMap::new();
        for inner in found.into_iter().filter_map(|frame| frame.message) {
            let octets = inner.query.or(inner.response).unwrap();
            seen.entry(octets).or_default().push(inner.kind);
        }
        assert!((300..700).contains(&seen.len()), "{}", seen.len());
        assert!(seen.values().all(|kinds| *kinds == [5, 6, 7, 8]), "{seen:?}");
    });
}

/// Goal: a reader gets no more of a client's address than the config permits, whole addresses of backends, and only
/// messages that it wants. Method: each value of the key; each list of messages.
#[test]
fn no_more_of_a_client_than_may_be_shown() {
    run(async {
        let shown = |config: Dnstap| {
            let (sink, mut batches) = TapSink::new(&config, &TapCounts::default());
            send_to(Some(sink));
            let none = OfQuery { id: 1, read: None, began: None };
            ALL.into_iter().for_each(|what| tell(what, none, || way(Carrier::Dot), &message(1, true)));
            send_to(None);
            let inner = frames(&mut batches).into_iter().filter_map(|frame| frame.message);
            inner.map(|inner| (inner.kind, inner.query_address, inner.query_port)).collect::<Vec<_>>()
        };
        let own = (Some(vec![192, 0, 2, 77]), Some(4242));
        for (client_address, address, port) in [
            (ClientAddress::Full, own.0.clone(), own.1),
            (ClientAddress::Prefix, Some(vec![192, 0, 2, 0]), None),
            (ClientAddress::None, None, None),
        ] {
            let client = |kind| (kind, address.clone(), port);
            let backend = |kind| (kind, own.0.clone(), own.1);
            let all = shown(Dnstap { client_address, ..Dnstap::default() });
            assert_eq!(all, [client(5), client(6), backend(7), backend(8)]);
            let messages = vec![DnstapMessages::Backend];
            assert_eq!(
                shown(Dnstap { client_address, messages, ..Dnstap::default() }),
                [backend(7), backend(8)]
            );
            let messages = vec![DnstapMessages::Client];
            assert_eq!(
                shown(Dnstap { client_address, messages, ..Dnstap::default() }),
                [client(5), client(6)]
            );
        }
    });
}

/// Goal: a reader that does not read costs a bounded amount of memory, and each message that it does not get is
/// counted; a batch that is not full is sent after its time. Method: more messages than the queue holds, and no
/// reader; then one message.
///
#[test]
fn what_finds_no_room_is_counted() {
    run(async {
        let counts = TapCounts::default();
        let (sink, mut batches) = TapSink::new(&Dnstap::default(), &counts);
        send_to(Some(sink));
        let (none, long) = (OfQuery { id: 1, read: None, began: None }, vec![0; 60_000]);
        let told = 500_u64;
        (0..told).for_each(|_| tell(Tapped::ClientResponse, none, || way(Carrier::Dot), &long));
        assert!(counts.lost() > 0);
        let mut octets = 0;
        let mut taken = 0;
        while let Ok(batch) = batches.try_recv() {
            octets += batch.octets.len();
            taken += batch.frames;
        }
        assert_eq!(taken + counts.lost(), told);
        assert!(octets < 64 * (BATCH_OCTETS + 61_000), "{octets}");
        tell(Tapped::ClientQuery, none, || way(Carrier::Udp), &message(1, true));
        let batch = tokio::time::timeout(Duration::from_secs(60), batches.recv()).await;
        assert_eq!(batch.unwrap().unwrap().frames, 1);
        send_to(None);
    });
}

/// Goal: a thread has one timer for its batches, however many batches are sent because they are full. Method: two
/// messages fill a batch, and no runtime runs the timer; then the timer ends, and one more message comes. Covers:
///
#[test]
fn a_thread_has_one_timer() {
    run(async {
        let (sink, mut batches) = TapSink::new(&Dnstap::default(), &TapCounts::default());
        let mut tap = Tap::to(sink);
        turn_time::begin(tokio::time::Instant::now());
        let (none, long) = (OfQuery { id: 1, read: None, began: None }, vec![0; 20_000]);
        let add = |tap: &mut Tap| tap.add(Tapped::ClientResponse, none, way(Carrier::Dot), &long);
        let timers = (0..99).filter(|_| add(&mut tap)).count();
        assert_eq!((timers, frames(&mut batches).len()), (1, 98));
        tap.send_by_timer();
        assert_eq!(frames(&mut batches).len(), 1, "the timer sends what is left");
        assert!(add(&mut tap), "and the next message needs another");
    });
}
