//! Queries that are longer than the path to their backend allows for a datagram (RFC 9715): they go over TCP, to the
//! same backend, without fragments.
//!
//! Before: two backends, policy `first`, and a path whose MTU is small or becomes small. After: the first backend has
//! answered, long queries over TCP and short ones over UDP.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Opt, Query, host, reply_to},
        netns::{Namespace, Network, SERVER_V4},
        response::Message,
        scene::{HONEST, honest},
        scripted::{Act, Received, Scripted},
        server::Server,
        stats::Stats,
    },
    require,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// The path's MTU: the minimum of IPv6, as many tunnels have it.
const MTU: u16 = 1280;
/// An EDNS option for local use (RFC 6891 §9), which passes.
const LOCAL_OPTION: u16 = 65_001;
/// A query that fits into an Ethernet frame, and not into [`MTU`].
const LONG_OCTETS: usize = 1260;

fn long(id: u16) -> Vec<u8> {
    let bare = Query::new(id, "www.dotd.test", A).opt(Opt::with(LOCAL_OPTION, &[])).octets();
    Query::new(id, "www.dotd.test", A)
        .opt(Opt::with(LOCAL_OPTION, &vec![7; LONG_OCTETS - bare.len()]))
        .octets()
}

fn is_long(query: &Received) -> bool {
    query.octets.len() > 1000
}

/// Another backend, which would answer differently.
fn spare(query: &Received) -> Vec<Act> {
    vec![Act::Send(reply_to(&query.octets, A, &[vec![192, 0, 2, 1]]))]
}

fn scene(
    keys: &str,
    script: impl Fn(&Received) -> Vec<Act> + Send + Sync + 'static,
) -> (Network, [Scripted; 2], Server) {
    let network = Network::new();
    let backends = [Scripted::start(&network, script), Scripted::start(&network, spare)];
    let config = Config::new().xdp("off").set("server", "workers", "1").set("balance", "policy", "\"first\"");
    let config = backends.iter().fold(config, |config, backend| config.backend_with(backend.address, keys));
    let dotd = Server::start(&network, &config);
    (network, backends, dotd)
}

/// Asserts that all queries went to the first backend: that many long ones over TCP, and the others over UDP.
fn assert_first_had_all(backends: &[Scripted; 2], stats: &Stats, over_tcp: usize) {
    let (first, second) = (backends[0].received(), backends[1].received());
    assert!(second.is_empty(), "{second:?}");
    assert_eq!(first.iter().filter(|query| query.is_tcp).count(), over_tcp);
    assert!(first.iter().filter(|query| query.is_tcp).all(is_long));
    for label in ["failed_over", "unreachable", "timeout", "send_failed"] {
        assert_eq!(stats.counter("backend", label), 0, "{label}: {stats:?}");
    }
    assert_eq!(stats.difference(), [0; 3], "{stats:?}");
}

/// Goal: a query longer than the path's MTU, which the kernel knows, goes over TCP at once, without fragments, alone or
/// among others, with and without a PROXY header; it does not count as a failure of the backend. Method: loopback with
/// an MTU of 1280; long queries, between short ones in the same batch too. Covers: C-56
#[test]
fn what_is_too_long_for_the_path_goes_by_tcp() {
    require!(Root);
    for keys in ["", "proxy_v2 = true"] {
        let (network, backends, dotd) = scene(keys, honest);
        network.server.ip(&format!("link set lo mtu {MTU}"));
        let mut session = Dot::connect(&network.client, SERVER_V4);
        assert_eq!(session.exchange(&long(1)).rdata(A), [HONEST], "{keys}");
        assert_eq!(session.exchange(&host(2)).rdata(A), [HONEST], "{keys}");
        session.ask_all(&(0..40).map(|id| if id % 2 == 0 { long(id) } else { host(id) }).collect::<Vec<_>>());
        let mut answers: Vec<Message> = (0..40).map(|_| session.receive()).collect();
        answers.sort_by_key(|answer| answer.id);
        for (id, answer) in (0..).zip(&answers) {
            assert_eq!((answer.id, answer.rdata(A)), (id, vec![&HONEST[..]]), "{keys}");
        }
        let stats = dotd.counts("all is over", |stats| stats.difference() == [0; 3]);
        assert_first_had_all(&backends, &stats, 21);
        // A header may carry 256 octets from a load balancer, so dotd does not even try a datagram with one.
        let found_out = if keys.is_empty() { 21 } else { 0 };
        assert_eq!(stats.counter("backend", "too_long"), found_out);
        assert_eq!(dotd.backend_states()[0], "up");
    }
}

/// Goal: a query that a router refuses as too long goes over TCP as soon as the router reports it, and not to another
/// backend; the next one goes over TCP without a refusal. Method: a backend that does not hear long datagrams, and
/// ICMP's "fragmentation needed" for the first of them.
#[test]
fn what_a_router_refuses_goes_by_tcp() {
    require!(Root);
    let deaf = |query: &Received| if is_long(query) && !query.is_tcp { vec![] } else { honest(query) };
    let (network, backends, dotd) = scene("timeout = \"20s\"", deaf);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&host(1)).rdata(A), [HONEST]);
    session.ask(&long(2));
    let lost = eventually("it is on its way", || backends[0].received().into_iter().find(is_long));
    assert!(!lost.is_tcp);
    refuse(&network.server, &lost, backends[0].address);
    assert_eq!(session.receive().rdata(A), [HONEST]);
    for id in 3..10 {
        assert_eq!(session.exchange(&long(id)).rdata(A), [HONEST]);
        assert_eq!(session.exchange(&host(id)).rdata(A), [HONEST]);
    }
    let stats = dotd.counts("all is over", |stats| stats.difference() == [0; 3]);
    assert_first_had_all(&backends, &stats, 8);
    let by_udp = backends[0].received().into_iter().filter(|query| is_long(query) && !query.is_tcp).count();
    assert_eq!((by_udp, stats.counter("backend", "too_long")), (1, 8));
}

/// Goal: a long query that is lost without a report from a router is asked over TCP after its time for an answer; a
/// short one is sent again unchanged. Method: a single backend that ignores long datagrams, and the first of the short
/// ones.
#[test]
fn a_silent_black_hole_is_passed_by_tcp() {
    require!(Root);
    let network = Network::new();
    let shorts = AtomicU32::new(0);
    let deaf = move |query: &Received| {
        let is_heard = query.is_tcp || !is_long(query) && shorts.fetch_add(1, Relaxed) > 0;
        if is_heard { honest(query) } else { vec![] }
    };
    let backend = Scripted::start(&network, deaf);
    let config = Config::new().xdp("off").set("server", "workers", "1");
    let dotd = Server::start(&network, &config.backend_with(backend.address, "timeout = \"4s\""));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&long(1)).rdata(A), [HONEST]);
    assert_eq!(session.exchange(&host(2)).rdata(A), [HONEST]);
    let asked: Vec<_> = backend.received().iter().map(|query| (is_long(query), query.is_tcp)).collect();
    assert_eq!(asked, [(true, false), (true, true), (false, false), (false, false)]);
    let stats = dotd.counts("all is over", |stats| stats.difference() == [0; 3]);
    assert_eq!((stats.counter("backend", "too_long"), stats.counter("backend", "retransmitted")), (1, 1));
}

/// Sends the client the report of a router that its datagram is too long for the next link (RFC 792, RFC 1191 §4).
fn refuse(namespace: &Namespace, query: &Received, backend: SocketAddr) {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (query.from, backend) else { panic!("IPv4") };
    let octets = |length: usize| u16::try_from(length).expect("short").to_be_bytes();
    let udp = [from.port().to_be_bytes(), to.port().to_be_bytes(), octets(8 + query.octets.len()), [0; 2]];
    let mut ip = [&[0x45, 0][..], &octets(28 + query.octets.len()), &[0, 0, 0x40, 0, 64, 17, 0, 0]].concat();
    ip.extend(from.ip().octets());
    ip.extend(to.ip().octets());
    let mut icmp = [&[3, 4, 0, 0, 0, 0][..], &MTU.to_be_bytes(), &ip, &udp.concat()].concat();
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let to = SockAddr::from(query.from);
    namespace.run(move || {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).expect("root may");
        socket.send_to(&icmp, &to).expect("loopback takes it");
    });
}

/// The Internet's checksum (RFC 1071).
fn checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}
