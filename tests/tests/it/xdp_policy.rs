//! The written policy: the compiled program treats each kind of frame as `docs/packets.md` says.
//!
//! Holds: one built frame for each row of the table. Needs root; prints SKIPPED without. Never: attaches anything.

use std::collections::BTreeMap;

use dot_common::{
    counters,
    settings::Gate,
    verdict::{Action, Reason},
};
use dot_tests::{
    frames::{ACK, Build, CLEARTEXT_QUERY, CLIENT_HELLO, Fragment, Frame, PSH, SYN},
    xdp_lab::{Lab, XDP_DROP, XDP_PASS, settings},
};

const POLICY: &str = include_str!("../../../docs/packets.md");
const INITIAL: u32 = 7;

/// The name of each frame in the table, and its counter; `None`: it is counted nowhere.
fn written() -> BTreeMap<&'static str, Option<&'static str>> {
    let rows = POLICY.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    rows.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, counter] = cells[..] else { panic!("three cells: {line}") };
        (name, (counter != "-").then_some(counter))
    })
    .collect()
}

fn data(port: u16, payload: &[u8]) -> Build {
    Build::tcp(port, PSH | ACK, INITIAL + 1, payload)
}

fn clear() -> Build {
    data(853, &CLEARTEXT_QUERY)
}

/// States another IPv4 length.
fn claiming(frame: Frame, octets: u8) -> Frame {
    let at = frame.ip + 2;
    frame.patched(at, &[0, octets])
}

fn cut(frame: Frame, after: usize) -> Frame {
    let octets = frame.transport + after;
    frame.cut_to(octets)
}

/// So large that it needs several buffers.
fn jumbo(payload: &[u8]) -> Vec<u8> {
    let mut octets = payload.to_vec();
    octets.resize(8_000, 7);
    octets
}

fn runts() -> Vec<(&'static str, Frame)> {
    let segment = || clear().frame();
    let tcp = || Build::tcp(853, ACK, INITIAL + 1, &[]).frame();
    let udp = || Build::udp(53, &[]).frame();
    vec![
        ("runt: Ethernet header alone", segment().cut_to(14)),
        ("runt: ends within a VLAN tag", clear().tag(0x8100).frame().cut_to(17)),
        ("runt: ends within its IPv4 header", segment().cut_to(30)),
        ("runt: ends within its IPv6 header", clear().v6().frame().cut_to(50)),
        ("runt: ends before its ports", cut(segment(), 2)),
        ("runt: ends within its TCP header, as its IP length says", cut(claiming(tcp(), 36), 16)),
        ("runt: ends within its TCP header, against its IP length", cut(tcp(), 16)),
        ("runt: ends within its UDP header, as its IP length says", cut(claiming(udp(), 26), 6)),
        ("runt: padded to sixty octets", Build::tcp(853, ACK, INITIAL + 1, &[]).padding(6).frame()),
    ]
}

fn headers() -> Vec<(&'static str, Frame)> {
    let tcp = || data(853, &CLIENT_HELLO).frame();
    let udp = || Build::udp(53, &CLEARTEXT_QUERY).frame();
    let of_tcp = |offset: usize| tcp().transport + offset;
    let of_udp = |offset: usize| udp().transport + offset;
    let eight = |build: Build| build.extension(60, 8);
    let chain_of = |headers| (1..headers).fold(clear().v6().extension(0, 8), |build, _| eight(build));
    let tagged = |tags| (0..tags).fold(clear(), |build, _| build.tag(0x8100)).frame();
    let nowhere = Build::tcp(443, ACK, 1, &[]).v6().extension(0, 8);
    let nine = (0..8).fold(nowhere, |build, _| eight(build)).frame();
    let options = clear().v6().extension(0, 8).frame();
    let length_v6 = options.ip + 4;
    let chain = clear().v6().extension(0, 8).frame();
    let chain_length = chain.ip + 41;
    vec![
        ("header: IPv4 of four words", clear().frame().patched(14, &[0x44])),
        ("header: eight VLAN tags", tagged(8)),
        ("header: nine VLAN tags", tagged(9)),
        ("header: eight IPv6 extension headers", chain_of(8).frame()),
        ("header: nine IPv6 extension headers, to any port", nine),
        ("header: IPv6 options before a payload of length zero", options.patched(length_v6, &[0, 0])),
        ("header: IPv6 chain that leads out of the frame", chain.patched(chain_length, &[200])),
        ("header: TCP data offset of four words", tcp().patched(of_tcp(12), &[0x40])),
        ("header: TCP data offset beyond the segment", tcp().patched(of_tcp(12), &[0xf0])),
        ("header: IP length beyond the frame", claiming(tcp(), 99)),
        ("header: IP length below its own header", claiming(tcp(), 19)),
        ("header: UDP length of seven", udp().patched(of_udp(4), &[0, 7])),
        ("header: UDP length beyond the datagram", udp().patched(of_udp(4), &[0, 23])),
        ("datagram: eight octets to port 53, no message", Build::udp(53, &[]).frame()),
    ]
}

fn fragments() -> Vec<(&'static str, Frame)> {
    use Fragment::{Atomic, First, Later};
    let hello = || data(853, &CLIENT_HELLO);
    let tiny = Build::tcp(853, SYN, INITIAL, &[]).fragment(First).frame();
    let tiny = cut(claiming(tiny, 28), 8);
    let query = Build::udp(53, &[0; 64]).fragment(First).frame();
    // A fragment header with more to come, then options of sixteen octets, whose payload ends after that many octets.
    let chain = |octets: u8| {
        let whole = hello().v6().extension(44, 8).extension(60, 16).frame();
        let (length, more) = (whole.ip + 4, whole.ip + 42);
        whole.patched(more, &[0, 1]).patched(length, &[0, octets])
    };
    let cut_chain = |octets: u8| {
        let frame = chain(octets);
        let end = frame.ip + 40 + usize::from(octets);
        frame.cut_to(end)
    };
    // The UDP length counts the fragments to come too.
    let length = query.transport + 4;
    vec![
        ("fragment: first of a TCP segment", hello().fragment(First).frame()),
        ("fragment: first of a TCP segment over IPv6", hello().v6().fragment(First).frame()),
        ("fragment: first of a TCP segment, eight octets", tiny),
        ("fragment: later, of a TCP segment", hello().fragment(Later(3)).frame()),
        ("fragment: later, over the first one's TCP header", hello().fragment(Later(1)).frame()),
        ("fragment: later, over IPv6", hello().v6().fragment(Later(3)).frame()),
        ("fragment: first of a query to port 53", query.patched(length, &[5, 0xdc])),
        ("fragment: first of a datagram to port 853", Build::udp(853, &[0; 64]).fragment(First).frame()),
        (
            "fragment: first, shorter than a UDP header",
            cut(claiming(Build::udp(53, &[]).fragment(First).frame(), 24), 4),
        ),
        ("fragment: first, ends within its IPv6 extension headers", cut_chain(16)),
        ("fragment: first, ends behind its IPv6 extension headers", cut_chain(24)),
        ("fragment: first, ends within its headers, padded", chain(16)),
        ("fragment: atomic over IPv6", hello().v6().fragment(Atomic).frame()),
    ]
}

fn the_rest() -> Vec<(&'static str, Frame)> {
    let old = Build::tcp(853, PSH | ACK, (INITIAL + 1).wrapping_sub(4_000), &{
        let mut octets = vec![0; 4_000];
        octets.extend(jumbo(b"cleartext"));
        octets
    });
    let far = data(853, &jumbo(b"cleartext")).v6().extension(60, 2048).extension(60, 2048);
    vec![
        ("buffers: a hello in several", data(853, &jumbo(&CLIENT_HELLO)).v6().frame()),
        ("buffers: cleartext in several", data(853, &jumbo(b"cleartext")).v6().frame()),
        ("buffers: the stream begins in a later one", old.v6().frame()),
        ("buffers: IPv6 extension headers beyond the first", far.frame()),
        ("connection: SYN", Build::tcp(853, SYN, INITIAL, &[]).frame()),
        ("connection: cleartext where TLS begins", clear().frame()),
        ("connection: TLS on port 53", data(53, &CLIENT_HELLO).frame()),
        ("connection: octets of one whose beginning we did not see", clear().client_port(40_001).frame()),
        ("datagram: any to port 853", Build::udp(853, b"quic?").frame()),
    ]
}

/// Goal: the kernel treats each kind of frame as the page says, also runts, fragments, malformed frames and frames in
/// several buffers; and every row has a frame. Method: the table of `docs/packets.md`, row by row. Covers,
///
#[test]
fn packets_become_what_is_written() {
    let Some(mut lab) = Lab::open("packets_become_what_is_written", &settings(Gate::Drop)) else { return };
    for port in [853, 53] {
        lab.learn(&Build::syn_ack(port, INITIAL).frame().octets);
        lab.learn(&Build::syn_ack(port, INITIAL).v6().frame().octets);
    }
    let mut rows = written();
    for (name, frame) in [runts(), headers(), fragments(), the_rest()].concat() {
        let wanted = rows.remove(name).unwrap_or_else(|| panic!("docs/packets.md has no row {name:?}"));
        let outcome = lab.judge(&frame.octets);
        let found =
            outcome.verdict.map(|verdict| format!("{} {}", verdict.action.name(), verdict.reason.name()));
        assert_eq!(found.as_deref(), wanted, "{name}");
        let is_dropped = wanted.is_some_and(|counter| counter.starts_with("drop "));
        assert_eq!(outcome.action, if is_dropped { XDP_DROP } else { XDP_PASS }, "{name}");
    }
    assert!(rows.is_empty(), "rows without a frame: {:?}", rows.keys());
}

/// Goal: an operator can see the effect of every gate and limit before it refuses a client: each reason to drop can be counted
/// instead, except for an operator's own list and for packets that no stack accepts, of which docs/packets.md has a frame each.
/// Method: all verdicts.
#[test]
fn whatever_may_be_refused_may_be_counted_first() {
    let has = |reason: Reason, action| reason.actions().contains(&action);
    let always =
        Reason::ALL.iter().filter(|reason| has(**reason, Action::Drop) && !has(**reason, Action::WouldDrop));
    let names: Vec<_> = always.map(|reason| reason.name()).collect();
    let wanted = [
        // No refusal: a frame that could not be made an answer, and is no SYN any more.
        "syn_cookie",
        "denied",
        "tcp_fragment",
        "malformed_ip_length",
        "malformed_tcp_truncated",
        "malformed_tcp_data_offset",
        "malformed_udp_length",
        "ipv6_chain_too_long",
        "ipv6_chain_cut",
        "too_many_vlan_tags",
        // An operator's switch, and no limit.
        "dot_off",
    ];
    assert_eq!(
        names, wanted,
        "a reason that is never counted instead: give it the actions GATED or LIMITED in verdict.rs, or add it to this list"
    );
    let by_settings = ["syn_cookie", "denied", "dot_off"];
    let rows = written();
    for name in names.iter().filter(|name| !by_settings.contains(name)) {
        let counter = format!("drop {name}");
        let has_row = rows.values().any(|row| row.is_some_and(|row| row == counter));
        assert!(has_row, "docs/packets.md has no frame with the counter `{counter}`");
    }
    assert!(counters::rows().all(|row| row.action != Action::WouldDrop || has(row.reason, Action::Drop)));
}
