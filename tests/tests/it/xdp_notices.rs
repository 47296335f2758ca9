//! Refused clients are reported once a minute: by the kernel half in a ring, by dotd in its log.
//!
//! Before: frames that are refused. After: one notice for each client and reason, at a bounded pace, and a line without
//! an address. Needs root; prints SKIPPED without. Never: waits for a minute to pass (`dot_common::notice` tests that).

use std::net::Ipv4Addr;

use dot_common::{
    ban::Ban,
    maps::PROGRAM_NOTICE,
    notice::{Fate, Notice, RING_OCTETS},
    prefix::ClientPrefix,
    rate::{self, Rate},
    settings::{Gate, Over, Settings},
    tail_calls,
    verdict::{Action, Reason, Verdict},
};
use dot_tests::{
    frames::{Build, CLEARTEXT_QUERY, CLIENT_HELLO, Fragment, QUERY, SYN, shapes},
    harness::{
        config::Config,
        eventually,
        flood::Wire,
        netns::{SERVER_V4, address},
        scene::embedded,
    },
    require,
    xdp_lab::{Lab, XDP_DROP, XDP_PASS, settings},
};

/// The ring needs eight octets more for each, for its own header.
const NOTICE_OCTETS: u32 = size_of::<Notice>() as u32;

const FOLLOWERS: &[(u32, &str)] = &[(tail_calls::NOTICE, PROGRAM_NOTICE)];

/// A limit with a burst of one, and then none for an hour.
fn limited() -> Settings {
    let slow = Rate { period_ns: 3_600_000_000_000, tolerance_ns: 0 };
    Settings { syn: slow, do53_query: slow, ..settings(Gate::Drop) }
}

/// The content of a notice: client, reason, action.
fn read(notice: &[u8]) -> (ClientPrefix, u32, u32) {
    let number = |from: usize| u32::from_ne_bytes(notice[from..from + 4].try_into().unwrap());
    assert_eq!(notice.len(), 16);
    (ClientPrefix::from_key(u64::from_ne_bytes(notice[..8].try_into().unwrap())), number(8), number(12))
}

fn expected(client: &str, verdict: Verdict) -> (ClientPrefix, u32, u32) {
    (ClientPrefix::of(address(client), 32, 56), verdict.reason as u32, verdict.action as u32)
}

/// Frames of one client that are refused, each for its reason, or would be where `mode` only counts.
fn refused(client: &str, mode: Over) -> Vec<(Build, Verdict)> {
    let gate = if mode == Over::Count { Action::WouldDrop } else { Action::Drop };
    let query = if mode == Over::Truncate { Action::Answer } else { gate };
    let of = |build: Build, action, reason| (build.client(address(client)), Verdict { action, reason });
    vec![
        of(Build::tcp(853, SYN, 7, &[]), gate, Reason::DotSynRate),
        of(Build::tcp(53, SYN, 7, &[]), gate, Reason::Do53SynRate),
        of(Build::udp(53, &QUERY), query, Reason::Do53QueryRate),
        of(Build::tcp(8853, SYN, 7, &CLEARTEXT_QUERY), gate, Reason::CleartextOnDot),
        of(Build::tcp(53, SYN, 7, &CLIENT_HELLO), gate, Reason::TlsOnDo53),
        of(Build::udp(853, b"quic?"), gate, Reason::UdpOnDot),
    ]
}

/// Goal: for each client each reason is reported once, with the action, and the packet is treated as without notices;
/// there is no notice for packets that pass, that are denied, or that are malformed. Method: every reason in each mode,
/// thrice, from two clients; the ring's octets.
#[test]
fn each_client_and_reason_is_said_once() {
    for mode in [Over::Drop, Over::Truncate, Over::Count] {
        let gates = settings(if mode == Over::Count { Gate::Count } else { Gate::Drop });
        let limits = Settings { over: mode as u8, do53_query_over: mode as u8, ..limited() };
        let gated = Settings {
            cleartext_on_dot: gates.cleartext_on_dot,
            tls_on_do53: gates.tls_on_do53,
            udp_on_dot: gates.udp_on_dot,
            ..limits
        };
        let Some(mut lab) =
            Lab::open_with_tail_calls("each_client_and_reason_is_said_once", &gated, FOLLOWERS)
        else {
            return;
        };
        for client in ["198.51.100.7", "2001:db8:5:1700::7"] {
            // Octets in a SYN that a gate refuses are judged without a limit.
            for (build, verdict) in refused(client, mode) {
                let is_limit = matches!(
                    verdict.reason,
                    Reason::DotSynRate | Reason::Do53SynRate | Reason::Do53QueryRate
                );
                lab.set(&if is_limit { gated } else { Settings { syn: Rate::default(), ..gated } });
                let frame = build.frame().octets;
                if is_limit {
                    assert_eq!(lab.judge(&frame).verdict.unwrap().action, Action::Pass, "{build:?}");
                }
                assert_eq!(lab.notices(), <[Vec<u8>; 0]>::default(), "who is within is not spoken of");
                for _ in 0..3 {
                    let outcome = lab.judge(&frame);
                    assert_eq!(outcome.verdict, Some(verdict), "{client} {mode:?}");
                    let action = match verdict.action {
                        Action::WouldDrop => XDP_PASS,
                        Action::Answer => dot_tests::xdp_lab::XDP_TX,
                        _ => XDP_DROP,
                    };
                    assert_eq!(outcome.action, action, "{client} {verdict:?}");
                }
                let said: Vec<_> = lab.notices().iter().map(|notice| read(notice)).collect();
                assert_eq!(said, [expected(client, verdict)], "{client} {mode:?} {verdict:?}");
            }
        }
        assert_eq!((lab.noticed(Fate::Sent), lab.noticed(Fate::HeldBack)), (12, 0));
    }
}

/// Goal: bans and spent budgets are reported too, refusals by the deny list and malformed packets are not. Method: a
/// frame for each.
#[test]
fn bans_and_budgets_are_said_and_an_operators_list_is_not() {
    let test = "bans_and_budgets_are_said_and_an_operators_list_is_not";
    let settings = Settings { bans: 1, spent: 1, deny: 1, ..settings(Gate::Drop) };
    let Some(mut lab) = Lab::open_with_tail_calls(test, &settings, FOLLOWERS) else { return };
    lab.ban(address("198.51.100.1"), &Ban { until_ns: u64::MAX, bits: 32, ..Ban::default() });
    lab.spend(address("198.51.100.2"), u64::MAX);
    lab.deny(address("198.51.100.3"), 32);
    let syn = |client: &str| Build::tcp(853, SYN, 1, &[]).client(address(client));
    let lie = syn("198.51.100.4").frame().patched(16, &[0, 99]);
    let fragment = syn("198.51.100.4").fragment(Fragment::First).frame();
    for frame in [
        syn("198.51.100.1").frame(),
        syn("198.51.100.2").frame(),
        syn("198.51.100.3").frame(),
        syn("198.51.100.4").frame(),
        lie,
        fragment,
    ] {
        lab.judge(&frame.octets);
    }
    let said: Vec<_> = lab.notices().iter().map(|notice| read(notice)).collect();
    let wanted = [
        expected("198.51.100.1", Verdict::drop(Reason::Banned)),
        expected("198.51.100.2", Verdict::drop(Reason::HandshakeCost)),
    ];
    assert_eq!(said, wanted);
}

/// Goal: a flood from very many addresses causes a few notices, the rest is counted, and another reason is still
/// reported; a client that was reported before is not reported again. Method: ten thousand clients at a gate, then one
/// that is banned.
#[test]
fn many_clients_are_few_notices() {
    let settings = Settings { bans: 1, ..settings(Gate::Drop) };
    let Some(mut lab) = Lab::open_with_tail_calls("many_clients_are_few_notices", &settings, FOLLOWERS)
    else {
        return;
    };
    let datagram = |number: u32| {
        let client = Ipv4Addr::from_bits(0x0a00_0000 + number);
        Build::udp(853, b"quic?").client(client.into()).frame().octets
    };
    for number in 0..10_000 {
        assert_eq!(lab.judge_as(&datagram(number), Some(Verdict::drop(Reason::UdpOnDot))), Some(XDP_DROP));
    }
    let (sent, held_back) = (lab.noticed(Fate::Sent), lab.noticed(Fate::HeldBack));
    assert!((10..200).contains(&sent), "{sent} notices");
    assert_eq!((sent + held_back, lab.noticed(Fate::Lost)), (10_000, 0));
    assert_eq!(lab.notices().len() as u64, sent);
    lab.judge(&datagram(0));
    assert_eq!(lab.noticed(Fate::Sent) + lab.noticed(Fate::HeldBack), 10_000, "the first was said before");
    let banned = address("198.51.100.1");
    lab.ban(banned, &Ban { until_ns: u64::MAX, bits: 32, ..Ban::default() });
    lab.judge(&Build::udp(853, b"quic?").client(banned).frame().octets);
    assert_eq!(lab.notices().len(), 1, "another reason was not heard");
    let class = rate::Class::DotSyn as u64;
    assert!(lab.rated().iter().all(|key| key >> 60 != class), "notices take no room of the limits");
}

/// Goal: a full ring loses notices, which are counted, and changes no verdict; once it is read, the lost notices are
/// sent after all. Method: clients at a gate, whose pace is reset before it holds any back, until the ring is full.
#[test]
fn a_full_ring_counts_what_it_lost() {
    let settings = settings(Gate::Drop);
    let Some(mut lab) = Lab::open_with_tail_calls("a_full_ring_counts_what_it_lost", &settings, FOLLOWERS)
    else {
        return;
    };
    let refuse = |lab: &mut Lab, number: u32| {
        lab.reset_pace(Reason::UdpOnDot);
        let client = Ipv4Addr::from_bits(0x0a00_0000 + number).into();
        let frame = Build::udp(853, b"quic?").client(client).frame().octets;
        assert_eq!(lab.judge_as(&frame, Some(Verdict::drop(Reason::UdpOnDot))), Some(XDP_DROP), "{number}");
    };
    let room = u64::from(RING_OCTETS / (NOTICE_OCTETS + 8));
    let clients = u32::try_from(room).unwrap() + 500;
    (0..clients).for_each(|number| refuse(&mut lab, number));
    let (sent, lost) = (lab.noticed(Fate::Sent), lab.noticed(Fate::Lost));
    assert_eq!((sent + lost, lab.noticed(Fate::HeldBack)), (u64::from(clients), 0));
    assert!((room - 1..=room).contains(&sent), "{sent} of {room}");
    assert_eq!(lab.notices().len() as u64, sent);
    refuse(&mut lab, 0);
    refuse(&mut lab, clients - 1);
    assert_eq!((lab.noticed(Fate::Sent), lab.noticed(Fate::Lost)), (sent + 1, lost), "the last was lost");
    assert_eq!(lab.notices().len(), 1);
}

/// Goal: with a follower, packets with any arrangement of headers are treated as without one. Method: both, frame by
/// frame, compared with the resulting frame.
#[test]
fn tail_calls_change_nothing() {
    for gate in [Gate::Drop, Gate::Reset, Gate::Count] {
        let test = "tail_calls_change_nothing";
        let Some(mut alone) = Lab::open(test, &settings(gate)) else { return };
        let Some(mut followed) = Lab::open_with_tail_calls(test, &settings(gate), FOLLOWERS) else { return };
        for (name, shape) in shapes() {
            for build in [
                Build::tcp(853, SYN, 7, &CLEARTEXT_QUERY),
                Build::tcp(853, SYN, 7, &[]),
                Build::udp(853, b"quic?"),
                Build::udp(53, &QUERY),
            ] {
                let frame = shape(build).frame().octets;
                assert_eq!(alone.judge(&frame), followed.judge(&frame), "{name} {gate:?}");
            }
        }
    }
}

/// Goal: the log names the network of a client that is refused, once, and no address; status and metrics count it. Method:
/// datagrams to 853 on the wire, from two addresses of one network and one of another. Covers: C-73.
#[test]
fn the_log_names_a_network_once() {
    require!(Root, Bpf);
    for (how, shown) in [("prefix", "198.51.100.0/24"), ("full", "198.51.100.0/24"), ("none", "-")] {
        let config = Config::new().set("log", "client_address", &format!("\"{how}\""));
        let (network, dotd) = embedded(&config);
        let wire = Wire::open(&network);
        for _ in 0..20 {
            for client in ["198.51.100.7", "198.51.100.8", "203.0.113.9"] {
                let build = Build::udp(853, b"quic?").client(address(client)).server(SERVER_V4);
                let octets = wire.addressed(build.frame());
                eventually("the wire takes it", || wire.send_octets(&octets).then_some(()));
            }
        }
        dotd.counts("all are dropped", |stats| stats.packets("drop", "udp_on_dot") == 60);
        let said = eventually("notices are counted", || {
            let said = dotd.operate(&["xdp", "show"]);
            said.has("3 of refused clients, 0 held back, 0 lost").then_some(said)
        });
        let lines = || dotd.stderr().lines().filter(|line| line.contains("udp_on_dot")).count();
        let wanted = if how == "none" { 1 } else { 2 };
        eventually("the lines are written", || (lines() == wanted).then_some(()));
        let log = dotd.stderr();
        assert_eq!(log.matches("xdp drops packets of a client").count(), wanted, "{log}");
        assert!(log.contains(shown), "{log}");
        for client in ["198.51.100.7", "198.51.100.8", "203.0.113.9"] {
            assert!(!log.contains(client), "{how}: an address is in the log: {log}");
        }
        assert!(said.has("dotd_notice"), "{}", said.text);
        dotd.stop();
    }
}
