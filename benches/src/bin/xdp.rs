//! The cost of a frame in the XDP program: nanoseconds per packet, by kind of packet.
//!
//! Holds: a table over built frames, each run a million times by BPF_PROG_TEST_RUN, best of five. First with all limits
//! and lists off, then on, as in a default config. The floor is a frame that is not IP: the harness itself and the
//! program's first check. A SYN that a cookie answers is rewritten, and the frame is not restored between repeats: such
//! rows are the median of runs one at a time, with the caches that other work left, above the floor's; a SYN that
//! passes stands beside them in both.
//! Never: repeats a frame that is rewritten.

use std::fs;

use dot_common::{
    ban::Ban,
    maps,
    rate::Rate,
    settings::{Gate, Over, Settings},
    tail_calls,
};
use dot_tests::{
    frames::{
        ACK, Build, CLEARTEXT_QUERY, CLIENT_HELLO, CLIENT_V4, CLIENT_V6, Frame, PSH, QUERY, SERVER_V4,
        SERVER_V6, SYN,
    },
    xdp_field::{ip, isolated, listeners},
    xdp_lab::{Lab, settings},
};

const REPEAT: u32 = 1_000_000;
const ROUNDS: u32 = 5;
const SINGLE_RUNS: u32 = 2_001;
const INITIAL: u32 = 7;

/// All gates shut, no limits, and this machine's addresses known: the setting for the first table.
fn judged() -> Settings {
    Settings { local: 3, ..settings(Gate::Drop) }
}

/// A lab that knows the addresses of built frames.
fn open(name: &str, settings: &Settings, tail_calls: &[(u32, &str)]) -> Option<Lab> {
    let mut lab = Lab::open_with_tail_calls(name, settings, tail_calls)?;
    lab.own(SERVER_V4.into(), 32);
    lab.own(SERVER_V6.into(), 128);
    Some(lab)
}

fn main() -> anyhow::Result<()> {
    let Some(mut lab) = open("benchmark xdp", &judged(), &[]) else {
        anyhow::bail!("BPF programs need root: run as root");
    };
    for build in [Build::syn_ack(853, INITIAL), Build::syn_ack(853, INITIAL).v6()] {
        lab.learn(&build.frame().octets);
    }
    let data = |place: u32, payload: &[u8]| Build::tcp(853, PSH | ACK, INITIAL + 1 + place, payload);
    let established = vec![0x17; 512];
    let cases = [
        ("not IP", data(0, &[]).frame().patched(12, &[8, 6])),
        ("not our port", Build::tcp(443, ACK, 1, &established).frame()),
        ("not our port, v6", Build::tcp(443, ACK, 1, &established).v6().frame()),
        ("pure ACK", data(0, &[]).frame()),
        ("pure ACK, v6", data(0, &[]).v6().frame()),
        ("established data", data(600, &established).frame()),
        ("established data, v6", data(600, &established).v6().frame()),
        ("another machine's", data(0, &CLIENT_HELLO).server([192, 0, 2, 99].into()).frame()),
        ("unknown flow", data(600, &established).client_port(9).frame()),
        ("ClientHello", data(0, &CLIENT_HELLO).frame()),
        ("cleartext drop", data(0, &CLEARTEXT_QUERY).frame()),
        ("cleartext drop, v6", data(0, &CLEARTEXT_QUERY).v6().frame()),
        ("UDP to 853", Build::udp(853, &CLEARTEXT_QUERY).frame()),
    ];
    let at_tc = [
        ("tc: not IP", data(0, &[]).frame().patched(12, &[8, 6])),
        ("tc: not our port", Build::tcp(443, ACK, 1, &established).frame()),
        ("tc: not our port, v6", Build::tcp(443, ACK, 1, &established).v6().frame()),
        ("tc: pure ACK", data(0, &[]).frame()),
        ("tc: established data", data(600, &established).frame()),
        ("tc: established data, v6", data(600, &established).v6().frame()),
    ];
    let mut floor = None;
    println!("{:<28}{:>8}{:>14}", "frame", "ns", "above floor");
    table(&mut lab, &mut floor, &cases);
    table_of(maps::PROGRAM_INGRESS, &mut lab, &mut None, &at_tc);
    let syn = || Build::tcp(853, SYN, 1, &[]);
    let query = || Build::udp(53, &QUERY);
    let unlimited = [("SYN, no limit", syn().frame()), ("query, no limit", query().frame())];
    table(&mut lab, &mut floor, &unlimited);

    // A rate that a million packets in a row keep to, and one that the second packet is over.
    let (wide, narrow) = (Rate { period_ns: 1, tolerance_ns: u64::MAX >> 2 }, Rate::new(1, 1));
    let over = Over::Drop as u8;
    let limited = |rate| Settings { syn: rate, do53_query: rate, do53_query_over: over, ..judged() };
    lab.set(&limited(wide));
    let within = [
        ("SYN within its rate", syn().frame()),
        ("SYN within its rate, v6", syn().v6().frame()),
        ("query within its rate", query().frame()),
        ("established data", data(600, &established).frame()),
    ];
    table(&mut lab, &mut floor, &within);
    lab.set(&limited(narrow));
    table(
        &mut lab,
        &mut floor,
        &[("SYN over its rate", syn().frame()), ("query over its rate", query().frame())],
    );

    clients(&mut lab, &mut floor, &limited(narrow), &established);
    notices(&mut floor, &limited(narrow));
    moves(&mut floor);
    isolated("cookies", cookies);
    Ok(())
}

/// A SYN that is answered with a cookie of the kernel, in a namespace that always makes them.
fn cookies() {
    ip("address add 2001:db8::1/64 dev here nodad");
    fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").expect("our own namespace");
    let _listeners = listeners("[::]:853", 1);
    let syn = || Build::tcp(853, SYN, 1, &[]).tcp_options(20);
    let tail_calls = [(tail_calls::COOKIE, maps::PROGRAM_COOKIE)];
    let passing = open("cookies", &judged(), &[]);
    let answering = open("cookies", &judged(), &tail_calls);
    let (Some(mut passing), Some(mut answering)) = (passing, answering) else { return };
    let floor = single(&mut passing, &syn().frame().patched(12, &[8, 6]));
    for (name, median) in [
        ("one run: SYN, no limit", single(&mut passing, &syn().frame())),
        ("one run: SYN, cookie", single(&mut answering, &syn().frame())),
        ("one run: SYN, cookie, v6", single(&mut answering, &syn().v6().frame())),
    ] {
        println!("{name:<28}{median:>8}{:>14}", median.saturating_sub(floor));
    }
}

/// Median of runs one at a time.
fn single(lab: &mut Lab, frame: &Frame) -> u128 {
    let mut runs: Vec<u128> =
        (0..SINGLE_RUNS).map(|_| lab.nanoseconds(maps::PROGRAM_XDP, &frame.octets, 1)).collect();
    runs.sort_unstable();
    runs[runs.len() / 2]
}

/// A packet that passes and goes to another CPU: the verdict alone, not the queue, nor the other CPU's work.
fn moves(floor: &mut Option<u128>) {
    let tail_calls = [(tail_calls::SPREAD, maps::PROGRAM_SPREAD)];
    let Some(mut lab) = open("moves", &judged(), &tail_calls) else { return };
    let ack = Build::tcp(853, ACK, 1, &[]);
    table(
        &mut lab,
        floor,
        &[("pure ACK, moved", ack.frame()), ("pure ACK, moved, v6", ack.clone().v6().frame())],
    );
}

/// Refusals that are announced, as dotd has them: all but the first find that it was said.
fn notices(floor: &mut Option<u128>, limited: &Settings) {
    let tail_calls = [(tail_calls::NOTICE, maps::PROGRAM_NOTICE)];
    let Some(mut lab) = open("notices", limited, &tail_calls) else { return };
    let announced = [
        ("SYN over its rate, announced", Build::tcp(853, SYN, 1, &[]).frame()),
        ("UDP to 853, announced", Build::udp(853, &CLEARTEXT_QUERY).frame()),
    ];
    table(&mut lab, floor, &announced);
    lab.ban(CLIENT_V4.into(), &Ban { until_ns: u64::MAX, ..Ban::default() });
    lab.set(&Settings { bans: 3, ..*limited });
    table(&mut lab, floor, &[("banned, announced", Build::udp(53, &QUERY).frame())]);
}

/// Packets whose client decides: on a list, banned, or without budget.
fn clients(lab: &mut Lab, floor: &mut Option<u128>, limited: &Settings, established: &[u8]) {
    let data = || Build::tcp(853, PSH | ACK, INITIAL + 601, established);
    let syn = || Build::tcp(853, SYN, 1, &[]);
    for (address, bits) in [(CLIENT_V4.into(), 24), (CLIENT_V6.into(), 56)] {
        lab.allow(address, bits);
        lab.deny(address, bits);
    }
    lab.set(&Settings { allow: 3, ..*limited });
    table(lab, floor, &[("SYN, allowed", syn().frame()), ("SYN, allowed, v6", syn().v6().frame())]);
    lab.set(&Settings { deny: 3, ..*limited });
    let neighbour = || data().client([198, 51, 100, 1].into());
    let listed = [
        ("denied", data().frame()),
        ("denied, v6", data().v6().frame()),
        ("data of a neighbour", neighbour().frame()),
    ];
    lab.learn(&Build::syn_ack(853, INITIAL).client([198, 51, 100, 1].into()).frame().octets);
    table(lab, floor, &listed);

    let until_ns = u64::MAX;
    for client in [CLIENT_V4.into(), CLIENT_V6.into()] {
        lab.ban(client, &Ban { until_ns, ..Ban::default() });
        lab.spend(client, until_ns);
    }
    lab.set(&Settings { bans: 3, ..*limited });
    let banned = [
        ("banned", data().frame()),
        ("banned, v6", data().v6().frame()),
        ("data beside bans", neighbour().frame()),
    ];
    table(lab, floor, &banned);
    lab.set(&Settings { spent: 3, ..judged() });
    let beside = || syn().client([203, 0, 113, 1].into());
    table(lab, floor, &[("SYN, budget spent", syn().frame()), ("SYN beside spent", beside().frame())]);
    lab.set(&Settings { spent: 3, spent_wide: 3, ..judged() });
    table(lab, floor, &[("SYN beside spent, wide", beside().frame())]);
}

/// One line a frame; the first frame of all is the floor.
fn table(lab: &mut Lab, floor: &mut Option<u128>, cases: &[(&str, Frame)]) {
    table_of(maps::PROGRAM_XDP, lab, floor, cases);
}

fn table_of(program: &str, lab: &mut Lab, floor: &mut Option<u128>, cases: &[(&str, Frame)]) {
    for (name, frame) in cases {
        let best =
            (0..ROUNDS).map(|_| lab.nanoseconds(program, &frame.octets, REPEAT)).min().unwrap_or_default();
        let floor = *floor.get_or_insert(best);
        println!("{name:<28}{best:>8}{:>14}", best.saturating_sub(floor));
    }
}
