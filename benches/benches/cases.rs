//! The cases of the micro-benchmarks: one function for each step of a query, over realistic octets.
//!
//! Before: nothing. After: `instructions` counts them, `time` times them: the same code, so that both can share a
//! table. Never: allocates within a case, unless the measured code does.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use dot_common::{
    packet,
    prefix::ClientPrefix,
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
    config::{self, MisuseAction},
    dns::{self, Asked, Hop, Labels, Query, Told, framing::cut_message},
    ledger::{Disposal, Stage, WorkerCounters},
    octets::Octets,
    policy::{Access, Index, Member, Misuse, Names, Suspect, Tenants},
    tls::records::Records,
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

/// Access lists, a listener and a client.
pub type Admitting = (Access, SocketAddr, IpAddr);
/// Rules, names one after the other, and the position of the next.
pub type Ruled = (Index, Vec<u8>, usize);
/// Counts of misuse, a client, its query, and the answer.
pub type Watched = (Misuse, Suspect, Vec<u8>, Vec<u8>);
/// An established connection, a record with a query, an answer, and room for replies and for its record.
pub type Exchange = (Records, Vec<u8>, Vec<u8>, [Vec<u8>; 2]);
/// Tenants, a listener and a client.
pub type Grouped = (Tenants, SocketAddr, IpAddr);

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

/// Steps 6 and 9: the record of a query is opened, and its answer is sealed.
pub fn exchange((server, wire, answer, [replies, out]): &mut Exchange) -> usize {
    let taken = server.open(black_box(wire), replies);
    if server.seal(black_box(answer), out).is_err() {
        return 0;
    }
    taken.plaintext.len() + out.len()
}

/// The input of [`exchange`] after another exchange, in TLS 1.3 with AES-128; `is_at_rest`: the session was idle meanwhile.
pub fn to_exchange(is_at_rest: bool) -> Exchange {
    let side = |client: u8, server: u8| {
        let form = [&[13, 0][..], &[0; 16], &[client; 32], &[server; 32], &[0; 5]].concat();
        Records::read(&mut Octets::new(&form)).expect("two secrets")
    };
    // For the other side the client is the server.
    let (server, mut client) = (side(1, 2), side(2, 1));
    let mut say = |wire: &mut Vec<u8>| client.seal(&framed(1), wire).expect("a new key");
    let mut prepared = (server, Vec::new(), vec![7; 470], [Vec::with_capacity(64), Vec::with_capacity(600)]);
    say(&mut prepared.1);
    assert!(exchange(&mut prepared) > 470, "a query and an answer");
    let (server, wire, _, [_, out]) = &mut prepared;
    wire.clear();
    out.clear();
    say(wire);
    if is_at_rest {
        server.rest();
    }
    prepared
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

/// A client is looked for in [`to_admit`]'s lists, as for each connection and datagram.
pub fn admit_client((access, listener, client): &Admitting) -> bool {
    access.denies_address(black_box(*listener), black_box(*client)).is_none()
}

/// A thousand denied prefixes, of which none is the client's.
pub fn to_admit() -> Admitting {
    let prefix =
        |number: u32| format!("10.{}.{}.0/24", number / 250, number % 250).parse().expect("a prefix");
    let access = config::Access { deny: (0..1000).map(prefix).collect(), ..config::Access::default() };
    let access = Access::new(&access, &[]).expect("there are lists");
    (access, SocketAddr::from(([192, 0, 2, 1], 853)), Ipv4Addr::new(192, 0, 2, 77).into())
}

/// The next name is looked for among a zone's rules.
pub fn find_rule((rules, names, at): &mut Ruled) -> bool {
    let name = Labels::read(black_box(names), *at);
    *at = (*at + NAME_OCTETS) % names.len();
    name.and_then(|name| rules.find(&name)).is_some()
}

/// Octets of a name of [`to_find`] in wire format.
const NAME_OCTETS: usize = 20;

/// That many rules, each for a name below `test`; and names to look for: of the rules, or beside them. With many of both no part of the
/// memory that a look-up reads is in a cache.
pub fn to_find(rules: u32, names: u32, is_there: bool) -> Ruled {
    // An odd multiplier makes each number another one, in an order without a pattern.
    let wire = |front: &str, number: u32| {
        dns::wire_name(&format!("{front}-{:08x}.test", number.wrapping_mul(0x9e37_79b1))).expect("a name")
    };
    let mut known = Names::default();
    for rule in 1..=rules {
        let name = wire("host", rule);
        let node = known.insert(name.split_last().expect("it has the root").1).expect("there is room");
        *known.rule(node, false).expect("it was made") = rule;
    }
    let front = if is_there { "host" } else { "miss" };
    // In an order without a pattern that a processor could foresee: steps of one length are one.
    let mut order = 1_u64;
    let mut number = || {
        order ^= order << 13;
        order ^= order >> 7;
        order ^= order << 17;
        u32::try_from(order % u64::from(rules)).expect("below it") + 1
    };
    let names: Vec<u8> = (0..names).flat_map(|_| wire(front, number())).collect();
    let mut prepared = (Index::new(&known), names, 0);
    assert_eq!(find_rule(&mut prepared), is_there);
    prepared
}

/// A message, a query that the cache does not answer, and its answer are counted, with everything looked for.
pub fn watch((misuse, suspect, query, answer): &mut Watched) -> bool {
    let second = 7;
    let first = misuse.message(black_box(*suspect), second);
    let name = Labels::read(black_box(query), dns::HEADER_OCTETS);
    let missed = name.and_then(|name| misuse.miss(*suspect, &name, second));
    let answered = misuse.answered(*suspect, black_box(answer), Disposal::Forwarded, second);
    [first, missed, answered].iter().all(Option::is_none)
}

/// Each kind is counted.
pub fn to_watch() -> Watched {
    let all = config::Misuse {
        random_names: MisuseAction::Count,
        tunnel: MisuseAction::Count,
        failures: MisuseAction::Count,
        queries: MisuseAction::Count,
        answer_octets: MisuseAction::Count,
        ..config::Misuse::default()
    };
    let client = ClientPrefix::of(Ipv4Addr::new(192, 0, 2, 77).into(), 32, 56);
    let suspect = Suspect { client, is_datagram: false };
    let mut watched = (Misuse::new(&all).expect("it looks"), suspect, query(), response());
    // The rows of this client and domain are there.
    assert!(watch(&mut watched), "nothing is found");
    watched
}

/// The tenant of a client is chosen, as for each connection and datagram.
pub fn choose_tenant((tenants, listener, client): &Grouped) -> bool {
    tenants.choose(black_box(Some(*listener)), black_box(*client), None) == Member::default()
}

/// As many tenants as a config may have, none of them the client's.
pub fn to_choose() -> Grouped {
    let tenant =
        |number: u8| format!("[[tenant]]\nname = \"t{number}\"\nprefixes = [\"10.{number}.0.0/16\"]\n");
    let text: String = (0..32).map(tenant).collect();
    let config = config::parse(&text, "tenants").expect("a fixed config");
    let tenants = Tenants::new(&config.tenant).expect("there are tenants");
    (tenants, SocketAddr::from(([192, 0, 2, 1], 853)), Ipv4Addr::new(192, 0, 2, 77).into())
}
