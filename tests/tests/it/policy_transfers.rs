//! Policy zones that are transferred from real primary servers: whole and by differences, signed, over TLS, kept over a restart.
//!
//! Before: NSD, BIND or Knot has a response policy zone. After: clients hear what it says, and operators how it stands.

use std::{fs, net::SocketAddr};

use dot_tests::{
    harness::{
        backends::Backend,
        clients::udp,
        config::Config,
        dot::Dot,
        eventually,
        message::{A, OPTION_EDE, Opt, Query, SOA},
        netns::{Network, SERVER_V4},
        pki::Authority,
        primaries::{Primary, TLS_PORT, Wishes, ZONE},
        response::Message,
        scratch::Scratch,
        server::Server,
        servers::{KEY_NAME, KEY_SECRET, Kind},
        uninterrupted,
    },
    require,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const NXDOMAIN: u16 = 3;
const REFUSED: u16 = 5;
const PORT: u16 = 5350;

/// A zone with this serial and these times, and a rule for each of these names.
fn zone(serial: u32, times: &str, names: &[&str]) -> String {
    let rules: String = names.iter().map(|name| format!("{name}.dotd.test CNAME .\n")).collect();
    // So many that a transfer takes several messages.
    let others: String = (0..OTHERS).map(|number| format!("n{number}.other.test CNAME *.\n")).collect();
    format!("$TTL 60\n@ SOA localhost. root.localhost. {serial} {times} 60\n@ NS localhost.\n{rules}{others}")
}

/// Rules of each zone about names that no test asks for.
const OTHERS: u64 = 5000;

/// Times that never come in a test.
const LONG: &str = "3600 600 86400";

/// `[[policy.zone]]` with this primary server.
fn config(primary: &str) -> Config {
    Config::new()
        .xdp("off")
        .set("listen", "do53", "[\"0.0.0.0:53\"]")
        .backend(SocketAddr::from(([127, 0, 0, 1], 5300)))
        .set("policy", "zone", &format!("[{{ name = \"{ZONE}\", primary = [{{ {primary} }}] }}]"))
}

fn by_tcp() -> Config {
    config(&format!("address = \"127.0.0.1:{PORT}\", tsig = \"rpz.key\""))
}

/// Files of keys, right and wrong.
fn with_key(secret: &str) -> Scratch {
    let scratch = Scratch::new();
    scratch.write("rpz.key", key_file(secret));
    scratch
}

fn key_file(secret: &str) -> String {
    format!("key \"{KEY_NAME}\" {{\n\talgorithm hmac-sha256;\n\tsecret \"{secret}\";\n}};\n")
}

fn rcode(session: &mut Dot, name: &str) -> u16 {
    session.exchange(&Query::new(1, &format!("{name}.dotd.test"), A).opt(Opt::default()).octets()).rcode()
}

fn seen(dotd: &Server) -> Value {
    dotd.status()["policy"][0].clone()
}

/// Waits until the zone has this serial.
fn has_serial(dotd: &Server, serial: u32) -> Value {
    eventually(&format!("version {serial}"), || Some(seen(dotd)).filter(|zone| zone["serial"] == serial))
}

/// Goal: a zone comes whole at first, and by differences when its server tells of a newer version by a signed NOTIFY; rules that went
/// hold no more, and those that came do, within a session that goes on; a restart has the zone without its server. Method: NSD,
/// BIND and Knot each. Covers: C-562, C-565, C-566, A-561, A-562
#[test]
fn a_zone_follows_its_primary() {
    require!(Root, Command("nsd"), Command("named"), Command("knotd"));
    for kind in [Kind::Nsd, Kind::Bind, Kind::Knot] {
        let network = Network::new();
        let _backend = Backend::nsd(&network, 5300);
        let wishes = Wishes { notifies: true, ..Wishes::default() };
        let primary = Primary::start(kind, &network, PORT, &zone(7, LONG, &["host-1", "host-2"]), &wishes);
        let dotd = Server::launch(&network, &by_tcp(), with_key(KEY_SECRET), &[]);
        let first = has_serial(&dotd, 7);
        assert_eq!(
            (&first["rules"], &first["transfer"]["method"]),
            (&(OTHERS + 2).into(), &"axfr".into()),
            "{kind:?}"
        );
        let mut session = Dot::connect(&network.client, SERVER_V4);
        let hears = |session: &mut Dot| ["host-1", "host-2", "host-3"].map(|name| rcode(session, name));
        eventually("the first version", || (hears(&mut session) == [NXDOMAIN, NXDOMAIN, 0]).then_some(()));
        primary.serve(&zone(8, LONG, &["host-2", "host-3"]));
        let second = has_serial(&dotd, 8);
        eventually("the second version", || (hears(&mut session) == [0, NXDOMAIN, NXDOMAIN]).then_some(()));
        assert_eq!(
            (&second["rules"], &second["transfer"]["method"]),
            (&(OTHERS + 2).into(), &"ixfr".into()),
            "{kind:?}"
        );
        let shown = dotd.operate(&["policy"]);
        assert!(shown.has("the last by ixfr from 127.0.0.1:5350, 5004 records"), "{}", shown.text);
        let tested = dotd.operate(&["policy", "test", "host-3.dotd.test"]);
        assert!(tested.has("state/policy-rpz.lab.zone:"), "{}", tested.text);
        let stats = dotd.counts("the NOTIFY is counted", |stats| stats.counter("policy", "notified") >= 1);
        assert_eq!(stats.counter("policy", "notify_refused"), 0);
        drop(primary);
        let mut dotd = dotd;
        dotd.signal(Signal::SIGTERM);
        let (_, scratch) = dotd.wait();
        let dotd = Server::launch(&network, &by_tcp(), scratch, &[]);
        assert_eq!(seen(&dotd)["serial"], 8, "{kind:?}");
        let mut session = Dot::connect(&network.client, SERVER_V4);
        assert_eq!(hears(&mut session), [0, NXDOMAIN, NXDOMAIN]);
        let failing =
            eventually("the server is gone", || seen(&dotd)["transfer"]["error"].as_str().map(str::to_owned));
        assert!(failing.contains("127.0.0.1:5350: not connected"), "{failing}");
    }
}

/// Goal: with another secret nothing is transferred, and the operator hears why; the right one in the same file is used after a
/// reload; a newer version that has a mistake is not used, and the one before stays. Covers: A-563, C-560
#[test]
fn a_wrong_key_changes_nothing() {
    require!(Root, Command("nsd"), Command("named"));
    for kind in [Kind::Nsd, Kind::Bind] {
        let network = Network::new();
        let _backend = Backend::nsd(&network, 5300);
        let wishes = Wishes { notifies: true, ..Wishes::default() };
        let primary = Primary::start(kind, &network, PORT, &zone(7, LONG, &["host-1"]), &wishes);
        let other = "b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3Q=";
        let dotd = Server::launch(&network, &by_tcp(), with_key(other), &[]);
        let why = eventually("the refusal", || seen(&dotd)["transfer"]["error"].as_str().map(str::to_owned));
        assert!(why.contains("BADSIG"), "{kind:?}: {why}");
        assert_eq!((seen(&dotd)["rules"].as_u64(), seen(&dotd)["serial"].as_u64()), (Some(0), None));
        let shown = dotd.operate(&["policy"]);
        assert!(shown.has("NOT TRANSFERRED: ") && shown.has("no version yet"), "{}", shown.text);
        dotd.write("rpz.key", key_file(KEY_SECRET));
        assert!(dotd.operate(&["reload"]).is_success);
        has_serial(&dotd, 7);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        eventually("the rules", || (rcode(&mut session, "host-1") == NXDOMAIN).then_some(()));
        primary.serve(&(zone(8, LONG, &["host-2"]) + "x.dotd.test CNAME rpz-nonsense.\n"));
        let why = eventually("the mistake", || seen(&dotd)["transfer"]["error"].as_str().map(str::to_owned));
        assert!(why.contains("rpz-nonsense is not a known action"), "{why}");
        assert_eq!((rcode(&mut session, "host-1"), seen(&dotd)["serial"].as_u64()), (NXDOMAIN, Some(7)));
        let left = fs::read_dir(dotd.folder().join("state")).expect("its folder").flatten();
        let drafts = left.filter(|entry| entry.file_name().to_string_lossy().contains(".zone."));
        assert_eq!(drafts.count(), 0, "a draft was left behind");
        primary.serve(&zone(9, LONG, &["host-2"]));
        has_serial(&dotd, 9);
    }
}

/// Goal: over TLS the server is believed by its name or its pin, and not otherwise; the zone comes as over TCP. Method: BIND and NSD
/// with a certificate of an authority that dotd is told of. Covers: C-567, A-564
#[test]
fn a_zone_comes_over_tls_from_the_right_server() {
    require!(Root, Command("nsd"), Command("named"));
    let authority = Authority::new();
    let issued = authority.issue("primary.dotd.test");
    for kind in [Kind::Bind, Kind::Nsd] {
        let network = Network::new();
        let _backend = Backend::nsd(&network, 5300);
        let wishes = Wishes { certificate: Some(issued.clone()), ..Wishes::default() };
        let _primary = Primary::start(kind, &network, PORT, &zone(7, LONG, &["host-1"]), &wishes);
        let by_tls = |more: &str| {
            config(&format!(
                "address = \"127.0.0.1:{TLS_PORT}\", transport = \"tls\", tsig = \"rpz.key\", {more}"
            ))
        };
        let scratch = with_key(KEY_SECRET);
        scratch.write("ca.pem", authority.pem());
        let another = by_tls("server_name = \"other.dotd.test\", ca = \"ca.pem\"");
        let dotd = Server::launch(&network, &another, scratch, &[]);
        let why = eventually("the refusal", || seen(&dotd)["transfer"]["error"].as_str().map(str::to_owned));
        assert!(why.contains("TLS: "), "{kind:?}: {why}");
        assert_eq!(seen(&dotd)["rules"], 0);
        dotd.rewrite_config(&by_tls("server_name = \"primary.dotd.test\", ca = \"ca.pem\""));
        assert!(dotd.operate(&["reload"]).is_success);
        has_serial(&dotd, 7);
        fs::remove_file(dotd.folder().join("state/policy-rpz.lab.zone")).expect("the copy");
        dotd.rewrite_config(&by_tls(&format!("spki_pins = [\"{}\"]", issued.pin)));
        assert!(dotd.operate(&["reload"]).is_success);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        eventually("the rules", || (rcode(&mut session, "host-1") == NXDOMAIN).then_some(()));
    }
}

/// Goal: without NOTIFY the server is asked again when the refresh time is over; once none has confirmed the zone for its expire
/// time no rule applies, and the operator hears it; when the server is back, so is the zone. Covers: C-568, A-565
#[test]
fn a_zone_expires_without_its_primary() {
    require!(Root, Command("nsd"));
    let network = Network::new();
    let _backend = Backend::nsd(&network, 5300);
    let times = "1 1 6";
    let primary = Primary::start(Kind::Nsd, &network, PORT, &zone(7, times, &["host-1"]), &Wishes::default());
    let dotd = Server::launch(&network, &by_tcp(), with_key(KEY_SECRET), &[]);
    has_serial(&dotd, 7);
    primary.serve(&zone(8, times, &["host-2"]));
    has_serial(&dotd, 8);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    eventually("the rules", || (rcode(&mut session, "host-2") == NXDOMAIN).then_some(()));
    drop(primary);
    eventually("its end", || (seen(&dotd)["transfer"]["state"] == "expired").then_some(()));
    eventually("no rule applies", || (rcode(&mut session, "host-2") == 0).then_some(()));
    assert!(dotd.operate(&["policy"]).has("EXPIRED"));
    let _primary =
        Primary::start(Kind::Nsd, &network, PORT, &zone(8, times, &["host-2"]), &Wishes::default());
    assert!(dotd.operate(&["policy", "refresh", ZONE]).has("asked for: rpz.lab"));
    eventually("the rules are back", || (rcode(&mut session, "host-2") == NXDOMAIN).then_some(()));
    assert_eq!(seen(&dotd)["transfer"]["state"], "current");
    assert!(!dotd.operate(&["policy", "refresh", "other.lab"]).is_success);
}

/// Goal: a NOTIFY is taken from the zone's server alone, and answered with its own ID and question; from elsewhere, or about another
/// zone, it is refused as ever. Method: the client's host is no primary; loopback is. Covers: C-566, A-562
#[test]
fn a_notify_from_elsewhere_is_refused() {
    require!(Root, Command("nsd"));
    let network = Network::new();
    let _backend = Backend::nsd(&network, 5300);
    let _primary = Primary::start(Kind::Nsd, &network, PORT, &zone(7, LONG, &["host-1"]), &Wishes::default());
    let dotd = Server::launch(&network, &by_tcp(), with_key(KEY_SECRET), &[]);
    has_serial(&dotd, 7);
    let notify = |name: &str| {
        let mut octets = Query::new(9, name, SOA).opt(Opt::default()).octets();
        octets[2] = 4 << 3;
        octets
    };
    let from_client = udp(&network.client, SocketAddr::new(SERVER_V4, 53));
    let from_primary = udp(&network.server, SocketAddr::from(([127, 0, 0, 1], 53)));
    for (socket, name, expected) in
        [(&from_client, ZONE, REFUSED), (&from_primary, "other.lab", REFUSED), (&from_primary, "RPZ.lab", 0)]
    {
        socket.send(&notify(name)).expect("sent");
        let mut octets = [0; 512];
        let length = uninterrupted(|| socket.recv(&mut octets)).expect("an answer");
        let answer = Message::parse(&octets[..length]).expect("whole");
        assert_eq!((answer.id, answer.rcode(), answer.qname()), (9, expected, name.to_owned()));
        assert_eq!(octets[2], 0x80 | 4 << 3 | 4, "QR, opcode NOTIFY and AA");
        assert_eq!(answer.option(OPTION_EDE).is_some(), expected == REFUSED);
    }
    let stats = dotd.counts("every end is in the books", |stats| stats.difference() == [0; 3]);
    assert_eq!((stats.counter("policy", "notified"), stats.counter("policy", "notify_refused")), (1, 2));
}
