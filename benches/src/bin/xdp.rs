//! What a frame costs in the XDP program: nanoseconds per packet, by kind of packet.
//!
//! Holds: a table over built frames, each run a million times by BPF_PROG_TEST_RUN, best of five.
//! The floor is a frame that is not IP: the harness itself and the program's first look.
//! Never: times a program that rewrites its frame (`reset`): the frame is not restored between runs.

use dot_common::settings::Gate;
use dot_tests::{
    frames::{ACK, Build, CLEARTEXT_QUERY, CLIENT_HELLO, PSH},
    xdp_lab::{Lab, settings},
};

const REPEAT: u32 = 1_000_000;
const ROUNDS: u32 = 5;
const INITIAL: u32 = 7;

fn main() -> anyhow::Result<()> {
    let Some(mut lab) = Lab::open("benchmark xdp", &settings(Gate::Drop)) else {
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
        ("unknown flow", data(600, &established).client_port(9).frame()),
        ("ClientHello", data(0, &CLIENT_HELLO).frame()),
        ("cleartext drop", data(0, &CLEARTEXT_QUERY).frame()),
        ("cleartext drop, v6", data(0, &CLEARTEXT_QUERY).v6().frame()),
        ("UDP to 853", Build::udp(853, &CLEARTEXT_QUERY).frame()),
    ];
    let mut floor = None;
    println!("{:<24}{:>8}{:>14}", "frame", "ns", "above floor");
    for (name, frame) in cases {
        let best = (0..ROUNDS).map(|_| lab.nanoseconds(&frame.octets, REPEAT)).min().unwrap_or_default();
        let floor = *floor.get_or_insert(best);
        println!("{name:<24}{best:>8}{:>14}", best.saturating_sub(floor));
    }
    Ok(())
}
