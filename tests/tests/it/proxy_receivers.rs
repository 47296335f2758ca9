//! Real servers behind dotd that read its PROXY headers: each of them sees the true client. (Unbound:
//! `proxy_protocol.rs`.)
//!
//! Before: `proxy_v2 = true` and a server whose answer depends on the client. After: it gave the client's answer, and
//! not dotd's.

use std::net::SocketAddr;

use dot_tests::{
    harness::{
        clients::udp,
        config::Config,
        dot::Dot,
        message::{A, Opt, Query},
        netns::{Network, SERVER_V4},
        receivers::{ADDRESS, Receiver, bind_lacks_proxy},
        require::skip,
        response::Message,
        server::Server,
        uninterrupted,
    },
    require,
};

const UDP: &str = "udp";
const TCP: &str = "tcp";

/// Two clients, one after the other, ask over each of these transports, and the server sees them.
fn assert_sees_clients(receiver: Receiver, transports: &[&str]) {
    let network = Network::new();
    let backend = receiver.start(&network);
    for transport in transports {
        let keys = format!("proxy_v2 = true\ntransport = \"{transport}\"");
        let config = Config::new().xdp("off").backend_with(SocketAddr::from(ADDRESS), &keys);
        let dotd = Server::start(&network, &config);
        for id in 1..3 {
            let mut session = Dot::connect(&network.client, SERVER_V4);
            let query = Query::new(id, "www.dotd.test", A).opt(Opt::default()).octets();
            let answer = session.exchange(&query);
            let said = (answer.rcode(), answer.rdata(A).concat());
            assert_eq!(
                said,
                (0, receiver.seen().to_vec()),
                "{receiver:?} over {transport}: {}",
                backend.log()
            );
        }
        let states = dotd.backend_states();
        assert_ne!(
            states,
            ["down"],
            "{receiver:?} over {transport}: health checks say LOCAL, and are answered"
        );
        assert_eq!(dotd.stats().difference(), [0; 3]);
        dotd.stop();
    }
    println!("{receiver:?} sees the client over {}", transports.join(" and "));
}

/// Goal: Knot DNS (3.2) reads the header of a datagram if the client's query was a datagram too; it knows neither
/// headers over TCP, nor clients over TCP or TLS, nor LOCAL. Method: DNS in clear; its module `whoami` answers with the
/// address that it sees. Covers: C-75
#[test]
fn knot_sees_clients_over_udp() {
    require!(Root, Command("knotd"));
    let network = Network::new();
    let backend = Receiver::Knot.start(&network);
    let config = Config::new().xdp("off").set("listen", "do53", "[\"0.0.0.0:53\"]");
    let dotd = Server::start(&network, &config.backend_with(SocketAddr::from(ADDRESS), "proxy_v2 = true"));
    let socket = udp(&network.client, SocketAddr::new(SERVER_V4, 53));
    socket.send(&Query::new(1, "www.dotd.test", A).opt(Opt::default()).octets()).expect("sent");
    let mut octets = [0; 512];
    let length = uninterrupted(|| socket.recv(&mut octets)).expect("an answer");
    let answer = Message::parse(&octets[..length]).expect("whole");
    let said = (answer.rcode(), answer.rdata(A).concat());
    assert_eq!(said, (0, Receiver::Knot.seen().to_vec()), "{}", backend.log());
    assert_eq!(dotd.stats().difference(), [0; 3]);
    println!("Knot sees the client over udp");
}

/// Goal: Knot Resolver reads the header of a datagram. Over a connection, version 5.6 knows the client only for queries
/// that it reads together with the header, and takes dotd for the client of all others, so there is nothing to assert.
/// Method: a view of the client's address. Covers: C-75
#[test]
fn knot_resolver_sees_the_client() {
    require!(Root, Command("kresd"));
    assert_sees_clients(Receiver::KnotResolver, &[UDP]);
}

/// Goal: dnsdist reads the headers of datagrams and of connections. Method: a rule for the client's address. Covers:
/// C-75
#[test]
fn dnsdist_sees_the_client() {
    require!(Root, Command("dnsdist"));
    assert_sees_clients(Receiver::Dnsdist, &[UDP, TCP]);
}

/// Goal: PowerDNS Recursor reads the headers of datagrams and of connections. Method: its Lua hook answers by the
/// address that it sees. Covers: C-75
#[test]
fn powerdns_recursor_sees_the_client() {
    require!(Root, Command("pdns_recursor"));
    assert_sees_clients(Receiver::Recursor, &[UDP, TCP]);
}

/// Goal: PowerDNS Authoritative reads the headers of datagrams and of connections. Method: a record that it computes
/// from the address that it sees. Covers: C-75
#[test]
fn powerdns_authoritative_sees_the_client() {
    require!(Root, Command("pdns_server"));
    assert_sees_clients(Receiver::Authoritative, &[UDP, TCP]);
}

/// Goal: BIND reads the headers of datagrams and of connections. Method: a view of the client's address. Covers: C-75
#[test]
fn bind_sees_the_client() {
    require!(Root, Command("named"), Command("named-checkconf"));
    if let Some(reason) = bind_lacks_proxy() {
        return skip("bind_sees_the_client", &reason);
    }
    assert_sees_clients(Receiver::Bind, &[UDP, TCP]);
}
