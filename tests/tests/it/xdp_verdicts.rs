//! Every verdict and every arrangement of headers, judged by the program that is attached to interfaces.
//!
//! Holds: tables of built frames, each with the verdict it must get. Needs root; prints SKIPPED without.
//! Never: attaches anything.

use dot_common::{
    packet::parse_syn_ack,
    settings::Gate,
    verdict::{Action, Reason, Verdict},
};
use dot_tests::{
    frames::{
        ACK, Build, CLEARTEXT_QUERY, CLIENT_HELLO, FIN, Fragment, Frame, PSH, RST, SYN, checksum, shapes,
    },
    xdp_lab::{Lab, PORTS, XDP_DROP, XDP_PASS, settings},
};

/// Near the end of the sequence space, so that every test wraps.
const INITIAL: u32 = 0xffff_fffd;

/// The sequence number of a place in the stream.
fn at(place: u32) -> u32 {
    INITIAL.wrapping_add(1).wrapping_add(place)
}

fn data(port: u16, place: u32, payload: &[u8]) -> Build {
    Build::tcp(port, PSH | ACK, at(place), payload)
}

const fn pass(reason: Reason) -> Option<Verdict> {
    Some(Verdict::pass(reason))
}

const fn drop(reason: Reason) -> Option<Verdict> {
    Some(Verdict::drop(reason))
}

/// Judges each frame, and names those that did not get their verdict.
fn expect(lab: &mut Lab, cases: &[(&str, Frame, Option<Verdict>)]) {
    for (name, frame, wanted) in cases {
        let outcome = lab.judge(&frame.octets);
        assert_eq!(outcome.verdict, *wanted, "{name}");
        let is_dropped = wanted.is_some_and(|verdict| verdict.action == Action::Drop);
        assert_eq!(outcome.action, if is_dropped { XDP_DROP } else { XDP_PASS }, "{name}");
        if !is_dropped {
            assert_eq!(outcome.octets, frame.octets, "{name}: passed, but not as it was");
        }
    }
}

/// A lab that knows the connection of `Build::tcp(port, …)` over both IP versions, learned from a SYN-ACK.
fn lab_with_flows(test: &str, gate: Gate) -> Option<Lab> {
    let mut lab = Lab::open(test, &settings(gate))?;
    for port in [853, 8853, 53] {
        lab.learn(&Build::syn_ack(port, INITIAL).frame().octets);
        lab.learn(&Build::syn_ack(port, INITIAL).v6().frame().octets);
    }
    Some(lab)
}

/// Goal: the gate works behind every lawful arrangement of headers. Method: the same five segments in each arrangement,
/// on both DNS-over-TLS ports. Covers: C-3.
#[test]
fn every_header_shape_is_seen_through() {
    let Some(mut lab) = lab_with_flows("every_header_shape_is_seen_through", Gate::Drop) else { return };
    for (name, shape) in shapes() {
        for port in [853, 8853] {
            let cases = [
                ("SYN", Build::tcp(port, SYN, INITIAL, &[]), pass(Reason::Syn)),
                ("ACK", Build::tcp(port, ACK, at(0), &[]), pass(Reason::Control)),
                ("hello", data(port, 0, &CLIENT_HELLO), pass(Reason::ClientHello)),
                ("cleartext", data(port, 0, &CLEARTEXT_QUERY), drop(Reason::CleartextOnDot)),
                ("later", data(port, 517, &CLEARTEXT_QUERY), pass(Reason::Stream)),
            ];
            for (segment, build, wanted) in cases {
                let name = format!("{name}, {segment} to {port}");
                expect(&mut lab, &[(&name, shape(build).frame(), wanted)]);
            }
        }
    }
}

/// Goal: an opening is judged octet by octet, however it is cut, repeated or reordered. Method: a table over
/// one connection whose sequence numbers wrap. Covers: C-3.
#[test]
fn openings_are_judged_however_they_are_cut() {
    let Some(mut lab) = lab_with_flows("openings_are_judged_however_they_are_cut", Gate::Drop) else {
        return;
    };
    let hello = pass(Reason::ClientHello);
    let cleartext = drop(Reason::CleartextOnDot);
    for place in 0..6 {
        let octet = CLIENT_HELLO[place as usize];
        // Octet 4, the low half of the record's length, may be anything.
        let wrong = if place == 4 { hello } else { cleartext };
        expect(
            &mut lab,
            &[
                ("one right octet", data(853, place, &[octet]).frame(), hello),
                ("one wrong octet", data(853, place, &[0x99]).frame(), wrong),
                ("the rest", data(853, place, &CLIENT_HELLO[place as usize..]).frame(), hello),
            ],
        );
    }
    let before = |count: u32, octets: &[u8]| data(853, 0u32.wrapping_sub(count), octets).frame();
    expect(
        &mut lab,
        &[
            ("HTTP", data(853, 0, b"GET / HTTP/1.1\r\n").frame(), cleartext),
            ("SSL 2", data(853, 0, &[0x80, 0x2e, 1, 0, 2]).frame(), cleartext),
            ("a TLS alert", data(853, 0, &[0x15, 3, 1, 0, 2, 1, 0]).frame(), cleartext),
            ("a ServerHello", data(853, 0, &[0x16, 3, 3, 0, 80, 2]).frame(), cleartext),
            ("minor version 5", data(853, 0, &[0x16, 3, 5, 0, 80, 1]).frame(), cleartext),
            ("record of 2^14 + 256", data(853, 0, &[0x16, 3, 1, 0x40, 0xff, 1]).frame(), hello),
            ("record beyond that", data(853, 0, &[0x16, 3, 1, 0x41, 0, 1]).frame(), cleartext),
            ("again, from before the start", before(1, &[0, 0x16, 3]), hello),
            ("cleartext behind it", before(3, &[0, 0, 0, b'G', b'E']), cleartext),
            ("wholly before the start", before(3, &[0, 0, 0]), pass(Reason::Stream)),
            ("the first octet beyond", data(853, 6, &CLEARTEXT_QUERY).frame(), pass(Reason::Stream)),
            ("FIN with cleartext", Build::tcp(853, FIN | ACK, at(0), b"hi").frame(), cleartext),
            ("RST with words", Build::tcp(853, RST, at(0), b"hi").frame(), pass(Reason::Control)),
            ("SYN-ACK with cleartext", Build::tcp(853, SYN | ACK, INITIAL, b"hi").frame(), cleartext),
            ("Fast Open with a hello", Build::tcp(853, SYN, 7, &CLIENT_HELLO).frame(), hello),
            ("Fast Open in cleartext", Build::tcp(853, SYN, 7, &CLEARTEXT_QUERY).frame(), cleartext),
            (
                "unknown connection",
                data(853, 0, &CLEARTEXT_QUERY).client_port(40_001).frame(),
                pass(Reason::UnknownFlow),
            ),
        ],
    );
}

/// Goal: TLS to the cleartext port is refused when it is certainly TLS, and DNS is never refused. Method: a table.
#[test]
fn tls_on_53_is_refused_and_dns_is_not() {
    let Some(mut lab) = lab_with_flows("tls_on_53_is_refused_and_dns_is_not", Gate::Drop) else { return };
    let dns = pass(Reason::Do53Stream);
    expect(
        &mut lab,
        &[
            ("hello", data(53, 0, &CLIENT_HELLO).frame(), drop(Reason::TlsOnDo53)),
            ("hello over v6", data(53, 0, &CLIENT_HELLO).v6().frame(), drop(Reason::TlsOnDo53)),
            ("Fast Open hello", Build::tcp(53, SYN, 9, &CLIENT_HELLO).frame(), drop(Reason::TlsOnDo53)),
            ("query", data(53, 0, &CLEARTEXT_QUERY).frame(), dns),
            ("length prefix 0x1603 alone", data(53, 0, &[0x16, 3]).frame(), dns),
            ("message of 5635 octets", data(53, 0, &[0x16, 3, 2, 7, 1, 0, 0, 1]).frame(), dns),
            ("hello inside a stream", data(53, 29, &CLIENT_HELLO).frame(), pass(Reason::Stream)),
            ("datagram", Build::udp(53, &CLEARTEXT_QUERY[2..]).frame(), pass(Reason::Do53Datagram)),
            (
                "first fragment of a datagram",
                Build::udp(53, &[0; 64]).fragment(Fragment::First).frame().patched(38, &[5, 0xdc]),
                pass(Reason::Do53Datagram),
            ),
        ],
    );
}

/// Goal: a packet that is not for dotd's ports, or cannot be attributed to them, passes uncounted. Method: a table.
#[test]
fn foreign_and_unattributable_frames_pass_uncounted() {
    let test = "foreign_and_unattributable_frames_pass_uncounted";
    let Some(mut lab) = lab_with_flows(test, Gate::Drop) else { return };
    let clear = || data(853, 0, &CLEARTEXT_QUERY);
    let frame = |build: Build| build.frame();
    let cases = [
        ("another port", frame(data(443, 0, &CLEARTEXT_QUERY))),
        ("our port as source", frame(Build::tcp(40_000, ACK, 1, b"x").client_port(853))),
        ("another datagram", frame(Build::udp(443, b"x"))),
        ("ARP", frame(clear()).patched(12, &[8, 6])),
        ("v4, version 5", frame(clear()).patched(14, &[0x55])),
        ("v4, header of four words", frame(clear()).patched(14, &[0x44])),
        ("v4, later fragment", frame(clear().fragment(Fragment::Later(2)))),
        ("v4, ICMP", frame(clear()).patched(23, &[1])),
        ("v4, cut within the IP header", frame(clear()).cut_to(30)),
        ("v4, cut before the ports", frame(clear()).cut_to(36)),
        ("v6, version 4", frame(clear().v6()).patched(14, &[0x40])),
        ("v6, later fragment", frame(clear().v6().fragment(Fragment::Later(2)))),
        ("v6, chain leads out of the frame", frame(clear().v6().extension(0, 8)).patched(55, &[200])),
        ("v6, encrypted", frame(clear().v6()).patched(20, &[50])),
        ("Ethernet alone", frame(clear()).cut_to(14)),
        ("a VLAN tag alone", frame(clear().tag(0x8100)).cut_to(17)),
    ];
    for (name, frame) in cases {
        expect(&mut lab, &[(name, frame, None)]);
    }
}

/// Goal: a malformed packet to dotd's port is dropped, with the fault as reason. Method: a table of correct frames,
/// each with one field changed.
#[test]
fn lies_are_dropped() {
    let Some(mut lab) = lab_with_flows("lies_are_dropped", Gate::Drop) else { return };
    let tcp = || data(853, 0, &CLIENT_HELLO).frame();
    let tcp6 = || data(853, 0, &CLIENT_HELLO).v6().frame();
    let udp = || Build::udp(53, &CLEARTEXT_QUERY).frame();
    let first = Fragment::First;
    expect(
        &mut lab,
        &[
            ("v4 longer than its frame", tcp().patched(16, &[0, 99]), drop(Reason::IpLength)),
            ("v4 shorter than its header", tcp().patched(16, &[0, 19]), drop(Reason::IpLength)),
            ("v4 cut", tcp().cut_to(60), drop(Reason::IpLength)),
            ("v6 longer than its frame", tcp6().patched(18, &[0, 99]), drop(Reason::IpLength)),
            ("v6 without payload", tcp6().patched(18, &[0, 0]), drop(Reason::TcpTruncated)),
            ("v4 ends in the TCP header", tcp().patched(16, &[0, 39]), drop(Reason::TcpTruncated)),
            ("data offset four", tcp().patched(46, &[0x40]), drop(Reason::TcpDataOffset)),
            ("data offset zero", tcp6().patched(66, &[0]), drop(Reason::TcpDataOffset)),
            ("data offset beyond the end", tcp().patched(46, &[0xf0]), drop(Reason::TcpDataOffset)),
            ("UDP length seven", udp().patched(38, &[0, 7]), drop(Reason::UdpLength)),
            ("UDP length beyond the end", udp().patched(38, &[0, 23]), drop(Reason::UdpLength)),
            ("v4 ends in the UDP header", udp().patched(16, &[0, 27]), drop(Reason::UdpLength)),
            (
                "first fragment",
                data(853, 0, &CLIENT_HELLO).fragment(first).frame(),
                drop(Reason::TcpFragment),
            ),
            (
                "v6 first fragment",
                data(53, 9, &[1; 8]).v6().fragment(first).frame(),
                drop(Reason::TcpFragment),
            ),
            (
                "tiny first fragment",
                { data(853, 0, &[]).fragment(first).frame().patched(16, &[0, 28]) },
                drop(Reason::TcpFragment),
            ),
            ("datagram to 853", Build::udp(853, b"quic").frame(), drop(Reason::UdpOnDot)),
            ("v6 datagram to 8853", Build::udp(8853, b"quic").v6().frame(), drop(Reason::UdpOnDot)),
        ],
    );
}

/// Goal: `count` drops nothing and counts everything; `pass` does not look; malformed packets are dropped in any mode.
#[test]
fn gates_can_count_or_pass() {
    let Some(mut lab) = lab_with_flows("gates_can_count_or_pass", Gate::Count) else { return };
    let gated = [
        (data(853, 0, &CLEARTEXT_QUERY).frame(), Reason::CleartextOnDot),
        (data(53, 0, &CLIENT_HELLO).frame(), Reason::TlsOnDo53),
        (Build::udp(853, b"x").frame(), Reason::UdpOnDot),
    ];
    for (frame, reason) in &gated {
        let would_drop = Some(Verdict { action: Action::WouldDrop, reason: *reason });
        expect(&mut lab, &[(reason.name(), frame.clone(), would_drop)]);
    }
    lab.set(&settings(Gate::Pass));
    for (frame, reason) in &gated {
        expect(&mut lab, &[(reason.name(), frame.clone(), pass(Reason::Ungated))]);
    }
    let lie = data(853, 0, &CLIENT_HELLO).frame().cut_to(60);
    expect(&mut lab, &[("a lie", lie, drop(Reason::IpLength))]);
}

/// Goal: frames larger than a buffer (jumbo MTU) are judged like others. Method: 8,000 octets of payload, which TestRun
/// spreads over several buffers.
#[test]
fn jumbo_frames_are_judged() {
    let Some(mut lab) = lab_with_flows("jumbo_frames_are_judged", Gate::Drop) else { return };
    for (octets, wanted) in
        [(&CLIENT_HELLO[..], pass(Reason::ClientHello)), (b"cleartext", drop(Reason::CleartextOnDot))]
    {
        let mut payload = octets.to_vec();
        payload.resize(8_000, 7);
        expect(&mut lab, &[("jumbo", data(853, 0, &payload).v6().frame(), wanted)]);
        // The opening lies in a later buffer: 4,000 octets of an old retransmission come first.
        let mut late = vec![0; 4_000];
        late.extend(&payload);
        expect(&mut lab, &[("late", data(853, 0u32.wrapping_sub(4_000), &late).frame(), wanted)]);
    }
}

/// Goal: the kernel's learner writes the result of `parse_syn_ack`, for SYN-ACKs from dotd's ports alone, and passes
/// every frame. Method: runs it on built frames and reads the map.
#[test]
fn learner_writes_our_syn_acks_only() {
    let test = "learner_writes_our_syn_acks_only";
    let Some(mut lab) = Lab::open(test, &settings(Gate::Drop)) else { return };
    let others = [
        Build::syn_ack(443, INITIAL).frame(),
        Build::tcp(853, SYN, INITIAL, &[]).frame(),
        Build::tcp(40_000, SYN, INITIAL, &[]).client_port(853).frame(),
        Build::tcp(40_000, ACK, INITIAL, b"octets").client_port(853).v6().frame(),
        Build::udp(40_000, b"octets").client_port(53).frame(),
    ];
    /// TC_ACT_UNSPEC: the next program of the hook decides.
    const NEXT: u32 = u32::MAX;
    for frame in others {
        assert_eq!(lab.learn(&frame.octets), NEXT);
    }
    assert_eq!(lab.flows(), []);
    for (name, shape) in shapes() {
        let frame = shape(Build::syn_ack(853, INITIAL)).frame();
        assert_eq!(lab.learn(&frame.octets), NEXT, "{name}");
        let (key, initial) = parse_syn_ack(&frame.octets.as_slice(), &PORTS).expect(name);
        assert_eq!(initial, INITIAL, "{name}");
        let flow = lab.flow(&key).expect(name);
        assert_eq!((flow.initial, flow.offences), (INITIAL, 0), "{name}");
        assert!(flow.learned_ns > 0, "{name}");
    }
    assert_eq!(lab.flows().len(), 2, "one for each IP version");
}

/// Goal: `reset` turns cleartext into a lawful RST, then into ACKs, towards the local stack. Method: reads the
/// rewritten frames, checksums included, with every arrangement of headers.
#[test]
fn reset_rewrites_into_a_lawful_segment() {
    for (name, shape) in shapes() {
        let test = "reset_rewrites_into_a_lawful_segment";
        let Some(mut lab) = lab_with_flows(test, Gate::Reset) else { return };
        let build = shape(data(853, 0, &CLEARTEXT_QUERY));
        let frame = build.frame();
        for (flag, acknowledgment) in [(RST, 0u32), (ACK, 0x0bad_cafe), (ACK, 0x0bad_cafe)] {
            let outcome = lab.judge(&frame.octets);
            assert_eq!(outcome.verdict, drop(Reason::CleartextOnDot), "{name}");
            assert_eq!(outcome.action, XDP_PASS, "{name}: our stack must see it");
            assert_eq!(outcome.octets.len(), frame.transport + 20, "{name}");
            let (ip, tcp) = outcome.octets[frame.ip..].split_at(frame.transport - frame.ip);
            if ip[0] >> 4 == 4 {
                assert_eq!(checksum(&[ip]), 0, "{name}: IP checksum");
                assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), ip.len() + 20, "{name}");
            } else {
                assert_eq!(usize::from(u16::from_be_bytes([ip[4], ip[5]])), ip.len() - 40 + 20, "{name}");
            }
            assert_eq!(build.transport_checksum(tcp), 0, "{name}: TCP checksum");
            assert_eq!(tcp[4..8], at(0).to_be_bytes(), "{name}: in sequence");
            assert_eq!(tcp[8..12], acknowledgment.to_be_bytes(), "{name}");
            assert_eq!((tcp[12], tcp[13]), (0x50, flag), "{name}");
        }
    }
}
