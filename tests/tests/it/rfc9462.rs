//! RFC 9462, discovery of designated resolvers: nobody else's description of a resolver reaches our clients.
//!
//! Before: `harness::scene`. After: NODATA from dotd, and a backend that was not asked.

use std::net::SocketAddr;

use dot_tests::{
    harness::{
        clients::udp,
        config::Config,
        dot::Dot,
        message::{A, Opt, Query, SVCB},
        netns::SERVER_V4,
        response::Message,
        scene::{HONEST, honest, scripted},
        uninterrupted,
    },
    require,
};

/// Goal: a backend's own record below `resolver.arpa` cannot lead our clients away (RFC 9462 §6.1), over TLS and in clear.
/// Method: SVCB and other types, any case, at a backend that answers everything; then a name that only ends alike.
/// Covers: C-360
#[test]
fn resolver_arpa_is_answered_here() {
    require!(Root);
    let config = Config::new().set("listen", "do53", "[\"0.0.0.0:53\"]");
    let (network, backend, dotd) = scripted(config, honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let names = ["_dns.resolver.arpa", "resolver.arpa", "_DNS.Resolver.ARPA", "x._dns.resolver.arpa"];
    for (name, kind) in names.into_iter().flat_map(|name| [(name, SVCB), (name, A)]) {
        let query = Query::new(1, name, kind).opt(Opt::default()).octets();
        let answer = session.exchange(&query);
        assert_eq!((answer.rcode(), answer.counts[1], answer.opt_count()), (0, 0, 1), "{name}: {answer:?}");
    }
    let clear = udp(&network.client, SocketAddr::new(SERVER_V4, 53));
    clear.send(&Query::new(2, "_dns.resolver.arpa", SVCB).octets()).expect("sent");
    let mut octets = [0; 512];
    let length = uninterrupted(|| clear.recv(&mut octets)).expect("an answer");
    let answer = Message::parse(&octets[..length]).expect("whole");
    assert_eq!((answer.rcode(), answer.counts[1]), (0, 0));
    assert!(backend.received().is_empty(), "the backend was asked: {:?}", backend.received());
    assert_eq!(session.exchange(&Query::new(3, "my-resolver.arpa", A).octets()).rdata(A), [HONEST]);
    dotd.counts("each is answered here", |stats| stats.counter("queries", "responded") >= 9);
}
