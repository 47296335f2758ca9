//! Backends by their names: which addresses dotd asks as they come and leave, and what it does while no resolver knows.
//!
//! Before: bootstrap resolvers that are scripted, and NSD at several addresses. After: clients are answered throughout, by the
//! addresses that the name has.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use dot_tests::{
    harness::{
        backends::Backend,
        config::Config,
        dot::Dot,
        eventually,
        message::{A, bare_error, reply_to},
        netns::{Network, SERVER_V4},
        pki::Authority,
        scene::{HONEST, honest},
        scratch::Scratch,
        scripted::{Act, Mood, Received, Scripted},
        server::Server,
    },
    require,
};

const PORT: u16 = 5300;
const HOST: &str = "ns.dotd.test";

/// The addresses that the name has now; `None`: the resolver refuses.
type Zone = Arc<Mutex<Option<Vec<Ipv4Addr>>>>;

fn set(zone: &Zone, last_octets: &[u8]) {
    let addresses = last_octets.iter().map(|last| Ipv4Addr::new(127, 0, 0, *last)).collect();
    *zone.lock().expect("no script panics") = Some(addresses);
}

/// A resolver that knows the name, with a TTL of one second.
fn resolver(network: &Network, zone: &Zone) -> Scripted {
    let zone = Arc::clone(zone);
    Scripted::start(network, move |query: &Received| {
        let is_v4 = query.octets.ends_with(&[0, 1, 0, 1]);
        let addresses = zone.lock().expect("no script panics").clone();
        let Some(addresses) = addresses else { return vec![Act::Send(bare_error(&query.octets, 5))] };
        let rdata: Vec<_> = addresses.iter().filter(|_| is_v4).map(|one| one.octets().to_vec()).collect();
        vec![Act::Send(with_ttl(reply_to(&query.octets, A, &rdata), query.octets.len(), 1))]
    })
}

/// The answer with this TTL in each record, which have compressed owners and four octets.
fn with_ttl(mut reply: Vec<u8>, question_end: usize, ttl: u32) -> Vec<u8> {
    const OWNER_TYPE_CLASS: usize = 6;
    const RECORD: usize = 16;
    for record in (question_end..reply.len()).step_by(RECORD) {
        let at = record + OWNER_TYPE_CLASS;
        reply[at..at + 4].copy_from_slice(&ttl.to_be_bytes());
    }
    reply
}

fn config(bootstrap: &[SocketAddr], keys: &str) -> Config {
    let list: Vec<_> = bootstrap.iter().map(|address| format!("\"{address}\"")).collect();
    Config::new()
        .xdp("off")
        .set("balance", "bootstrap", &format!("[{}]", list.join(", ")))
        .set("balance", "health_interval", "\"200ms\"")
        .backend_named(&format!("{HOST}:{PORT}"), keys)
}

fn called(last: u8) -> String {
    format!("{HOST}:{PORT}/127.0.0.{last}")
}

/// Names of the backends, sorted.
fn backends(dotd: &Server) -> Vec<String> {
    let status = dotd.status();
    let rows = status["backends"].as_array().expect("a list").iter();
    let mut names: Vec<_> = rows.map(|row| row["name"].as_str().expect("a name").to_owned()).collect();
    names.sort_unstable();
    names
}

/// Goal: each address of a name is a backend, one that leaves is not asked any longer, a new one is, and addresses stay while the name has
/// none or no server knows it; without a reload, and no client notices. Method: NSD at three addresses, a resolver whose answer
/// changes; queries all the while. Covers: C-594
#[test]
fn addresses_come_and_leave_without_a_reload() {
    require!(Root, Command("nsd"));
    let network = Network::new();
    let _servers: Vec<_> =
        (2..=4).map(|last| Backend::nsd_at(&network, SocketAddr::from(([127, 0, 0, last], PORT)))).collect();
    let zone = Zone::default();
    set(&zone, &[2]);
    let bootstrap = resolver(&network, &zone);
    let dotd = Server::start(&network, &config(&[bootstrap.address], "allow_cleartext = true"));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let mut id = 0;
    let mut asks = || {
        id += 1;
        let answer = session.exchange(&dot_tests::harness::message::host(id % 1000));
        assert_eq!((answer.rcode(), answer.rdata(A).is_empty()), (0, false), "{answer:?}");
    };
    asks();
    assert_eq!(backends(&dotd), [called(2)]);
    for (now, wanted) in [(&[3_u8, 4][..], vec![called(3), called(4)]), (&[4], vec![called(4)])] {
        set(&zone, now);
        eventually(&format!("{wanted:?}"), || {
            asks();
            (backends(&dotd) == wanted).then_some(())
        });
    }
    let looks = || bootstrap.received().len();
    for nothing in [Some(Vec::new()), None] {
        *zone.lock().expect("no script panics") = nothing;
        let before = looks();
        eventually("it is looked for again", || {
            asks();
            (looks() >= before + 4).then_some(())
        });
        assert_eq!(backends(&dotd), [called(4)]);
    }
    let stats = dotd.stats();
    assert_eq!((stats.counter("control", "reloads_ok"), stats.difference()), (0, [0; 3]), "{stats:?}");
    let log = dotd.stderr();
    assert!(log.contains("a backend has other addresses") && log.contains("the last ones stay"), "{log}");
}

/// Goal: a crash and an upgrade cost no address of a backend's name while no resolver answers. Method: a name is found; then the only
/// resolver refuses each question; queries after a crash of the engine, and after an upgrade.
#[test]
fn addresses_outlast_an_engine() {
    require!(Root, Command("nsd"));
    let network = Network::new();
    let _server = Backend::nsd_at(&network, SocketAddr::from(([127, 0, 0, 2], PORT)));
    let zone = Zone::default();
    set(&zone, &[2]);
    let bootstrap = resolver(&network, &zone);
    let config = config(&[bootstrap.address], "allow_cleartext = true").set("server", "user", "\"nobody\"");
    let dotd = Server::start(&network, &config);
    let is_answered = |id| {
        let answer =
            Dot::connect(&network.client, SERVER_V4).exchange(&dot_tests::harness::message::host(id));
        assert_eq!((answer.rcode(), answer.rdata(A).is_empty()), (0, false), "{answer:?} {}", dotd.stderr());
        assert_eq!(backends(&dotd), [called(2)]);
    };
    is_answered(1);
    *zone.lock().expect("no script panics") = None;
    let before = dotd.engines();
    dotd.signal_engine(9);
    eventually("another engine serves", || (dotd.engines() > before).then_some(()));
    is_answered(2);
    let said = dotd.operate(&["upgrade"]);
    assert!(said.is_success, "{}", said.text);
    is_answered(3);
}

/// Goal: the next bootstrap resolver is asked when one is silent or refuses, and TC=1 leads to TCP; until a name has an address it
/// is reported as unresolved, and no other server answers in its place. Method: three resolvers, a black hole, one that refuses, one that
/// truncates. Covers: C-595
#[test]
fn each_bootstrap_resolver_has_its_turn() {
    require!(Root, Command("nsd"));
    let network = Network::new();
    let _server = Backend::nsd_at(&network, SocketAddr::from(([127, 0, 0, 2], PORT)));
    let (nowhere, zone) = (Zone::default(), Zone::default());
    let (deaf, refuses) = (resolver(&network, &nowhere), resolver(&network, &nowhere));
    deaf.be(Mood::Deaf);
    let known = Arc::clone(&zone);
    let truncates = Scripted::start(&network, move |query: &Received| {
        let Some(addresses) = known.lock().expect("no script panics").clone() else {
            return vec![Act::Send(bare_error(&query.octets, 5))];
        };
        let is_v4 = query.octets.ends_with(&[0, 1, 0, 1]);
        let rdata: Vec<_> =
            addresses.iter().filter(|_| is_v4 && query.is_tcp).map(|one| one.octets().to_vec()).collect();
        let mut reply = reply_to(&query.octets, A, &rdata);
        if !query.is_tcp {
            reply[2] |= 2;
        }
        vec![Act::Send(reply)]
    });
    let list = [deaf.address, refuses.address, truncates.address];
    let dotd = Server::start(&network, &config(&list, "allow_cleartext = true"));
    assert_eq!(dotd.backend_states(), ["unresolved"]);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&dot_tests::harness::message::host(1)).rcode(), 2);
    set(&zone, &[2]);
    eventually("it is found", || (backends(&dotd) == [called(2)]).then_some(()));
    assert_eq!(session.exchange(&dot_tests::harness::message::host(2)).rcode(), 0);
    assert!(truncates.received().iter().any(|query| query.is_tcp));
}

/// Goal: over TLS the certificate of each address must be valid for the name; `dotd check --connect` looks the name up too. Method:
/// a TLS server behind the name with a certificate for it, then for another one.
#[test]
fn a_name_is_what_its_certificate_must_have() {
    require!(Root);
    let (network, authority) = (Network::new(), Authority::new());
    for (certified, rcode) in [(HOST, 0), ("else.dotd.test", 2)] {
        let scratch = Scratch::new();
        let server = Scripted::start_over_tls(&network, authority.issue(certified).serving(), honest);
        let zone = Zone::default();
        set(&zone, &[1]);
        let bootstrap = resolver(&network, &zone);
        let keys = format!(
            "transport = \"tls\"\nca = \"{}\"\nserver_name = \"{HOST}\"",
            scratch.write("ca.pem", authority.pem()).display()
        );
        let list = format!("[\"{}\"]", bootstrap.address);
        let config = Config::new().xdp("off").set("balance", "bootstrap", &list);
        let config = config.backend_named(&format!("{HOST}:{}", server.address.port()), &keys);
        let dotd = Server::launch(&network, &config, scratch, &[]);
        let answer = Dot::connect(&network.client, SERVER_V4).exchange(&dot_tests::harness::message::host(1));
        assert_eq!(answer.rcode(), rcode, "{certified}");
        if rcode == 0 {
            assert_eq!(answer.rdata(A), [HONEST]);
        }
        let file = dotd.folder().join("dotd.toml").display().to_string();
        let program = dot_tests::harness::server::binary().display().to_string();
        let said = dot_tests::harness::clients::tool(
            &network.server,
            &program,
            &["check", "-c", &file, "--connect"],
        );
        assert_eq!(said.is_success, rcode == 0, "{}", said.text);
        assert!(said.has(&format!("connect: {HOST}:{}/127.0.0.1", server.address.port())), "{}", said.text);
        assert_eq!(server.received().is_empty(), rcode != 0);
    }
}
