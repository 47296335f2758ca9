//! `dns.client_subnet` (RFC 7871): what a backend learns of where a client is.
//!
//! Before: `dns.client_subnet`. After: the options that the backend received, and those that the client got back.

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        message::{A, Opt, Query, append_opt, reply_to},
        netns::{CLIENT_V4, Network, SERVER_V4, SERVER_V6},
        response::Message,
        scene::{HONEST, scripted},
        scripted::{Act, Received, Scripted},
        server::Server,
    },
    require,
};

const OPTION_SUBNET: u16 = 8;
const OPTION_COOKIE: u16 = 10;
const COOKIE: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
/// 198.51.100.0/24, as a client states it.
const SAID: [u8; 7] = [0, 1, 24, 0, 198, 51, 100];
/// 0.0.0.0/0: the client's address must not be passed on.
const NOBODY: [u8; 4] = [0, 1, 0, 0];
/// 10.53.0.0/24, where the test's IPv4 client is.
const V4: [u8; 7] = [0, 1, 24, 0, 10, 53, 0];
/// fd53::/56, where its IPv6 client is.
const V6: [u8; 11] = [0, 2, 56, 0, 0xfd, 0x53, 0, 0, 0, 0, 0];

/// Answers, and returns every option of the query, a subnet with its scope.
fn echoing(query: &Received) -> Vec<Act> {
    let asked = Message::parse(&query.octets).expect("whole");
    let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
    if asked.opt_count() > 0 {
        let options = [OPTION_COOKIE, OPTION_SUBNET].into_iter();
        let options = options.filter_map(|code| Some((code, asked.option(code)?))).collect();
        append_opt(&mut reply, &Opt { options, ..Opt::default() });
    }
    vec![Act::Send(reply)]
}

fn scene(wish: &str) -> (Network, Scripted, Server) {
    scripted(Config::new().set("dns", "client_subnet", &format!("\"{wish}\"")), echoing)
}

fn plain(id: u16) -> Query {
    Query::new(id, "host-1.dotd.test", A)
}

fn with(subnet: &[u8]) -> Query {
    let options = vec![(OPTION_SUBNET, subnet.to_vec()), (OPTION_COOKIE, COOKIE.to_vec())];
    plain(1).opt(Opt { options, ..Opt::default() })
}

/// The subnet in the last query that the backend received.
fn told(backend: &Scripted) -> Option<Vec<u8>> {
    let query = Message::parse(&backend.received().last().expect("a query").octets).expect("well-formed");
    query.option(OPTION_SUBNET)
}

/// Goal: by default no subnet is added, and a client's own passes both ways; "strip" removes it, and leaves other
/// options alone. Covers: C-44, C-76
#[test]
fn nothing_is_added_and_stripping_strips() {
    require!(Root);
    for (wish, passed) in [("pass", Some(&SAID[..])), ("strip", None)] {
        let (network, backend, dotd) = scene(wish);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        for query in [plain(1), plain(2).opt(Opt::default())] {
            assert_eq!(session.exchange(&query.octets()).rcode(), 0);
            assert_eq!(told(&backend), None, "{wish}");
        }
        let answer = session.exchange(&with(&SAID).octets());
        assert_eq!(told(&backend).as_deref(), passed, "{wish}");
        assert_eq!(answer.option(OPTION_SUBNET).as_deref(), passed, "{wish}");
        assert_eq!(answer.option(OPTION_COOKIE).as_deref(), Some(&COOKIE[..]));
        assert_eq!(dotd.stats().difference(), [0; 3]);
    }
}

/// Goal: "add" sends the prefix and no more, for both IP versions, with and without EDNS; a client's own subnet, also
/// /0, takes precedence; and the answer does not show the added option. Covers: C-75, C-76
#[test]
fn adding_adds_a_prefix_that_the_client_does_not_see() {
    require!(Root);
    let (network, backend, dotd) = scene("add");
    for (server, prefix) in [(SERVER_V4, &V4[..]), (SERVER_V6, &V6[..])] {
        let mut session = Dot::connect(&network.client, server);
        let bare = session.exchange(&plain(1).octets());
        assert_eq!((told(&backend).as_deref(), bare.opt_count()), (Some(prefix), 0));
        let answer = session.exchange(&plain(2).opt(Opt::with(OPTION_COOKIE, &COOKIE)).octets());
        assert_eq!(told(&backend).as_deref(), Some(prefix));
        assert_eq!((answer.opt_count(), answer.option(OPTION_SUBNET)), (1, None));
        assert_eq!(answer.option(OPTION_COOKIE).as_deref(), Some(&COOKIE[..]));
        for own in [&SAID[..], &NOBODY] {
            let answer = session.exchange(&with(own).octets());
            assert_eq!(told(&backend).as_deref(), Some(own));
            assert_eq!(answer.option(OPTION_SUBNET).as_deref(), Some(own));
        }
    }
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: a tenant's own backends learn about clients what the tenant says, and others what `dns.client_subnet` says. Method: a tenant for
/// the client's IPv4 address that adds the prefix, with a backend of its own; a session from each of the client's addresses. Covers: C-75
#[test]
fn a_tenant_has_a_choice_of_its_own() {
    require!(Root);
    let network = Network::new();
    let [plain, own] = [(); 2].map(|()| Scripted::start(&network, echoing));
    let tenant = format!(
        "[[tenant]]\nname = \"office\"\nprefixes = [\"{CLIENT_V4}/32\"]\nbackends = [\"own\"]\nclient_subnet = \"add\"\n"
    );
    let config = Config::new()
        .xdp("off")
        .backend_with(plain.address, "name = \"plain\"")
        .backend_with(own.address, "name = \"own\"")
        .tables(&tenant);
    let dotd = Server::start(&network, &config);
    for (server, backend, prefix) in [(SERVER_V4, &own, Some(&V4[..])), (SERVER_V6, &plain, None)] {
        let mut session = Dot::connect(&network.client, server);
        assert_eq!(session.exchange(&self::plain(1).octets()).rcode(), 0);
        assert_eq!(told(backend).as_deref(), prefix);
    }
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: a subnet is taken out of, and put into, an OPT that is not the last record, and the records behind it pass.
/// Method: an address record behind the OPT, with an uncompressed name. Covers: C-44, C-76
#[test]
fn an_opt_before_other_records_is_no_exception() {
    require!(Root);
    let address = b"\x02ns\x07example\0\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x4d";
    for (wish, query, expected) in [
        ("strip", with(&SAID), None),
        ("add", plain(1).opt(Opt::with(OPTION_COOKIE, &COOKIE)), Some(&V4[..])),
    ] {
        let (network, backend, _dotd) = scene(wish);
        let mut octets = [&*query.octets(), address].concat();
        octets[11] += 1;
        let answer = Dot::connect(&network.client, SERVER_V4).exchange(&octets);
        assert_eq!((answer.rcode(), answer.option(OPTION_SUBNET)), (0, None), "{wish}");
        assert_eq!(told(&backend).as_deref(), expected, "{wish}");
        let received = backend.received().pop().expect("it was asked").octets;
        assert!(received.ends_with(address), "{wish}");
        let asked = Message::parse(&received).expect("well-formed");
        assert_eq!(asked.option(OPTION_COOKIE).as_deref(), Some(&COOKIE[..]));
    }
}

/// Goal: a subnet is also stripped from a query for a zone transfer. Method: AXFR with a subnet, to a backend that has
/// no zone. Covers: C-76
#[test]
fn a_transfer_tells_no_more_than_a_query() {
    require!(Root);
    for (wish, passed) in [("pass", Some(&SAID[..])), ("strip", None)] {
        let config = Config::new().set("dns", "client_subnet", &format!("\"{wish}\""));
        let (network, backend, _dotd) = scripted(config.set("dns", "transfers", "true"), echoing);
        let query = Query { qtype: 252, ..with(&SAID) };
        let _ = Dot::connect(&network.client, SERVER_V4).exchange(&query.octets());
        assert_eq!(told(&backend).as_deref(), passed, "{wish}");
        assert_eq!(backend.received().len(), 1);
    }
}
