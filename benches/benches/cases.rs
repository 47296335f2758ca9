//! The cases of the micro-benchmarks: one function for each step of a query, over realistic octets.
//!
//! Before: nothing. After: `instructions` counts them, `time` times them: the same code, so that both can share a
//! table. Never: allocates within a case, unless the measured code does.

use std::hint::black_box;

use dot_common::{
    packet,
    rate::Rate,
    settings::{Gate, Settings},
};
use dot_tests::{
    frames::{ACK, Build, PSH},
    harness::message::{A, Opt, append_opt, reply_to},
    xdp_lab::{PORTS, settings},
};
use dot_userspace::{
    cache::{Cache, Found, Keeping, Key},
    dns::{self, Asked, Hop, Query, Told, framing::cut_message},
    ledger::{Stage, WorkerCounters},
};
use tokio::time::Instant;

/// A frame and the settings it meets.
pub type Framed = (Vec<u8>, Settings);
/// A query, its parsed form, and room for the query to the backend.
pub type Forwarding = (Vec<u8>, Query, Vec<u8>);
/// A response, the client's query, and room for the response to the client.
pub type Responding = (Vec<u8>, Asked, Vec<u8>);

/// A cache with the answer to a query, the query, its parsed form, the time, and room for the answer.
pub type Cached = (Cache, Vec<u8>, Query, Instant, Vec<u8>);

/// A query that a stub resolver sends: OPT with padding to 128 octets.
pub fn query() -> Vec<u8> {
    let mut framed = framed(1);
    framed.split_off(2)
}

/// That many of them as a stream.
pub fn framed(count: u16) -> Vec<u8> {
    let query =
        dot_benches::load::queries::Query::new("host-77.dotd.test.", "A", true).expect("a fixed query");
    let mut stream = Vec::new();
    (0..count).for_each(|id| query.write(id, &mut stream));
    stream
}

/// A backend's answer to it: an address and an OPT.
pub fn response() -> Vec<u8> {
    answer_to(&query())
}

fn answer_to(query: &[u8]) -> Vec<u8> {
    let mut response = reply_to(query, A, &[vec![198, 51, 100, 77]]);
    append_opt(&mut response, &Opt::default());
    response
}

/// A data segment of a connection over IPv6.
pub fn frame() -> Framed {
    (Build::tcp(853, PSH | ACK, 700, &[0x17; 512]).v6().frame().octets, settings(Gate::Drop))
}

/// Step 2: a frame becomes a packet for dotd.
pub fn parse_frame((octets, _): &Framed) -> bool {
    packet::parse(&black_box(octets.as_slice()), &PORTS).is_ok_and(|packet| packet.is_some())
}

/// Step 3's arithmetic: a hundred packets of one client, of which the last are over its rate.
pub fn admit(rate: Rate) -> u64 {
    let mut scheduled = 0;
    for packet in 0..100_u64 {
        scheduled = black_box(rate).admit(scheduled, packet * 1000).unwrap_or(scheduled);
    }
    scheduled
}

/// Every step: a hundred durations of one stage are recorded, from 1 µs to 100 ms.
pub fn record(counters: &WorkerCounters) -> u64 {
    let mut nanoseconds = 1000_u64;
    for _ in 0..100 {
        counters.stages().record_times(black_box(Stage::Queue), black_box(nanoseconds), 1);
        nanoseconds += nanoseconds / 8;
    }
    nanoseconds
}

/// Step 6: a hundred messages are cut out of the read buffer.
pub fn cut(stream: &[u8]) -> usize {
    let (mut rest, mut count) = (black_box(stream), 0);
    while let Ok(Some(cut)) = cut_message(rest) {
        rest = &rest[cut.octets..];
        count += 1;
    }
    count
}

/// Step 7, first half: a query is parsed.
pub fn parse(message: &[u8]) -> bool {
    Query::parse(black_box(message)).is_ok()
}

/// Step 7, whole: a query is parsed and judged.
pub fn triage(message: &[u8]) -> bool {
    matches!(dns::triage(black_box(message), dns::Allowed::default()), dns::Disposition::Forward(_))
}

/// Between 7 and 8: a query that the cache has an answer to, from its key to the answer.
pub fn cache_hit((cache, message, query, now, out): &mut Cached) -> usize {
    let Some(key) = Key::of(black_box(message), query, Told::AsItCame) else { return 0 };
    let Found::Fresh(place, _) = cache.look(&key, *now) else { return 0 };
    cache.write(place, &key, &message[dns::HEADER_OCTETS..query.question_end], out);
    out.len()
}

/// The input of [`cache_hit`]: the answer among ten thousand others.
pub fn to_hit() -> Cached {
    let (message, query, out) = to_forward();
    let now = Instant::now();
    let mut cache = Cache::new(Keeping::of(20_000), &WorkerCounters::default());
    let keep = |cache: &mut Cache, message: &[u8]| {
        let query = Query::parse(message).expect("a right query");
        let key = Key::of(message, &query, Told::AsItCame).expect("a query for the cache");
        cache.keep(&key, &answer_to(message), now);
    };
    for host in 0..10_000 {
        let other = dot_benches::load::queries::Query::new(&format!("host-{host}.dotd.test."), "A", true);
        let mut framed = Vec::new();
        other.expect("a fixed query").write(0, &mut framed);
        keep(&mut cache, &framed[2..]);
    }
    keep(&mut cache, &message);
    let mut cached = (cache, message, query, now, out);
    assert!(cache_hit(&mut cached) > 0, "the answer is kept");
    cached
}

/// Step 8: padding off, payload size set, for the backend.
pub fn forward((message, query, out): &mut Forwarding) -> usize {
    out.clear();
    dns::forward(black_box(message), query, 7, true, out);
    out.len()
}

/// The input of [`forward`].
pub fn to_forward() -> Forwarding {
    let message = query();
    let query = Query::parse(&message).expect("a right query");
    (message, query, Vec::with_capacity(4096))
}

/// Step 9: ID restored, padded for the client.
pub fn respond((response, asked, out): &mut Responding) -> usize {
    out.clear();
    let hop = Hop { padding: true, keepalive_100ms: Some(300) };
    let is_fine = dns::respond(black_box(response), *asked, hop, out).is_ok();
    out.len() * usize::from(is_fine)
}

/// The input of [`respond`].
pub fn to_respond() -> Responding {
    let (_, query, out) = to_forward();
    (response(), Asked::by(&query), out)
}

/// A limit that admits the first half of [`admit`]'s packets.
pub fn limit() -> Rate {
    Rate::new(1000, 50)
}
