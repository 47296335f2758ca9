//! RFC 9462, discovery of designated resolvers: clients are told about dotd what its certificate covers, and nothing
//! that a backend claims.
//!
//! Before: `harness::scene`, or a certificate with addresses. After: SVCB or NODATA from dotd, and a backend that was not asked.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use dot_tests::{
    harness::{
        clients::{kdig, udp},
        config::Config,
        dot::Dot,
        message::{A, Opt, Query, SVCB},
        netns::{Network, SERVER_V4, SERVER_V6},
        response::Message,
        scene::{HONEST, honest, scripted},
        scratch::Scratch,
        server::Server,
        uninterrupted,
    },
    require,
};
use nix::sys::signal::Signal;

/// Goal: a backend's own record below `resolver.arpa` cannot lead clients to another resolver (RFC 9462 §6.1), over TLS
/// and in clear. Method: SVCB and other types, any case, at a backend that answers everything; then a name that only
/// has the same ending, and `ipv4only.arpa`, which is the backend's. Covers: C-360
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
    // RFC 7050: whether this network has NAT64 is for its resolver to say.
    for name in ["my-resolver.arpa", "ipv4only.arpa"] {
        assert_eq!(session.exchange(&Query::new(3, name, A).octets()).rdata(A), [HONEST], "{name}");
    }
    dotd.counts("each is answered here", |stats| stats.counter("queries", "responded") >= 9);
}

/// A certificate of its own, with its key, for `dns.dotd.test` and these addresses.
fn certificate(scratch: &Scratch, addresses: &[IpAddr]) -> (PathBuf, PathBuf) {
    let names =
        addresses.iter().map(IpAddr::to_string).chain(["dns.dotd.test".to_owned()]).collect::<Vec<_>>();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    (scratch.write("cert.pem", made.cert.pem()), scratch.write("key.pem", made.signing_key.serialize_pem()))
}

fn over_udp(network: &Network, query: &Query) -> Message {
    let clear = udp(&network.client, SocketAddr::new(SERVER_V4, 53));
    clear.send(&query.octets()).expect("sent");
    let mut octets = [0; 1500];
    let length = uninterrupted(|| clear.recv(&mut octets)).expect("an answer");
    Message::parse(&octets[..length]).expect("whole")
}

/// Goal: a client that asks in clear for the designated resolver gets the name, the port and the address of DNS over
/// TLS if the certificate covers the address that it asked, and NODATA otherwise; the resolver's own name is described
/// too; a reload with `ddr = false` ends it. Method: a certificate for the IPv4 address alone; UDP and TLS; kdig reads
/// the record. Covers: C-510, C-511, C-512
#[test]
fn a_covered_address_is_designated() {
    require!(Root, Command("kdig"));
    let network = Network::new();
    let scratch = Scratch::new();
    let (cert, key) = certificate(&scratch, &[SERVER_V4]);
    let config = Config::new().xdp("off").certificate(&cert, &key).set(
        "listen",
        "do53",
        "[\"0.0.0.0:53\", \"[::]:53\"]",
    );
    let mut dotd = Server::launch(&network, &config, scratch, &[]);
    let asked = |name: &str, kind| Query::new(1, name, kind).opt(Opt::default());
    let expected = [
        &[0, 1][..],
        b"\x03dns\x04dotd\x04test\x00\x00\x01\x00\x04\x03dot\x00\x03\x00\x02\x03\x55\x00\x04\x00\x04",
        &octets_of(SERVER_V4),
    ]
    .concat();
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for name in ["_dns.resolver.arpa", "_DNS.Resolver.arpa", "_dns.dns.dotd.test"] {
        let query = asked(name, SVCB);
        for answer in [over_udp(&network, &query), session.exchange(&query.octets())] {
            assert_eq!((answer.rcode(), answer.counts[1]), (0, 1), "{name}: {answer:?}");
            assert_eq!(
                (answer.rdata(SVCB), answer.rdata(A)),
                (vec![&expected[..]], vec![&octets_of(SERVER_V4)[..]])
            );
        }
    }
    for query in
        [asked("_dns.resolver.arpa", A), asked("resolver.arpa", SVCB), asked("x._dns.resolver.arpa", SVCB)]
    {
        assert_eq!(over_udp(&network, &query).counts[1], 0);
    }
    let mut other = Dot::connect(&network.client, SERVER_V6);
    let uncovered = other.exchange(&asked("_dns.resolver.arpa", SVCB).octets());
    assert_eq!(
        (uncovered.rcode(), uncovered.counts[1]),
        (0, 0),
        "the certificate does not cover this address"
    );
    let said = kdig(&network.client, SERVER_V4, "+tls +short _dns.resolver.arpa SVCB");
    assert!(said.has(&format!("1 dns.dotd.test. alpn=dot port=853 ipv4hint={SERVER_V4}")), "{}", said.text);
    dotd.rewrite_config(&config.set("discovery", "ddr", "false"));
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 1);
    assert_eq!(over_udp(&network, &asked("_dns.resolver.arpa", SVCB)).counts[1], 0);
    dotd.counts("every end is in the books", |stats| stats.difference()[1..] == [0; 2]);
}

fn octets_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
