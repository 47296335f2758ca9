//! Clients by prefix: which of them get nothing, in the kernel half and through the real server.
//!
//! Before: prefixes in a map, or in `dotd.toml`. After: frames are dropped, with the list as the reason.

use dot_common::{
    settings::{Gate, Settings},
    verdict::{Reason, Verdict},
};
use dot_tests::{
    frames::{ACK, Build, CLEARTEXT_QUERY, CLIENT_HELLO, PSH, SYN, shapes},
    harness::{
        clients::{is_answered_over_tls, kdig, udp},
        config::Config,
        eventually,
        flood::Flood,
        netns::{CLIENT_INTERFACE, CLIENT_V4, CLIENT_V6, SERVER_V4, SERVER_V6, address},
        scene::embedded,
    },
    require,
    xdp_lab::{Lab, XDP_DROP, XDP_PASS, settings},
};
use nix::sys::signal::Signal;

/// A client that is on no list, beside [`CLIENT_V4`].
const NEIGHBOUR: &str = "10.53.0.77";

/// Goal: a denied client gets nothing: on no port, over no transport, with no arrangement of headers. Method: each
/// shape from a denied client and from its neighbour outside the prefix. Covers: C-11
#[test]
fn denied_clients_get_nothing() {
    let settings = Settings { deny: 3, ..settings(Gate::Pass) };
    let Some(mut lab) = Lab::open("denied_clients_get_nothing", &settings) else { return };
    lab.deny(address("198.51.100.64"), 26);
    lab.deny(address("2001:db8:5::"), 48);
    lab.deny(address("203.0.113.9"), 32);
    let clients = [
        ("198.51.100.64", true),
        ("198.51.100.127", true),
        ("198.51.100.128", false),
        ("198.51.100.63", false),
        ("203.0.113.9", true),
        ("203.0.113.8", false),
        ("2001:db8:5:ffff::1", true),
        ("2001:db8:6::1", false),
        ("2001:db8:4:ffff:ffff:ffff:ffff:ffff", false),
    ];
    let kinds = [
        Build::tcp(853, SYN, 1, &[]),
        Build::tcp(8853, PSH | ACK, 1, &CLIENT_HELLO),
        Build::tcp(53, ACK, 1, &[]),
        Build::udp(53, &CLEARTEXT_QUERY[2..]),
        Build::udp(853, b"quic?"),
    ];
    for (name, shape) in shapes() {
        for (client, is_denied) in clients {
            for kind in &kinds {
                let build = shape(kind.clone());
                if build.source().is_ipv6() != address(client).is_ipv6() {
                    continue;
                }
                let outcome = lab.judge(&build.client(address(client)).frame().octets);
                let found = outcome.verdict == Some(Verdict::drop(Reason::Denied));
                assert_eq!(found, is_denied, "{name}, {client}, {kind:?}: {outcome:?}");
                assert_eq!(outcome.action, if is_denied { XDP_DROP } else { XDP_PASS }, "{name}, {client}");
            }
        }
    }
}

/// Goal: a list is looked up for its own IP version alone, and not when the settings say that it is empty; packets to
/// other ports pass. Method: a table over the settings' bits.
#[test]
fn lists_are_asked_only_where_they_count() {
    let test = "lists_are_asked_only_where_they_count";
    let Some(mut lab) = Lab::open(test, &settings(Gate::Drop)) else { return };
    lab.deny(address("0.0.0.0"), 0);
    lab.deny(address("::"), 0);
    for deny in 0..4 {
        lab.set(&Settings { deny, ..settings(Gate::Drop) });
        for (build, bit) in [(Build::tcp(853, SYN, 1, &[]), 1), (Build::tcp(853, SYN, 1, &[]).v6(), 2)] {
            let wanted =
                if deny & bit != 0 { Verdict::drop(Reason::Denied) } else { Verdict::pass(Reason::Syn) };
            assert_eq!(lab.judge(&build.frame().octets).verdict, Some(wanted), "{deny} {bit}");
        }
        assert_eq!(lab.judge(&Build::tcp(443, SYN, 1, &[]).frame().octets).verdict, None);
    }
}

/// Goal: HUP denies a client and lets it in again, while its neighbours are served; a client that stays on the list is
/// refused all the time while the list changes. Method: kdig from both families; then a flood from a denied address
/// through thirty reloads that change its neighbours' entries: every frame is counted as denied.
#[test]
fn reload_changes_the_deny_list_without_a_gap() {
    require!(Root, Bpf, Command("kdig"));
    let (network, mut dotd) = embedded(&Config::new());
    let is_served =
        |server| is_answered_over_tls(&kdig(&network.client, server, "+tls +timeout=2 dotd.test A"));
    let deny = |prefixes: &str| Config::new().set("xdp", "deny", prefixes);
    assert!(is_served(SERVER_V4) && is_served(SERVER_V6));
    network.client.ip(&format!("address add {NEIGHBOUR}/24 dev {CLIENT_INTERFACE}"));

    dotd.rewrite_config(&deny(&format!("[\"{CLIENT_V4}/32\"]")));
    dotd.signal(Signal::SIGHUP);
    // A datagram to 53 is judged like all others, and needs no server that answers it.
    let probe = udp(&network.client, (SERVER_V4, 53).into());
    dotd.counts("the client is denied", |stats| {
        let _ = probe.send(&CLEARTEXT_QUERY[2..]);
        stats.packets("drop", "denied") > 0
    });
    assert!(!is_served(SERVER_V4), "a denied client was served");
    assert!(is_served(SERVER_V6), "the other family's client was denied");
    let neighbour = kdig(&network.client, SERVER_V4, &format!("-b {NEIGHBOUR} +tls dotd.test A"));
    assert!(is_answered_over_tls(&neighbour), "{}", neighbour.text);

    let before = dotd.stats();
    let frame = Build::tcp(853, SYN, 7, &[]).client(CLIENT_V4).server(SERVER_V4);
    let flood = Flood::start(&network, move |_| Some(frame.frame()));
    for round in 0..30 {
        let lists = [format!("[\"{CLIENT_V4}/32\"]"), format!("[\"{CLIENT_V4}/30\", \"{CLIENT_V6}/128\"]")];
        let both = format!("[\"{CLIENT_V4}/32\", \"198.51.100.{round}/32\"]");
        for list in [&both, &lists[round % 2]] {
            let reloads = dotd.stats().counter("control", "reloads_ok");
            dotd.rewrite_config(&deny(list));
            dotd.signal(Signal::SIGHUP);
            dotd.counts("the list changes", |stats| stats.counter("control", "reloads_ok") > reloads);
        }
    }
    assert!(flood.stop() > 0);
    let stats = dotd.stats();
    assert!(stats.packets("drop", "denied") > before.packets("drop", "denied"));
    assert_eq!(stats.packets("pass", "syn"), before.packets("pass", "syn"), "a denied SYN came through");

    dotd.rewrite_config(&Config::new());
    dotd.signal(Signal::SIGHUP);
    let let_in = || is_served(SERVER_V4).then_some(());
    eventually("the client is let in again", let_in);
    dotd.stop();
}
