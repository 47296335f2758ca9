//! `[[tenant]]`: which backends, kept answers, policy zones and rate a client has, by the name under which it asks and by where it comes
//! from.
//!
//! Before: tenants in the config, and two backends that say different things. After: each client hears its own.

use std::net::{IpAddr, SocketAddr};

use dot_tests::{
    harness::{
        backends::Backend,
        clients::udp,
        config::Config,
        dot::Dot,
        eventually,
        message::{A, OPTION_EDE, Opt, Query, REFUSED, SERVFAIL, TXT, reply_to},
        netns::{CLIENT_V4, CLIENT_V6, Network, SERVER_V4, SERVER_V6},
        offer::Offer,
        response::Message,
        scratch::Scratch,
        scripted::{Act, Mood, Scripted},
        server::Server,
        uninterrupted,
    },
    require,
};
use nix::sys::signal::Signal;

const NXDOMAIN: u16 = 3;
const ZONE: &str = "$TTL 60\n@ SOA localhost. root.localhost. 7 3600 600 86400 60\n@ NS localhost.\nhost-1.dotd.test CNAME .\n\
                    alias.dotd.test CNAME who.dotd.test.\n";

fn query(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    Query::new(id, name, qtype).opt(Opt::default()).octets()
}

/// Two backends, a cache, and these tenants.
fn config(tenants: &str) -> Config {
    let backend = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    Config::new()
        .xdp("off")
        .set("listen", "do53", "[\"0.0.0.0:53\"]")
        .set("dns", "cache_entries", "1000")
        .backend_with(backend(5300), "name = \"plain\"")
        .backend_with(backend(5301), "name = \"filtered\"")
        .tables(tenants)
}

/// A session that asks for dotd by this name.
fn session(network: &Network, server: IpAddr, name: Option<&'static str>) -> Dot {
    let offer = Offer { server_name: name, ..Offer::default() };
    Dot::attempt(&network.client, server, &offer).expect("a session")
}

/// Whose backend answers.
fn who(session: &mut Dot, name: &str) -> String {
    String::from_utf8(session.exchange(&query(1, name, TXT)).rdata(TXT).concat()).expect("text")
}

/// Goal: each client hears its own tenant's backend, also from the cache and by an alias of a rule; zones apply to their tenants;
/// datagrams have tenants too; a reload judges open sessions again. Method: two backends that say who they are; sessions with and
/// without a server name from two addresses; each question twice.
#[test]
fn each_tenant_asks_its_own_backends() {
    require!(Root, Command("nsd"));
    let network = Network::new();
    let _plain = Backend::nsd_with(&network, 5300, "who TXT everybody\n");
    let _filtered = Backend::nsd_with(&network, 5301, "who TXT family\n");
    let scratch = Scratch::new();
    scratch.write("zone", ZONE);
    let tenants = |family: &str| {
        format!(
            "[[tenant]]\nname = \"family\"\nserver_names = [\"{family}\"]\nbackends = [\"filtered\"]\n\
             [[tenant]]\nname = \"local\"\nprefixes = [\"{CLIENT_V6}/128\"]\n\
             [[policy.zone]]\nname = \"rpz.lab\"\nfile = \"zone\"\ntenants = [\"local\"]\n"
        )
    };
    let mut dotd = Server::launch(&network, &config(&tenants("*.dot.example")), scratch, &[]);
    let mut family = session(&network, SERVER_V6, Some("family.dot.example"));
    let mut local = session(&network, SERVER_V6, None);
    let mut other = session(&network, SERVER_V4, Some("dot.example"));
    for round in 0..2 {
        assert_eq!(who(&mut family, "who.dotd.test"), "\x06family", "round {round}");
        assert_eq!(who(&mut local, "who.dotd.test"), "\x09everybody", "round {round}");
        assert_eq!(who(&mut other, "who.dotd.test"), "\x09everybody", "round {round}");
        assert_eq!(who(&mut local, "alias.dotd.test"), "\x09everybody", "round {round}");
        let rcode = |session: &mut Dot| session.exchange(&query(2, "host-1.dotd.test", A)).rcode();
        assert_eq!(
            [rcode(&mut family), rcode(&mut local), rcode(&mut other)],
            [0, NXDOMAIN, 0],
            "round {round}"
        );
    }
    let socket = udp(&network.client, SocketAddr::new(SERVER_V4, 53));
    socket.send(&query(3, "who.dotd.test", TXT)).expect("sent");
    let mut octets = [0; 1500];
    let length = uninterrupted(|| socket.recv(&mut octets)).expect("an answer");
    assert_eq!(Message::parse(&octets[..length]).expect("whole").rdata(TXT), [b"\x09everybody"]);
    let status = dotd.status();
    let counts = [0, 1].map(|place| status["tenants"][place]["queries"].as_u64());
    assert_eq!(counts, [Some(4), Some(6)], "{}", status["tenants"]);
    assert!(dotd.operate(&["status"]).has("family: 4 queries, asks filtered"));
    assert!(dotd.operate(&["explain", &CLIENT_V6.to_string()]).has(", tenant family"));
    let test = |words: &[&str]| dotd.operate(&[&["policy", "test", "host-1.dotd.test"], words].concat());
    assert!(test(&["--tenant", "local"]).has("host-1.dotd.test A for tenant local: nxdomain"));
    assert!(test(&["--tenant", "family"]).has("no rule") && test(&[]).has("no rule"));
    assert!(!test(&["--tenant", "nobody"]).is_success);
    let stats = dotd.counts("every end is in the books", |stats| stats.difference() == [0; 3]);
    assert!(stats.counter("cache", "hits") >= 6, "{}", stats.counter("cache", "hits"));
    dotd.rewrite_config(&config(&tenants("other.example")));
    dotd.signal(Signal::SIGHUP);
    eventually("the session is nobody's name any more", || {
        (who(&mut family, "who.dotd.test") == "\x09everybody").then_some(())
    });
    assert_eq!(family.exchange(&query(4, "host-1.dotd.test", A)).rcode(), NXDOMAIN, "it is local now");
}

/// Goal: the clients of a tenant have a rate together, over sessions and addresses; what is beyond is REFUSED with EDE 18, and others
/// are served. Method: a burst of five, twenty queries over two sessions, and a session of no tenant.
#[test]
fn a_tenant_has_a_rate_of_its_own() {
    require!(Root, Command("nsd"));
    let network = Network::new();
    let _plain = Backend::nsd(&network, 5300);
    let _filtered = Backend::nsd(&network, 5301);
    let tenants = "[[tenant]]\nname = \"guests\"\nserver_names = [\"guests.example\"]\nqueries_per_second = 1\nqueries_burst = 5\n";
    let dotd = Server::start(&network, &config(tenants));
    let (mut served, mut refused) = (0, 0);
    for server in [SERVER_V4, SERVER_V6] {
        let mut guest = session(&network, server, Some("guests.example"));
        for number in 0..10 {
            let answer = guest.exchange(&query(number, "host-1.dotd.test", A));
            match answer.rcode() {
                0 => served += 1,
                REFUSED => {
                    refused += 1;
                    assert!(answer.option(OPTION_EDE).is_some_and(|ede| ede.starts_with(&[0, 18])));
                }
                other => panic!("{other}"),
            }
        }
    }
    assert!(served >= 5 && refused >= 1, "{served} served, {refused} refused");
    let mut other = session(&network, SERVER_V4, None);
    (0..20).for_each(|number| assert_eq!(other.exchange(&query(number, "host-1.dotd.test", A)).rcode(), 0));
    assert_eq!(dotd.stats().counter("tenants", "queries_refused"), refused);
    eventually("operators hear why", || {
        dotd.operate(&["explain", &CLIENT_V4.to_string()]).has("(tenant.queries_per_second)").then_some(())
    });
}

/// A backend of a test at its own port, which says `word` for every TXT question; names that begin with `s` wait until the test releases
/// them.
fn saying(network: &Network, word: &'static str) -> Scripted {
    Scripted::start(network, move |query| {
        let mut rdata = vec![u8::try_from(word.len()).expect("short")];
        rdata.extend_from_slice(word.as_bytes());
        let reply = reply_to(&query.octets, TXT, &[rdata]);
        vec![if query.octets.get(13) == Some(&b's') { Act::Hold(reply) } else { Act::Send(reply) }]
    })
}

/// Two scripted backends, a cache, and a tenant that asks the second.
fn scripted_config(plain: &Scripted, filtered: &Scripted, tenants: &str) -> Config {
    Config::new()
        .xdp("off")
        .set("dns", "cache_entries", "1000")
        .set("dns", "cache_ttl_min", "\"1h\"")
        .backend_with(plain.address, "name = \"plain\"\ntimeout = \"30s\"")
        .backend_with(filtered.address, "name = \"filtered\"\ntimeout = \"1s\"")
        .tables(tenants)
}

const FAMILY: &str =
    "[[tenant]]\nname = \"family\"\nserver_names = [\"family.dot.example\"]\nbackends = [\"filtered\"]\n";

/// The questions that clients sent, not health checks.
fn asked(backend: &Scripted) -> usize {
    backend.received().len()
}

/// Goal: two tenants share neither an answer nor a query in flight for one name, and two clients of one tenant share both; while the
/// backend of one tenant is down, its clients get SERVFAIL or what its own cache has, no query of theirs reaches another's backend, and
/// others are served. Method: scripted backends that say who they are; the plain one holds its answer to a name while the tenant asks
/// the same name.
#[test]
fn tenants_share_no_query_and_no_backend() {
    require!(Root);
    let network = Network::new();
    let (plain, filtered) = (saying(&network, "everybody"), saying(&network, "family"));
    let dotd = Server::start(&network, &scripted_config(&plain, &filtered, FAMILY));
    let open = |name| session(&network, SERVER_V4, name);
    let [mut one, mut two] = [open(Some("family.dot.example")), open(Some("family.dot.example"))];
    let mut other = open(None);
    other.ask(&query(1, "slow.test", TXT));
    eventually("the plain backend holds the query", || (plain.held() == 1).then_some(()));
    for session in [&mut one, &mut two] {
        session.ask(&query(2, "slow.test", TXT));
    }
    eventually("the tenant's backend has it too", || (filtered.held() == 1).then_some(()));
    dotd.counts("one of the tenant's two clients waits for the other's query", |stats| {
        stats.counter("queries", "joined") == 1
    });
    filtered.release();
    for session in [&mut one, &mut two] {
        assert_eq!(session.receive().rdata(TXT), [b"\x06family"]);
    }
    assert_eq!(plain.held(), 1, "the other client still waits for its own");
    plain.release();
    assert_eq!(other.receive().rdata(TXT), [b"\x09everybody"]);
    assert_eq!([asked(&plain), asked(&filtered)], [1, 1]);
    filtered.be(Mood::Deaf);
    assert_eq!(who(&mut one, "slow.test"), "\x06family", "its cache has it");
    assert_eq!(one.exchange(&query(3, "new.test", TXT)).rcode(), SERVFAIL);
    assert_eq!(who(&mut other, "new.test"), "\x09everybody");
    assert_eq!(two.exchange(&query(4, "new.test", TXT)).rcode(), SERVFAIL);
    assert_eq!(asked(&plain), 2, "no query of the tenant's");
}

/// Goal: a reload gives an open session its tenant's other backends, makes it a client of no tenant when its tenant goes, and keeps the
/// cache of a tenant that has not changed; an upgrade keeps a session's tenant, which it has by a name. Method: sessions that stay open
/// over three reloads and an upgrade.
#[test]
fn an_open_session_keeps_its_tenant_or_gets_a_new_one() {
    require!(Root);
    let network = Network::new();
    let (plain, filtered) = (saying(&network, "everybody"), saying(&network, "family"));
    let tenants = |family: &str, more: &str| {
        scripted_config(&plain, &filtered, &format!("{}{more}", FAMILY.replace("filtered", family)))
    };
    let more = format!("[[tenant]]\nname = \"home\"\nprefixes = [\"{CLIENT_V6}/128\"]\n");
    let config = tenants("filtered", &more).set("server", "user", "\"nobody\"");
    let mut dotd = Server::start(&network, &config);
    let mut family = session(&network, SERVER_V4, Some("family.dot.example"));
    let mut home = session(&network, SERVER_V6, None);
    assert_eq!([who(&mut family, "a.test"), who(&mut home, "a.test")], ["\x06family", "\x09everybody"]);
    let before = dotd.pid();
    assert!(dotd.operate(&["upgrade"]).is_success, "{}", dotd.stderr());
    assert_ne!(dotd.pid(), before);
    assert_eq!([who(&mut family, "b.test"), who(&mut home, "b.test")], ["\x06family", "\x09everybody"]);
    let moved = dotd.stats();
    assert_eq!(moved.counter("connections", "adopted"), 2, "neither was closed");
    assert!(dotd.operate(&["explain", &CLIENT_V4.to_string()]).has(", tenant family"));
    let reload = |dotd: &mut Server, config: &Config, what: &str| {
        dotd.rewrite_config(&config.clone().set("server", "user", "\"nobody\""));
        assert!(dotd.operate(&["reload"]).is_success, "{what}: {}", dotd.stderr());
    };
    reload(&mut dotd, &tenants("plain", &more), "other backends");
    eventually("the session asks the new backend", || {
        (who(&mut family, "b.test") == "\x09everybody").then_some(())
    });
    reload(&mut dotd, &tenants("filtered", &more), "back");
    eventually("the session asks the old backend", || {
        (who(&mut family, "b.test") == "\x06family").then_some(())
    });
    let before = asked(&filtered);
    reload(
        &mut dotd,
        &tenants("filtered", &(more.clone() + "queries_burst = 7\n")),
        "the other tenant has changed",
    );
    assert_eq!(
        (who(&mut family, "b.test").as_str(), asked(&filtered)),
        ("\x06family", before),
        "its cache is kept"
    );
    reload(
        &mut dotd,
        &scripted_config(&plain, &filtered, "").set("balance", "policy", "\"first\""),
        "no tenant",
    );
    eventually("nobody's client", || (who(&mut family, "e.test") == "\x09everybody").then_some(()));
    assert!(!dotd.operate(&["explain", &CLIENT_V4.to_string()]).has("tenant"));
}

/// Goal: clients behind one address that show names have a rate each, which others there cannot use up; a name that may ask from one
/// network only is refused elsewhere. Method: the address' own rate is used up by a client without a name; two names with bursts of
/// twenty.
#[test]
fn names_behind_one_address_have_rates_of_their_own() {
    require!(Root);
    let network = Network::new();
    let tenant = |name: &str, more: &str| {
        format!("[[tenant]]\nname = \"{name}\"\nserver_names = [\"{name}.dot.example\"]\n{more}\n")
    };
    let by_name = "queries_per_second = 1\nqueries_burst = 20\nqueries_by = \"name\"";
    let tenants =
        tenant("anna", by_name) + &tenant("bert", by_name) + &tenant("home", "allow = [\"10.99.0.0/16\"]");
    let config = Config::new()
        .xdp("off")
        .set("session", "queries_per_second", "1")
        .set("session", "queries_burst", "5")
        .tables(&tenants);
    let dotd = Server::start(&network, &config);
    let refused = |name: Option<&'static str>, count: u16| {
        let mut session = session(&network, SERVER_V4, name);
        let rcodes = (0..count).map(|id| session.exchange(&query(id, "dotd.test", A)).rcode());
        rcodes.filter(|rcode| *rcode == REFUSED).count()
    };
    assert_eq!(refused(Some("home.dot.example"), 3), 3);
    assert_eq!(dotd.stats().counter("tenants", "not_allowed"), 3);
    eventually("operators hear why", || {
        dotd.operate(&["explain", &CLIENT_V4.to_string()]).has("(tenant.allow)").then_some(())
    });
    assert!(refused(None, 60) > 0, "the address has used up its rate");
    assert_eq!([refused(Some("anna.dot.example"), 20), refused(Some("bert.dot.example"), 20)], [0, 0]);
    assert!(refused(Some("anna.dot.example"), 60) > 0, "over two sessions");
    assert!(dotd.stats().counter("tenants", "queries_refused") > 0);
}

/// Goal: the answer to a datagram that was in flight at a reload is changed by the zones of its client's tenant, which has another place
/// in the list now, and not by those of the tenant at its old place. Method: a backend holds the answer while a tenant with a zone takes
/// the first place; a name that is blocked by then shows that the reload is done.
#[test]
fn a_datagram_in_flight_keeps_its_tenant() {
    require!(Root);
    let network = Network::new();
    let plain = Scripted::start(&network, |query| {
        let reply = reply_to(&query.octets, A, &[vec![192, 0, 2, 66]]);
        vec![if query.octets.get(13) == Some(&b's') { Act::Hold(reply) } else { Act::Send(reply) }]
    });
    let scratch = Scratch::new();
    let apex = "$TTL 60\n@ SOA localhost. root.localhost. 7 3600 600 86400 60\n@ NS localhost.\n";
    scratch.write("address", format!("{apex}32.66.2.0.192.rpz-ip CNAME .\n"));
    scratch.write("name", format!("{apex}done.test CNAME .\n"));
    let home = format!("[[tenant]]\nname = \"home\"\nprefixes = [\"{CLIENT_V4}/32\"]\n");
    let config = |tenants: &str| {
        Config::new()
            .xdp("off")
            .set("listen", "do53", "[\"0.0.0.0:53\"]")
            .backend_with(plain.address, "timeout = \"30s\"")
            .tables(tenants)
    };
    let dotd = Server::launch(&network, &config(&home), scratch, &[]);
    let socket = udp(&network.client, SocketAddr::new(SERVER_V4, 53));
    let send = |id, name| socket.send(&query(id, name, A)).expect("sent");
    let receive = || {
        let mut octets = [0; 1500];
        let length = uninterrupted(|| socket.recv(&mut octets)).expect("an answer");
        Message::parse(&octets[..length]).expect("whole")
    };
    send(1, "slow.test");
    eventually("the backend holds the query", || (plain.held() == 1).then_some(()));
    let other = "[[tenant]]\nname = \"other\"\nprefixes = [\"198.51.100.0/24\"]\n";
    let zone = |name: &str, tenant: &str| {
        format!("[[policy.zone]]\nname = \"{name}.lab\"\nfile = \"{name}\"\ntenants = [\"{tenant}\"]\n")
    };
    let zones = zone("address", "other") + &zone("name", "home");
    dotd.rewrite_config(&config(&format!("{other}{home}{zones}")));
    assert!(dotd.operate(&["reload"]).is_success, "{}", dotd.stderr());
    eventually("the reload is done where this client is served", || {
        send(2, "done.test");
        (receive().rcode() == NXDOMAIN).then_some(())
    });
    plain.release();
    let answer = receive();
    assert_eq!((answer.id, answer.rcode()), (1, 0));
    assert_eq!(answer.rdata(A), [[192, 0, 2, 66]]);
}
