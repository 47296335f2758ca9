//! Limits and bans at three prefix lengths: host, client prefix, wider prefix.
//!
//! Before: the loader says which networks are banned, have spent a budget, or have a proof. After: a host with a proof is a
//! client of its own within its networks, up to a multiple of their budgets.
//! Never: lets the clock decide.

use std::net::IpAddr;

use dot_common::{
    ban::{Ban, Cause},
    network::Network,
    proof::Proof,
    settings::{Gate, Settings},
    spent::Spent,
    verdict::{Reason, Verdict},
};
use dot_tests::{
    frames::{ACK, Build, SYN},
    harness::{
        clients::{is_answered_over_tls, kdig},
        config::Config,
        eventually,
        netns::{CLIENT_INTERFACE, SERVER_V4, address},
        scene::embedded,
    },
    require,
    xdp_lab::{Lab, settings},
};

const EVER: u64 = u64::MAX;

fn syn(client: IpAddr) -> Vec<u8> {
    let syn = Build::tcp(853, SYN, 1, &[]);
    let syn = if client.is_ipv6() { syn.v6() } else { syn };
    syn.client(client).frame().octets
}

fn verdict(lab: &mut Lab, client: &str) -> Option<Verdict> {
    lab.judge(&syn(address(client))).verdict
}

/// Goal: while a network has spent its budget, SYNs of its hosts are refused, but for a host with a proof; once it has spent
/// the multiple, those of all are. What a host spent itself its proof does not excuse. Other networks notice nothing.
/// Method: each level of both IP versions, spent to each degree; a host with a proof, one without, a neighbour outside.
///
#[test]
fn a_host_with_a_proof_is_a_client_of_its_own() {
    let judged = Settings { spent: 3, spent_wide: 3, ..settings(Gate::Drop) };
    let Some(mut lab) = Lab::open("a_host_with_a_proof_is_a_client_of_its_own", &judged) else { return };
    let (passes, cost) = (Verdict::pass(Reason::Syn), Verdict::drop(Reason::HandshakeCost));
    let wide = Verdict::drop(Reason::WideCost);
    for (level, [proven, newcomer, outside], bits, reason) in [
        ("/24", ["198.51.100.1", "198.51.100.2", "198.51.101.2"], (24, 64), wide),
        ("/56", ["2001:db8:5:1701::1", "2001:db8:5:1702::1", "2001:db8:5:1800::1"], (32, 56), cost),
        ("/48", ["2001:db8:6:1701::1", "2001:db8:6:2702::1", "2001:db8:7:1700::1"], (32, 48), wide),
    ] {
        let network = Network::of(address(proven), bits.0, bits.1);
        lab.prove(address(proven), Proof::proven(EVER));
        for (spent, of_proven, of_newcomer) in [
            (Spent::default(), passes, passes),
            (Spent { until_ns: EVER, all_until_ns: 0 }, passes, reason),
            (Spent { until_ns: EVER, all_until_ns: EVER }, reason, reason),
            (Spent { until_ns: 1, all_until_ns: 1 }, passes, passes),
        ] {
            lab.spend_network(network, spent);
            assert_eq!(verdict(&mut lab, proven), Some(of_proven), "{level}, {spent:?}, with a proof");
            assert_eq!(verdict(&mut lab, newcomer), Some(of_newcomer), "{level}, {spent:?}, without");
            assert_eq!(verdict(&mut lab, outside), Some(passes), "{level}, {spent:?}, outside");
        }
        lab.spend_network(Network::of_host(address(proven)), Spent { until_ns: EVER, all_until_ns: 0 });
        assert_eq!(verdict(&mut lab, proven), Some(cost), "{level}: what it spent itself");
        assert_eq!(verdict(&mut lab, newcomer), Some(passes), "{level}: what another host spent");
    }
    lab.spend_network(
        Network::of(address("198.51.100.1"), 24, 64),
        Spent { until_ns: EVER, all_until_ns: 0 },
    );
    lab.set(&Settings { spent: 3, spent_wide: 2, ..judged });
    assert_eq!(verdict(&mut lab, "198.51.100.2"), Some(passes), "no wider prefix of IPv4 has spent anything");
    lab.set(&Settings { spent: 3, spent_wide: 3, wide_v4: 32, ..judged });
    assert_eq!(verdict(&mut lab, "198.51.100.2"), Some(passes), "there is no wider prefix");
}

/// Goal: the proof of an IPv6 host is its own: over the rate of SYN its connections pass while those of others of its client
/// prefix do not, also when the prefix completes too many. Method: SYNs of two hosts of one /56 at a rate of one an hour.
///
#[test]
fn a_proof_is_a_hosts_own() {
    let hour = dot_common::rate::Rate { period_ns: 3_600_000_000_000, tolerance_ns: 0 };
    let limited = Settings { syn: hour, has_cookies: 1, ..settings(Gate::Drop) };
    let Some(mut lab) = Lab::open("a_proof_is_a_hosts_own", &limited) else { return };
    let (proven, newcomer) = ("2001:db8:5:1701::1", "2001:db8:5:1702::1");
    lab.prove(address(proven), Proof::proven(EVER));
    assert_eq!(verdict(&mut lab, newcomer), Some(Verdict::pass(Reason::Syn)), "the rate's one SYN");
    assert_eq!(verdict(&mut lab, newcomer), Some(Verdict::pass(Reason::Unproven)));
    assert_eq!(verdict(&mut lab, proven), Some(Verdict::pass(Reason::Proven)));
    lab.prove_network(Network::of(address(proven), 32, 56), Proof::excessive(EVER));
    assert_eq!(
        verdict(&mut lab, newcomer),
        Some(Verdict::drop(Reason::DotSynRate)),
        "its prefix is excessive"
    );
    assert_eq!(verdict(&mut lab, proven), Some(Verdict::pass(Reason::Proven)), "which is not its doing");
    lab.prove(address(proven), Proof::excessive(EVER));
    assert_eq!(verdict(&mut lab, proven), Some(Verdict::drop(Reason::DotSynRate)), "now it is");
    lab.set(&Settings { has_cookies: 0, ..limited });
    lab.prove(address(proven), Proof::proven(EVER));
    assert_eq!(verdict(&mut lab, proven), Some(Verdict::pass(Reason::Proven)), "without cookies too");
}

/// Goal: a ban holds for its own network, whatever its length, and the longest that is banned gets the hits; a host that is
/// banned takes no other client of its prefix with it. Method: bans of each level, and of all at once, of both causes.
///
#[test]
fn bans_hold_at_each_level() {
    let judged = Settings { bans: 3, ..settings(Gate::Pass) };
    let Some(mut lab) = Lab::open("bans_hold_at_each_level", &judged) else { return };
    let mut serial = 0;
    for ([host, client, wide, outside], cause) in [
        (
            ["2001:db8:5:1701::1", "2001:db8:5:1702::1", "2001:db8:5:2701::1", "2001:db8:6:1701::1"],
            Cause::Garbage,
        ),
        (["198.51.100.1", "198.51.100.1", "198.51.100.2", "198.51.101.1"], Cause::Operator),
    ] {
        let levels = [(32, 64), (32, 56), (24, 48)].map(|(v4, v6)| Network::of(address(host), v4, v6));
        for (level, banned) in levels.into_iter().enumerate() {
            if level == 1 && levels[0] == levels[1] {
                continue;
            }
            lab.lift_bans();
            serial += 1;
            lab.ban_network(banned, &Ban { until_ns: EVER, cause: cause as u32, serial, ..Ban::default() });
            let mut hits = 0;
            for (at, who) in [host, client, wide, outside].into_iter().enumerate() {
                let is_in = at <= level || address(who) == address(host);
                let found = verdict(&mut lab, who) == Some(Verdict::drop(Reason::Banned));
                assert_eq!(found, is_in, "{who}, while {banned} is banned");
                hits += u64::from(is_in);
            }
            assert_eq!(lab.banned_network(banned).expect("it is there").hits, hits, "{banned}");
        }
        for (level, banned) in levels.into_iter().enumerate() {
            let serial = serial + 1 + level as u16;
            lab.ban_network(banned, &Ban { until_ns: EVER, cause: cause as u32, serial, ..Ban::default() });
        }
        serial += 3;
        let ack = Build::tcp(853, ACK, 1, &[]);
        let ack = if address(host).is_ipv6() { ack.v6() } else { ack }.client(address(host));
        lab.judge(&ack.frame().octets);
        for _ in 0..3 {
            assert_eq!(verdict(&mut lab, host), Some(Verdict::drop(Reason::Banned)));
        }
        let hits = levels.map(|network| lab.banned_network(network).expect("it is there").hits);
        let own = if cause == Cause::Operator { 4 } else { 3 };
        assert_eq!((hits[0], hits[2]), (own, 0), "{host}: {hits:?}");
        lab.lift_bans();
    }
}

/// Goal: an operator's ban refuses every packet of its network, also of a host or prefix that the engine banned: an offender
/// does not earn its open connections back with an offence. Method: for each pair of levels the operator's ban at the one and
/// the engine's at the other, both IP versions; a SYN and an ACK, which only the operator's refuses, from inside both and from
/// the rest of the operator's.
#[test]
fn an_operators_ban_is_not_weakened_by_the_engines() {
    let judged = Settings { bans: 3, wide_v4: 16, prefix_v4: 24, ..settings(Gate::Pass) };
    let Some(mut lab) = Lab::open("an_operators_ban_is_not_weakened_by_the_engines", &judged) else { return };
    let banned = Some(Verdict::drop(Reason::Banned));
    for [host, in_client, in_wide] in [
        ["2001:db8:5:1701::1", "2001:db8:5:1702::1", "2001:db8:5:2701::1"],
        ["198.51.100.1", "198.51.100.2", "198.51.101.1"],
    ] {
        let levels = [(32, 64), (24, 56), (16, 48)].map(|(v4, v6)| Network::of(address(host), v4, v6));
        let ack = |client: &str| {
            let ack = Build::tcp(853, ACK, 1, &[]);
            let ack = if client.contains(':') { ack.v6() } else { ack };
            ack.client(address(client)).frame().octets
        };
        for (of_operator, of_engine) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            lab.lift_bans();
            for (level, cause) in [(of_engine, Cause::Garbage), (of_operator, Cause::Operator)] {
                let serial = level as u16 + 1;
                let ban = Ban { until_ns: EVER, cause: cause as u32, serial, ..Ban::default() };
                lab.ban_network(levels[level], &ban);
            }
            for (at, who) in [host, in_client, in_wide].into_iter().enumerate() {
                let case = format!(
                    "{who}: {} by the operator, {} by the engine",
                    levels[of_operator], levels[of_engine]
                );
                let open = if at <= of_operator { banned } else { Some(Verdict::pass(Reason::Control)) };
                let new =
                    if at <= of_operator.max(of_engine) { banned } else { Some(Verdict::pass(Reason::Syn)) };
                for _ in 0..2 {
                    assert_eq!(lab.judge(&ack(who)).verdict, open, "an open connection of {case}");
                    assert_eq!(verdict(&mut lab, who), new, "a new connection of {case}");
                }
            }
        }
    }
}

/// Goal: a wider prefix that spends its budget refuses newcomers from there, a client that completed a handshake before is
/// served on, `xdp show` and `explain` say so, and newcomers are served again after a while. Method: a budget of one
/// handshake a second for the /24, ten at once, of which one address makes all; kdig from three addresses.
#[test]
fn a_wider_prefix_has_a_budget() {
    require!(Root, Bpf, Command("kdig"));
    let keys = [("wide_cost_per_second", "1"), ("wide_connections_per_second", "0")];
    let (network, dotd) = embedded(&Config::new().limits(&keys));
    for host in ["66", "77"] {
        network.client.ip(&format!("address add 10.53.0.{host}/24 dev {CLIENT_INTERFACE}"));
    }
    let serves = |words: &str| {
        is_answered_over_tls(&kdig(
            &network.client,
            SERVER_V4,
            &format!("{words} +tls +timeout=1 +retry=0 dotd.test A"),
        ))
    };
    assert!(serves(""), "a handshake while there is a budget");
    // Three times what newcomers may use and less than four times. Its own budget is twenty times as large.
    let questions = vec!["dotd.test A"; 32].join(" ");
    let said = kdig(&network.client, SERVER_V4, &format!("-b 10.53.0.66 +tls +timeout=10 {questions}"));
    assert!(said.text.matches("status: NOERROR").count() >= 20, "{}", said.text);
    eventually("the budget is spent", || {
        let said = dotd.operate(&["explain", "10.53.0.77"]);
        said.has("network      10.53.0.0/24 has spent its budget").then_some(())
    });
    assert!(!serves("-b 10.53.0.77"), "a newcomer");
    assert!(serves(""), "who was here before is refused with them");
    let stats = dotd.stats();
    assert!(stats.packets("drop", "wide_cost") > 0 && stats.packets("drop", "cost") == 0);
    eventually("a newcomer is served again", || serves("-b 10.53.0.77").then_some(()));
    dotd.stop();
}
