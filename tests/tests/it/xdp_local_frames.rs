//! Only packets for this machine are judged, and packets that it sends itself meet no limit: frame by frame.
//!
//! Before: built frames, and the local addresses in the maps. After: each frame has its verdict, or is counted nowhere. Needs
//! root; prints SKIPPED without. Never: attaches anything. (Routers, bridges and other machines: `xdp_local.rs`.)

use dot_common::{
    ban::{Ban, Cause},
    rate::Rate,
    settings::{Gate, Settings},
    verdict::{Reason, Verdict},
};
use dot_tests::{
    frames::{
        Build, CLEARTEXT_QUERY, CLIENT_HELLO, CLIENT_V4, CLIENT_V6, QUERY, SERVER_V4, SERVER_V6, SYN, shapes,
    },
    harness::netns::address,
    xdp_lab::{Lab, XDP_PASS, settings},
};

/// A rate of one packet in an hour.
const SLOW: Rate = Rate { period_ns: 3_600_000_000_000, tolerance_ns: 0 };

fn all_limited() -> Settings {
    Settings { syn: SLOW, do53_query: SLOW, ..settings(Gate::Drop) }
}

/// Goal: packets for another machine pass uncounted, whatever they are and whatever headers they have; packets for one
/// of this machine's prefixes are judged. Method: frames with every arrangement of headers to local and to other
/// addresses.
#[test]
fn only_local_destinations_are_judged() {
    let judged = Settings { local: 3, ..settings(Gate::Drop) };
    let Some(mut lab) = Lab::open("only_local_destinations_are_judged", &judged) else { return };
    lab.own(SERVER_V4.into(), 32);
    lab.own(SERVER_V6.into(), 64);
    for (name, shape) in shapes() {
        for build in [
            Build::udp(853, b"quic?"),
            Build::udp(53, &QUERY),
            Build::tcp(853, SYN, 7, &[]),
            Build::tcp(853, SYN, 7, &CLEARTEXT_QUERY),
        ] {
            let build = shape(build);
            let others =
                if build.source().is_ipv6() { address("2001:db8:1::1") } else { address("192.0.2.99") };
            assert!(lab.judge(&build.frame().octets).verdict.is_some(), "{name}: ours");
            let frame = build.server(others).frame();
            let outcome = lab.judge(&frame.octets);
            assert_eq!((outcome.action, outcome.verdict), (XDP_PASS, None), "{name}: another machine's");
            assert_eq!(outcome.octets, frame.octets, "{name}");
        }
    }
    // Packets with false fields, or with chains that cannot be read, pass too if they are for another machine.
    let elsewhere = || Build::tcp(853, SYN, 7, &CLIENT_HELLO).server(address("192.0.2.99"));
    let chain = |server| {
        (0..9).fold(Build::tcp(853, SYN, 7, &[]).v6().server(server), |build, _| build.extension(60, 8))
    };
    let ours = lab.judge(&chain(SERVER_V6.into()).frame().octets);
    assert_eq!(ours.verdict, Some(Verdict::drop(Reason::ChainTooLong)));
    for frame in [elsewhere().frame().cut_to(60), chain(address("2001:db8:1::1")).frame()] {
        let outcome = lab.judge(&frame.octets);
        assert_eq!((outcome.action, outcome.verdict), (XDP_PASS, None));
    }
    // One address is added and one removed: this invalidates what a CPU remembers.
    let quic = Build::udp(853, b"quic?").server(address("192.0.2.99")).frame();
    lab.own(address("192.0.2.99"), 32);
    assert_eq!(lab.judge(&quic.octets).verdict, Some(Verdict::drop(Reason::UdpOnDot)));
}

/// Goal: packets that come in on lo are this machine's own, and meet no limit, no budget, no pressure and no ban of the
/// engine; gates, the deny list and an operator's ban hold. Method: frames, which a test run has come in on lo. Covers:
///
#[test]
fn what_this_machine_sends_itself_meets_no_limit() {
    let test = "what_this_machine_sends_itself_meets_no_limit";
    let own = Settings { own_interface: 1, spent: 3, ..all_limited() };
    let Some(mut lab) = Lab::open(test, &own) else { return };
    let pass = Some(Verdict::pass(Reason::Own));
    for client in [CLIENT_V4.into(), CLIENT_V6.into()] {
        lab.spend(client, u64::MAX);
        for build in [Build::tcp(853, SYN, 7, &[]), Build::tcp(53, SYN, 7, &[]), Build::udp(53, &QUERY)] {
            for round in 0..3 {
                let verdict = lab.judge(&build.clone().client(client).frame().octets).verdict;
                assert_eq!(verdict, pass, "{client} round {round}");
            }
        }
    }
    assert!(lab.rated().is_empty(), "nothing is written down");
    lab.close_workers(u64::MAX - 1);
    let syn = Build::tcp(853, SYN, 7, &[]).frame().octets;
    assert_eq!(lab.judge(&syn).verdict, pass, "pressure");
    let ban = |cause| Ban { until_ns: u64::MAX, cause: cause as u32, ..Ban::default() };
    lab.ban(CLIENT_V4.into(), &ban(Cause::Garbage));
    lab.set(&Settings { bans: 3, ..own });
    assert_eq!(lab.judge(&syn).verdict, pass, "a ban of the engine's");
    lab.set(&Settings { bans: 3, own_interface: 0, ..own });
    let banned = Some(Verdict::drop(Reason::Banned));
    assert_eq!(lab.judge(&syn).verdict, banned, "which holds for others, also where the CPU remembers it");
    lab.set(&Settings { bans: 3, ..own });
    lab.ban(CLIENT_V4.into(), &ban(Cause::Operator));
    assert_eq!(lab.judge(&syn).verdict, banned, "an operator's");
    lab.deny(CLIENT_V6.into(), 64);
    lab.set(&Settings { deny: 3, ..own });
    let denied = Build::tcp(853, SYN, 7, &[]).v6().frame();
    assert_eq!(lab.judge(&denied.octets).verdict, Some(Verdict::drop(Reason::Denied)));
    let quic = Build::udp(853, b"quic?").client(address("192.0.2.9")).frame();
    assert_eq!(lab.judge(&quic.octets).verdict, Some(Verdict::drop(Reason::UdpOnDot)), "gates hold");
}

/// Goal: where the config does not ask for port 53, datagrams to it are ignored, and for TCP only the gate is used: no
/// list, ban or limit applies. Method: frames of a client that is denied, banned and above its rate.
#[test]
fn port_53_is_another_servers_unless_asked_for() {
    let gate_alone = Settings { do53_is_limited: 0, deny: 3, bans: 3, ..all_limited() };
    let Some(mut lab) = Lab::open("port_53_is_another_servers_unless_asked_for", &gate_alone) else { return };
    lab.deny(CLIENT_V4.into(), 32);
    lab.ban(CLIENT_V4.into(), &Ban { until_ns: u64::MAX, ..Ban::default() });
    lab.learn(&Build::syn_ack(53, 7).frame().octets);
    for _ in 0..3 {
        assert_eq!(lab.judge(&Build::udp(53, &QUERY).frame().octets).verdict, None);
        let syn = Build::tcp(53, SYN, 7, &[]).frame();
        assert_eq!(lab.judge(&syn.octets).verdict, Some(Verdict::pass(Reason::Syn)));
        let tls = Build::tcp(53, 16, 8, &CLIENT_HELLO).frame();
        assert_eq!(
            lab.judge(&tls.octets).verdict,
            Some(Verdict::drop(Reason::TlsOnDo53)),
            "the gate is apart"
        );
        let dot = Build::tcp(853, SYN, 7, &[]).frame();
        assert_eq!(lab.judge(&dot.octets).verdict, Some(Verdict::drop(Reason::Denied)));
    }
    lab.set(&Settings { tls_on_do53: Gate::Pass as u8, ..gate_alone });
    let tls = Build::tcp(53, 16, 8, &CLIENT_HELLO).frame();
    assert_eq!(lab.judge(&tls.octets).verdict, None, "no gate, no look");
    assert!(lab.rated().is_empty());
}

/// Goal: a packet to another server's port 53 that is truncated or false passes uncounted and unchanged, with the gate
/// on; where port 53 is dotd's it is dropped. Method: a frame of each kind, over both IP versions.
#[test]
fn another_servers_fragments_and_lies_are_its_own() {
    let beside = Settings { do53_is_limited: 0, ..settings(Gate::Drop) };
    let Some(mut lab) = Lab::open("another_servers_fragments_and_lies_are_its_own", &beside) else { return };
    let whole = |is_v6: bool| {
        let build = Build::tcp(53, 16, 8, &CLIENT_HELLO);
        if is_v6 { build.v6() } else { build }
    };
    let data_offset = |octets| {
        let frame = whole(false).frame();
        let at = frame.transport + 12;
        frame.patched(at, &[octets])
    };
    let fragment = whole(false).frame();
    let more_fragments = fragment.ip + 6;
    for (name, frame, reason) in [
        ("first fragment", fragment.patched(more_fragments, &[0x20]), Reason::TcpFragment),
        ("length beyond the frame", whole(false).frame().cut_to(60), Reason::IpLength),
        ("length beyond the frame, IPv6", whole(true).frame().cut_to(80), Reason::IpLength),
        ("data offset of four words", data_offset(0x40), Reason::TcpDataOffset),
        ("data offset beyond the segment", data_offset(0xf0), Reason::TcpDataOffset),
    ] {
        lab.set(&beside);
        let outcome = lab.judge(&frame.octets);
        assert_eq!((outcome.action, outcome.verdict), (XDP_PASS, None), "{name}: another server's");
        assert_eq!(outcome.octets, frame.octets, "{name}");
        lab.set(&Settings { do53_is_limited: 1, ..beside });
        assert_eq!(lab.judge(&frame.octets).verdict, Some(Verdict::drop(reason)), "{name}: ours");
    }
}
