//! Rates, frame by frame: clients within their rate, clients above it, clients without limits, and the form of an
//! answer.
//!
//! Holds: tables of built frames under a rate of one packet an hour, so that a slow machine does not gain a packet.
//! Needs root; prints SKIPPED without. Never: attaches anything, or measures time.

use dot_common::{
    proof::Proof,
    rate::Rate,
    settings::{Gate, Over, Settings},
    verdict::{Action, Reason, Verdict},
};
use dot_tests::{
    frames::{ACK, Build, CLEARTEXT_QUERY, CLIENT_HELLO, CLIENT_V6, Fragment, OPT, QUERY, RST, SYN, shapes},
    harness::netns::address,
    xdp_lab::{Lab, XDP_DROP, XDP_PASS, XDP_TX, settings},
};

const HOUR_NS: u64 = 3_600_000_000_000;

/// `burst` at once, then one an hour.
fn slow(burst: u64) -> Rate {
    Rate { period_ns: HOUR_NS, tolerance_ns: (burst - 1) * HOUR_NS }
}

/// Both limits with this burst.
fn limited(burst: u64) -> Settings {
    Settings { syn: slow(burst), do53_query: slow(burst), ..settings(Gate::Drop) }
}

fn syn(port: u16) -> Build {
    Build::tcp(port, SYN, 7, &[])
}

fn query() -> Build {
    Build::udp(53, &QUERY)
}

/// The verdicts of one frame, sent that many times.
fn verdicts(lab: &mut Lab, build: &Build, times: usize) -> Vec<Verdict> {
    let frame = build.frame();
    (0..times)
        .map(|_| {
            let outcome = lab.judge(&frame.octets);
            let verdict = outcome.verdict.expect("a packet of ours");
            let action = match verdict.action {
                Action::Pass | Action::WouldDrop => XDP_PASS,
                Action::Drop => XDP_DROP,
                Action::Answer => XDP_TX,
            };
            assert_eq!(outcome.action, action, "{verdict:?}");
            verdict
        })
        .collect()
}

/// That many of the first verdict, then that many of the second.
fn then(first: Verdict, count: usize, second: Verdict, more: usize) -> Vec<Verdict> {
    [vec![first; count], vec![second; more]].concat()
}

const SYN_PASSES: Verdict = Verdict::pass(Reason::Syn);
const QUERY_PASSES: Verdict = Verdict::pass(Reason::Do53Datagram);

fn over(action: Action, reason: Reason) -> Verdict {
    Verdict { action, reason }
}

/// Goal: each class has a budget of its own, a burst has its exact size, and packets above the rate are treated as the
/// settings say. Method: a table over classes and modes.
#[test]
fn bursts_end_where_they_should() {
    let Some(mut lab) = Lab::open("bursts_end_where_they_should", &settings(Gate::Drop)) else { return };
    use Reason::{Do53QueryRate, Do53SynRate, DotSynRate};
    for (mode, syn_action, query_action) in [
        (Over::Drop, Action::Drop, Action::Drop),
        (Over::Count, Action::WouldDrop, Action::WouldDrop),
        (Over::Truncate, Action::Drop, Action::Answer),
    ] {
        for burst in [1, 2, 7] {
            lab.forget_rates();
            let settings = limited(burst as u64);
            lab.set(&Settings { over: mode as u8, do53_query_over: mode as u8, ..settings });
            for (build, within, over) in [
                (syn(853), SYN_PASSES, over(syn_action, DotSynRate)),
                (syn(53).v6(), SYN_PASSES, over(syn_action, Do53SynRate)),
                (query(), QUERY_PASSES, over(query_action, Do53QueryRate)),
                (syn(53), SYN_PASSES, over(syn_action, Do53SynRate)),
                (query().v6(), QUERY_PASSES, over(query_action, Do53QueryRate)),
            ] {
                let found = verdicts(&mut lab, &build, burst + 3);
                assert_eq!(found, then(within, burst, over, 3), "{mode:?} {burst} {build:?}");
            }
            // The second port of DNS over TLS belongs to the same service, so its budget is spent.
            assert_eq!(verdicts(&mut lab, &syn(8853), 1), [over(syn_action, DotSynRate)]);
        }
    }
}

/// Goal: CPUs that race for one client's budget spend it exactly: no part of it twice, and all of it once. Method: two
/// CPUs run the program two million times each on the same frame; the burst is less than that.
#[test]
fn racing_cpus_spend_a_budget_exactly() {
    const BURST: u64 = 2_400_000;
    const EACH: u32 = 2_000_000;
    let test = "racing_cpus_spend_a_budget_exactly";
    let Some(mut lab) = Lab::open(test, &limited(BURST)) else { return };
    let Some(counted) = lab.race(&syn(853).frame().octets, EACH) else {
        println!("SKIPPED {test}: there is one CPU only");
        return;
    };
    let dropped = over(Action::Drop, Reason::DotSynRate);
    assert_eq!(counted, [(SYN_PASSES, BURST), (dropped, 2 * u64::from(EACH) - BURST)]);
}

/// Goal: only packets that begin something are counted, and only for their own client; a datagram to 53 counts whether
/// it claims to be a query or a response. Method: a spent budget, packets without a budget, and clients with budgets of
/// their own.
#[test]
fn only_beginnings_of_one_client_are_counted() {
    let test = "only_beginnings_of_one_client_are_counted";
    let Some(mut lab) = Lab::open(test, &limited(1)) else { return };
    let dropped = over(Action::Drop, Reason::DotSynRate);
    assert_eq!(verdicts(&mut lab, &syn(853), 2), [SYN_PASSES, dropped]);
    assert_eq!(verdicts(&mut lab, &query(), 2)[1].action, Action::Answer);
    let response = [&QUERY[..2], &[0x81, 0x80], &QUERY[4..]].concat();
    for (build, reason) in [
        (Build::tcp(853, ACK, 7, &[]), Reason::Control),
        (Build::tcp(853, SYN | ACK, 7, &[]), Reason::Control),
        (Build::tcp(853, SYN | RST, 7, &[]), Reason::Control),
        (syn(853).client(address("192.0.2.8")), Reason::Syn),
        (query().client(address("192.0.2.8")), Reason::Do53Datagram),
    ] {
        assert_eq!(verdicts(&mut lab, &build, 1), [Verdict::pass(reason)], "{build:?}");
    }
    // A datagram that claims to be a response is counted like a query, and never answered.
    assert_eq!(
        verdicts(&mut lab, &Build::udp(53, &response), 1),
        [over(Action::Drop, Reason::Do53QueryRate)]
    );
    // Octets in a SYN (Fast Open) bypass neither the limit nor the gate.
    let fast_open = |octets: &[u8]| Build::tcp(853, SYN, 7, octets);
    assert_eq!(verdicts(&mut lab, &fast_open(&CLIENT_HELLO), 1), [dropped]);
    lab.set(&Settings { over: Over::Count as u8, ..limited(1) });
    let would_drop = over(Action::WouldDrop, Reason::DotSynRate);
    let cleartext = Verdict::drop(Reason::CleartextOnDot);
    assert_eq!(verdicts(&mut lab, &fast_open(&CLIENT_HELLO), 1), [would_drop]);
    assert_eq!(verdicts(&mut lab, &fast_open(&CLEARTEXT_QUERY), 1), [cleartext]);
}

/// Goal: SYN over the rate pass in the name of a client that has proved its address, until its proof is over; its
/// budget holds, its UDP and its SYNs to 53 are limited, and no other client gains. Method: frames of one proven
/// client.
#[test]
fn a_proven_client_is_charged_by_its_handshakes() {
    let test = "a_proven_client_is_charged_by_its_handshakes";
    let Some(mut lab) = Lab::open(test, &limited(1)) else { return };
    let (proven, dropped) = (Verdict::pass(Reason::Proven), over(Action::Drop, Reason::DotSynRate));
    lab.prove(address("192.0.2.7"), Proof::proven(u64::MAX));
    assert_eq!(verdicts(&mut lab, &syn(853), 3), [SYN_PASSES, proven, proven]);
    assert_eq!(verdicts(&mut lab, &syn(53), 2)[1], over(Action::Drop, Reason::Do53SynRate));
    assert_eq!(verdicts(&mut lab, &query(), 2)[1].action, Action::Answer);
    let other = syn(853).client(address("192.0.2.8"));
    assert_eq!(verdicts(&mut lab, &other, 2), [SYN_PASSES, dropped]);
    lab.spend(address("192.0.2.7"), u64::MAX);
    lab.set(&Settings { spent: 3, ..limited(1) });
    assert_eq!(verdicts(&mut lab, &syn(853), 1), [over(Action::Drop, Reason::HandshakeCost)]);
    lab.set(&limited(1));
    lab.prove(address("192.0.2.7"), Proof::proven(1));
    assert_eq!(verdicts(&mut lab, &syn(853), 1), [dropped], "its proof is over");
}

/// Goal: where the stack makes cookies, SYN over the rate pass in the name of a client of which nothing is known, and
/// not in the name of one that completed more connections than its rate allows, until that time is over; its SYNs to 53
/// and its UDP are limited as usual. Method: frames of both clients, with and without cookies.
#[test]
fn an_unknown_client_is_not_limited_by_what_others_send() {
    let test = "an_unknown_client_is_not_limited_by_what_others_send";
    let with_cookies = Settings { has_cookies: 1, ..limited(1) };
    let Some(mut lab) = Lab::open(test, &with_cookies) else { return };
    let (unproven, dropped) = (Verdict::pass(Reason::Unproven), over(Action::Drop, Reason::DotSynRate));
    for build in [syn(853), syn(853).v6()] {
        assert_eq!(verdicts(&mut lab, &build, 3), [SYN_PASSES, unproven, unproven]);
    }
    assert_eq!(verdicts(&mut lab, &syn(53), 2)[1], over(Action::Drop, Reason::Do53SynRate));
    assert_eq!(verdicts(&mut lab, &query(), 2)[1].action, Action::Answer);
    lab.prove(address("192.0.2.7"), Proof::excessive(u64::MAX));
    assert_eq!(verdicts(&mut lab, &syn(853), 1), [dropped], "it finished too many connections itself");
    lab.set(&Settings { over: Over::Count as u8, ..with_cookies });
    assert_eq!(verdicts(&mut lab, &syn(853), 1), [over(Action::WouldDrop, Reason::DotSynRate)]);
    lab.set(&with_cookies);
    lab.prove(address("192.0.2.7"), Proof::excessive(1));
    assert_eq!(verdicts(&mut lab, &syn(853), 1), [unproven], "that is over");
    lab.spend(address("192.0.2.7"), u64::MAX);
    lab.set(&Settings { spent: 3, ..with_cookies });
    assert_eq!(verdicts(&mut lab, &syn(853), 1), [over(Action::Drop, Reason::HandshakeCost)]);
    lab.set(&limited(1));
    assert_eq!(verdicts(&mut lab, &syn(853), 1), [dropped], "without cookies a queue would fill");
}

/// Goal: a client is a prefix: a change of address within it gains nothing, and its neighbour has a budget of its own.
/// Method: each address of a table once, under a burst of one.
#[test]
fn hopping_within_a_prefix_gains_nothing() {
    let test = "hopping_within_a_prefix_gains_nothing";
    let Some(mut lab) = Lab::open(test, &limited(1)) else { return };
    for (prefix_v4, prefix_v6, clients) in [
        (
            32,
            56,
            [("192.0.2.1", true), ("192.0.2.2", true), ("2001:db8::1", true), ("2001:db8:0:ff::1", false)],
        ),
        (
            24,
            56,
            [("192.0.2.1", true), ("192.0.2.2", false), ("192.0.3.1", true), ("2001:db8:0:100::1", true)],
        ),
        (8, 32, [("192.0.2.1", true), ("192.9.9.9", false), ("2001:db8::1", true), ("2001:db8:f::", false)]),
        (8, 16, [("193.0.2.1", true), ("192.9.9.9", true), ("2001:db8::1", true), ("2001:9::", false)]),
    ] {
        lab.forget_rates();
        lab.set(&Settings { prefix_v4, prefix_v6, ..limited(1) });
        for (client, is_new) in clients {
            for build in [syn(853), syn(53), query()] {
                let found = verdicts(&mut lab, &build.client(address(client)), 1);
                assert_eq!(found[0].action == Action::Pass, is_new, "{client} /{prefix_v4} /{prefix_v6}");
            }
        }
    }
}

/// Goal: an allow-listed client meets no limit and is in no map, so that no flood can evict it; gates and the deny list
/// hold for it. Method: a burst of one, a list, and the keys of the map.
#[test]
fn allowed_clients_are_beyond_limits_and_in_no_map() {
    let test = "allowed_clients_are_beyond_limits_and_in_no_map";
    let Some(mut lab) = Lab::open(test, &Settings { allow: 3, ..limited(1) }) else { return };
    lab.allow(address("192.0.2.0"), 29);
    lab.allow(CLIENT_V6.into(), 128);
    let allowed = Verdict::pass(Reason::Allowed);
    for (name, shape) in shapes() {
        for build in [syn(853), syn(53), query(), Build::tcp(853, SYN, 7, &CLIENT_HELLO)] {
            assert_eq!(verdicts(&mut lab, &shape(build), 3), [allowed; 3], "{name}");
        }
        let cleartext = Build::tcp(853, SYN, 7, &CLEARTEXT_QUERY);
        let dropped = Verdict::drop(Reason::CleartextOnDot);
        assert_eq!(verdicts(&mut lab, &shape(cleartext), 1), [dropped], "{name}");
    }
    assert!(lab.rated().is_empty());
    let outside = syn(853).client(address("192.0.2.8"));
    assert_eq!(verdicts(&mut lab, &outside, 2)[1], over(Action::Drop, Reason::DotSynRate));
    assert_eq!(lab.rated().len(), 1);
    // A client on both lists is denied.
    lab.set(&Settings { allow: 3, deny: 1, ..limited(1) });
    lab.deny(address("192.0.2.7"), 32);
    assert_eq!(verdicts(&mut lab, &syn(853), 1), [Verdict::drop(Reason::Denied)]);
}

/// Goal: without limits no client is counted, and nothing is written. Method: the map's keys.
#[test]
fn no_limit_writes_nothing() {
    let Some(mut lab) = Lab::open("no_limit_writes_nothing", &settings(Gate::Drop)) else { return };
    assert_eq!(verdicts(&mut lab, &syn(853), 50), [SYN_PASSES; 50]);
    assert_eq!(verdicts(&mut lab, &query(), 50), [QUERY_PASSES; 50]);
    assert!(lab.rated().is_empty());
}

/// A query above its client's rate, as the kernel half sends it back.
fn answered(lab: &mut Lab, build: &Build) -> Option<Vec<u8>> {
    let mut outcome = lab.judge(&build.frame().octets);
    if outcome.verdict.is_some_and(|verdict| verdict.action == Action::Pass) {
        outcome = lab.judge(&build.frame().octets);
    }
    let reason = outcome.verdict.expect("a packet of ours").reason;
    assert_eq!(reason, Reason::Do53QueryRate, "{build:?}");
    (outcome.action == XDP_TX).then_some(outcome.octets)
}

/// Goal: an answer is a lawful datagram back to the client: addresses and ports swapped, lengths and both checksums
/// right, TC=1, the question and nothing more. Method: compares every octet with a built response, for each arrangement
/// of headers that may be answered; a partial checksum in the query does not matter.
#[test]
fn answers_are_lawful_datagrams() {
    let Some(mut lab) = Lab::open("answers_are_lawful_datagrams", &limited(1)) else { return };
    // RD and CD are copied from the client, AD is not; the OPT keeps DO and loses its options.
    let with_opt =
        [&QUERY[..2], &[1, 0x30], &QUERY[4..11], &[1], &QUERY[12..], &OPT, &[0, 10, 0, 0]].concat();
    let with_opt = {
        let mut message = with_opt;
        let end = message.len();
        message[end - 5] = 4;
        message
    };
    let opt_back = [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0];
    let header = |flags: u8, additional: u8| [0x12, 0x34, 0x83, flags, 0, 1, 0, 0, 0, 0, 0, additional];
    let messages = [
        (QUERY.to_vec(), [&header(0, 0), &QUERY[12..]].concat()),
        (with_opt, [&header(0x10, 1), &QUERY[12..], &opt_back].concat()),
        // Records behind the question other than OPT are left out.
        ([&QUERY[..], &[9; 40]].concat(), [&header(0, 0), &QUERY[12..]].concat()),
    ];
    let mut turned = Vec::new();
    for (name, shape) in shapes() {
        for (message, response) in &messages {
            let build = shape(Build::udp(53, message));
            // A veth delivers the sum of the pseudo header alone.
            let frame = build.frame();
            let mut partial = frame.octets.clone();
            partial[frame.transport + 6] ^= 0x5a;
            let _ = lab.judge(&partial);
            let Some(octets) = answered(&mut lab, &build) else { continue };
            let wanted = shape(Build::udp(53, response)).reply().frame();
            let wanted = wanted.patched(0, &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]).octets;
            let datagram = shape(Build::udp(53, response)).padding(0).frame().octets.len();
            assert_eq!(octets[..datagram], wanted[..datagram], "{name}");
            assert_eq!(octets.len(), datagram.max(60).min(frame.octets.len()), "{name}");
            turned.push(name);
        }
    }
    turned.dedup();
    let wanted = [
        "v4",
        "v4_padded_to_sixty_octets",
        "v4_forty_octets_of_tcp_options",
        "vlan_then_v4",
        "two_vlan_tags_then_v4",
        "v6",
        "vlan_then_v6",
        "eight_priority_tags_then_v4",
    ];
    assert_eq!(turned, wanted, "options and extension headers are not turned round");
}

/// Goal: a datagram that is not a plain query gets no answer, and is dropped above the rate. Method: a table.
#[test]
fn only_plain_queries_are_answered() {
    let Some(mut lab) = Lab::open("only_plain_queries_are_answered", &limited(1)) else { return };
    let patched = |offset: usize, octet: u8| {
        let mut message = QUERY.to_vec();
        message[offset] = octet;
        Build::udp(53, &message)
    };
    for (name, build) in [
        ("an update", patched(2, 0x28)),
        ("a notify", patched(2, 0x20)),
        ("no question", patched(5, 0)),
        ("two questions", patched(5, 2)),
        ("an answer", patched(7, 1)),
        ("a zone transfer's SOA", patched(9, 1)),
        ("a compressed name", patched(12, 0xc0)),
        ("a header", Build::udp(53, &QUERY[..12])),
        ("half a header", Build::udp(53, &QUERY[..6])),
        ("nothing", Build::udp(53, &[])),
        ("a cut question", Build::udp(53, &QUERY[..QUERY.len() - 1])),
        ("the first fragment", Build::udp(53, &QUERY).v6().fragment(Fragment::First)),
    ] {
        assert_eq!(answered(&mut lab, &build), None, "{name}");
        assert_eq!(lab.judge(&build.frame().octets).action, XDP_DROP, "{name}");
    }
    let long = [&QUERY[..12], &[[1, b'x']; 39].concat()[..], &[0, 0, 1, 0, 1]].concat();
    let answer = answered(&mut lab, &Build::udp(53, &long)).expect("thirty-nine labels are walked");
    assert_eq!(answer.len(), Build::udp(53, &long).frame().octets.len());
}
