//! The costs that a client causes decide about its next SYN: budgets of handshakes, and bans that the engine makes.
//!
//! Before: real handshakes, real garbage. After: XDP refuses a client that has spent too much, with a reason of its
//! own.

use std::{io::Write, net::TcpStream, time::Duration};

use dot_common::{
    settings::{Gate, Over, Settings},
    verdict::{Action, Reason, Verdict},
};
use dot_tests::{
    frames::{ACK, Build, CLEARTEXT_QUERY, CLIENT_HELLO, PSH, QUERY, SYN, shapes},
    harness::{
        DEADLINE,
        clients::{is_answered_over_tls, kdig, read_to_close},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query},
        netns::{CLIENT_INTERFACE, CLIENT_V4, Network, SERVER_V4, address},
        scene::embedded,
        server::Server,
    },
    require,
    xdp_lab::{Lab, settings},
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Goal: a client that has spent its budget begins no connection to a DoT port, in any shape of headers; the budget
/// does not affect packets of existing connections, packets to other ports, and clients on the allow list; after its
/// time is over it refuses no packet. Method: a table of frames from three clients.
#[test]
fn who_has_spent_its_budget_begins_nothing() {
    let spent = Settings { spent: 3, ..settings(Gate::Drop) };
    let Some(mut lab) = Lab::open("who_has_spent_its_budget_begins_nothing", &spent) else { return };
    for (client, until_ns) in [
        ("198.51.100.1", u64::MAX),
        ("198.51.100.2", 1),
        ("2001:db8:5:1700::1", u64::MAX),
        ("2001:db8:5:1900::1", 1),
    ] {
        lab.spend(address(client), until_ns);
    }
    let refused = Verdict::drop(Reason::HandshakeCost);
    let passes = Verdict::pass(Reason::Syn);
    for (name, shape) in shapes() {
        for (client, is_spent) in [
            ("198.51.100.1", true),
            ("198.51.100.2", false),
            ("198.51.100.3", false),
            ("2001:db8:5:17ff::9", true),
            ("2001:db8:5:1900::9", false),
        ] {
            for (build, wanted) in [
                (Build::tcp(853, SYN, 1, &[]), refused),
                (Build::tcp(8853, SYN, 1, &CLIENT_HELLO), refused),
                (Build::tcp(53, SYN, 1, &[]), passes),
                (Build::tcp(853, ACK, 1, &[]), Verdict::pass(Reason::Control)),
                (Build::tcp(853, PSH | ACK, 1, &CLIENT_HELLO), Verdict::pass(Reason::UnknownFlow)),
                (Build::udp(53, &QUERY), Verdict::pass(Reason::Do53Datagram)),
            ] {
                let build = shape(build);
                if build.source().is_ipv6() != address(client).is_ipv6() || (wanted == refused && !is_spent) {
                    continue;
                }
                let found = lab.judge(&build.client(address(client)).frame().octets).verdict;
                assert_eq!(found, Some(wanted), "{name}, {client}");
            }
        }
    }
    let syn =
        |client: &str, octets: &[u8]| Build::tcp(853, SYN, 1, octets).client(address(client)).frame().octets;
    assert_eq!(lab.judge(&syn("198.51.100.2", &[])).verdict, Some(passes), "its time is over");
    lab.set(&Settings { spent: 2, ..spent });
    assert_eq!(
        lab.judge(&syn("198.51.100.1", &[])).verdict,
        Some(passes),
        "no client of this version is reported"
    );
    lab.set(&Settings { over: Over::Count as u8, ..spent });
    let would = Verdict { action: Action::WouldDrop, reason: Reason::HandshakeCost };
    assert_eq!(lab.judge(&syn("198.51.100.1", &[])).verdict, Some(would));
    let gated = lab.judge(&syn("198.51.100.1", &CLEARTEXT_QUERY)).verdict;
    assert_eq!(gated, Some(Verdict::drop(Reason::CleartextOnDot)), "a limit that counts opens no gate");
    lab.allow(address("198.51.100.0"), 24);
    lab.set(&Settings { allow: 1, ..spent });
    assert_eq!(lab.judge(&syn("198.51.100.1", &[])).verdict, Some(Verdict::pass(Reason::Allowed)));
}

fn serves(network: &Network, words: &str) -> bool {
    is_answered_over_tls(&kdig(&network.client, SERVER_V4, &format!("{words} +tls +timeout=2 dotd.test A")))
}

const NEIGHBOUR: &str = "10.53.0.77";

fn add_neighbour(network: &Network) {
    network.client.ip(&format!("address add {NEIGHBOUR}/24 dev {CLIENT_INTERFACE}"));
}

/// Goal: a client whose handshakes cost more than its budget is refused at its next SYN, before the engine sees a
/// connection, until it has some budget again; others are served; without a limit it is served at once. Method: kdig
/// makes full handshakes at a budget of one a second, ten at once, until one is refused; then from a neighbour; then
/// HUP.
#[test]
fn real_handshakes_spend_a_budget() {
    require!(Root, Bpf, Command("kdig"));
    let (network, mut dotd) = embedded(&Config::new().limits(&[("handshake_cost_per_second", "1")]));
    add_neighbour(&network);
    let mut served = 0;
    eventually("the budget is spent", || {
        served += u32::from(serves(&network, ""));
        (dotd.stats().packets("drop", "cost") > 0).then_some(())
    });
    assert!(served >= 10, "the burst was refused: {served} served");
    let accepted = dotd.stats().counter("connections", "accepted");
    // The neighbour's handshakes are charged to its own budget.
    assert!(serves(&network, &format!("-b {NEIGHBOUR}")), "the neighbour pays for it");
    assert_eq!(dotd.stats().counter("connections", "accepted"), accepted + 1);
    assert!(dotd.operate(&["xdp", "show"]).has("budgets spent so far: "), "it is shown");
    eventually("it is served again", || serves(&network, "").then_some(()));

    eventually("the budget is spent again", || (!serves(&network, "")).then_some(()));
    dotd.rewrite_config(&Config::new());
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 1);
    let refused = dotd.stats().packets("drop", "cost");
    for _ in 0..20 {
        assert!(serves(&network, ""), "refused without a limit");
    }
    assert_eq!(dotd.stats().packets("drop", "cost"), refused);
    dotd.stop();
}

/// Goal: after an operator switches the budget of handshakes off, it refuses no client any more, also while wider prefixes have
/// budgets. Method: kdig until its budget is spent; HUP with no such budget, but with those of wider prefixes.
#[test]
fn a_budget_that_is_switched_off_refuses_nobody() {
    require!(Root, Bpf, Command("kdig"));
    let wide = [("wide_cost_per_second", "1000"), ("wide_connections_per_second", "1000")];
    let config = Config::new().limits(&wide);
    let (network, mut dotd) = embedded(&config.clone().limits(&[("handshake_cost_per_second", "1")]));
    let explained = |dotd: &Server| dotd.operate(&["explain", &CLIENT_V4.to_string()]);
    eventually("the budget is spent", || {
        let _ = serves(&network, "");
        explained(&dotd).has("spent: new connections are dropped").then_some(())
    });
    dotd.rewrite_config(&config);
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 1);
    let refused = dotd.stats().packets("drop", "cost");
    assert!(!explained(&dotd).has("spent: new connections are dropped"), "{}", explained(&dotd).text);
    assert!(serves(&network, ""), "refused by a budget that is off");
    assert_eq!(dotd.stats().packets("drop", "cost"), refused);
    dotd.stop();
}

/// Goal: where limits only count, a spent budget refuses no client and counts the SYNs that it would have refused.
/// Method: kdig until `would_drop` counts, and beyond.
#[test]
fn budgets_that_only_count_refuse_nobody() {
    require!(Root, Bpf, Command("kdig"));
    let (network, dotd) =
        embedded(&Config::new().limits(&[("handshake_cost_per_second", "1"), ("mode", "\"count\"")]));
    eventually("the budget would be spent", || {
        assert!(serves(&network, ""));
        (dotd.stats().packets("would_drop", "cost") > 0).then_some(())
    });
    assert_eq!(dotd.stats().packets("drop", "cost"), 0);
    dotd.stop();
}

/// Sends garbage to a DoT port, and waits until the server closes; sends nothing if the connection is refused.
fn garbage(network: &Network) {
    let connect = || TcpStream::connect_timeout(&(SERVER_V4, 853).into(), Duration::from_secs(2));
    let Ok(mut stream) = network.client.run(connect) else { return };
    stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    let _ = read_to_close(&mut stream);
}

fn causes(dotd: &Server) -> Vec<String> {
    let said = dotd.operate(&["ban", "list", "--json"]);
    let rows: Value =
        serde_json::from_str(&said.text).unwrap_or_else(|error| panic!("{error}: {}", said.text));
    let rows = rows.as_array().expect("a list").iter();
    rows.map(|row| row["cause"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Goal: who sends garbage again and again is banned for a while, by a cause that says so; a network of clients behind
/// one address, of which some fail, is not, and neither is a client on the allow list. A session of another client behind the
/// banned address goes on. Method: HTTP on 853 with the gate open, fewer times than it takes, then more; a session from
/// before the ban asks again.
#[test]
fn garbage_again_and_again_is_banned() {
    require!(Root, Bpf, Command("kdig"));
    let config = Config::new().limits(&[("ban_seconds", "3600")]).set("xdp", "cleartext_853", "\"pass\"");
    let (network, mut dotd) = embedded(&config);
    add_neighbour(&network);
    for _ in 0..40 {
        garbage(&network);
    }
    assert!(serves(&network, ""));
    assert!(causes(&dotd).is_empty(), "forty failures at once are a carrier's NAT after a restart");

    dotd.rewrite_config(&config.clone().set("xdp", "allow", &format!("[\"{CLIENT_V4}/32\"]")));
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 1);
    let accepted = dotd.stats().counter("handshakes", "failed_not_tls");
    for _ in 0..150 {
        garbage(&network);
    }
    dotd.counts("all are charged", |stats| stats.counter("handshakes", "failed_not_tls") == accepted + 150);
    assert!(serves(&network, "") && causes(&dotd).is_empty(), "a client on the allow list was banned");
    // Charges that are on their way at the reload may be enough for a ban.
    let query = |id| Query::new(id, "dotd.test", A).octets();
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&query(1)).rcode(), 0);

    dotd.rewrite_config(&config);
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 2);
    let first = eventually("the client is banned", || {
        (0..10).for_each(|_| garbage(&network));
        causes(&dotd).first().cloned()
    });
    assert_eq!(first, "garbage");
    assert_eq!(session.exchange(&query(2)).rcode(), 0, "a session that stood when the ban began");
    assert!(!serves(&network, ""), "a banned client was served");
    assert!(serves(&network, &format!("-b {NEIGHBOUR}")), "its neighbour was not served");
    assert!(dotd.stats().packets("drop", "banned") > 0);
    assert!(!dotd.stderr().contains(&CLIENT_V4.to_string()), "its address is in the log: {}", dotd.stderr());
    dotd.stop();
}
