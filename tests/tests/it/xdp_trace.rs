//! Packets of traced clients, frame by frame: which are told, and how many.
//!
//! Before: frames of a traced client and of another one. After: an event for each that begins something or is refused.
//! Needs root; prints SKIPPED without. Never: attaches anything.

use dot_common::{
    ban::{Ban, Cause},
    settings::{Gate, Settings},
    traced::{PACE, TracedPrefix},
    verdict::{Action, Reason},
};
use dot_tests::{
    frames::{Build, CLEARTEXT_QUERY, CLIENT_HELLO, SYN},
    harness::netns::address,
    xdp_lab::{Lab, settings},
    xdp_traces::Traces,
};

const CLIENT: [u8; 4] = [203, 0, 113, 7];

fn prefix() -> TracedPrefix {
    TracedPrefix::new([203, 0, 113, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 24, false)
}

fn syn(client: &str) -> Vec<u8> {
    Build::tcp(853, SYN, 7, &[]).client(address(client)).frame().octets
}

/// Goal: of a traced client each packet that begins something or is refused is told with its verdict, at XDP and at tc; other
/// packets of it, and other clients, are not; without a trace nothing is. Method: a SYN, cleartext, octets of an unknown stream, a
/// datagram; a ban; each also from another client. Covers: C-701
#[test]
fn packets_of_traced_clients_are_told() {
    let traced = Settings { traced: 1, bans: 1, ..settings(Gate::Drop) };
    let Some(mut lab) = Lab::open("packets_of_traced_clients_are_told", &traced) else { return };
    let mut traces = Traces::take(&mut lab);
    traces.trace(&[TracedPrefix::default(), prefix()]);
    let frames = |client: &str| {
        let of = |build: Build| build.client(address(client)).frame().octets;
        [
            syn(client),
            of(Build::tcp(853, SYN, 7, &CLEARTEXT_QUERY)),
            of(Build::tcp(853, 16, 7, &CLIENT_HELLO)),
            of(Build::udp(853, b"quic?")),
        ]
    };
    let told = |action: Action, reason: Reason| (CLIENT, action as u32, reason as u32);
    let expected = [
        told(Action::Pass, Reason::Syn),
        told(Action::Drop, Reason::CleartextOnDot),
        told(Action::Drop, Reason::UdpOnDot),
    ];
    for client in ["203.0.113.7", "198.51.100.7"] {
        frames(client).iter().for_each(|frame| drop(lab.judge(frame)));
    }
    assert_eq!(traces.told(), expected);
    frames("203.0.113.7").iter().for_each(|frame| drop(lab.judge_at_tc(frame)));
    assert_eq!(traces.told(), expected, "at tc");
    lab.ban(
        address("203.0.113.7"),
        &Ban { until_ns: u64::MAX, cause: Cause::Operator as u32, bits: 32, ..Ban::default() },
    );
    let _ = lab.judge(&syn("203.0.113.7"));
    assert_eq!(traces.told(), [told(Action::Drop, Reason::Banned)]);
    lab.set(&Settings { traced: 0, ..traced });
    frames("203.0.113.7").iter().for_each(|frame| drop(lab.judge(frame)));
    assert!(traces.told().is_empty() && traces.lost() == 0);
}

/// Goal: a flood from a traced client does not flood the reader: so many packets are told at once, the others are counted.
/// Method: more SYNs than the pace allows.
#[test]
fn a_flood_is_told_in_part() {
    let traced = Settings { traced: 1, ..settings(Gate::Drop) };
    let Some(mut lab) = Lab::open("a_flood_is_told_in_part", &traced) else { return };
    let mut traces = Traces::take(&mut lab);
    traces.trace(&[prefix()]);
    let (frame, burst) = (syn("203.0.113.7"), PACE.tolerance_ns / PACE.period_ns + 1);
    let sent = 4 * burst;
    (0..sent).for_each(|_| drop(lab.judge(&frame)));
    let (told, lost) = (traces.told().len() as u64, traces.lost());
    assert_eq!(told + lost, sent);
    assert!(told >= burst && lost > 0, "{told} told, {lost} lost");
}
