//! No packet reaches a listener of dotd unjudged: every packet that the stack accepts was counted with a verdict.
//!
//! Before: SYNs with every arrangement of headers that this kernel's stack was seen to accept, and some that it may
//! accept. After: the kernel's count of TCP segments, and the kernel half's count of verdicts. Needs root; prints
//! SKIPPED without. Never: trusts a document about what a stack accepts; the test tries it without XDP first.

use std::fs;

use dot_tests::{
    frames::{Build, Fragment, Frame, SYN},
    harness::{
        config::Config,
        eventually,
        flood::Wire,
        netns::{Network, SERVER_V4, SERVER_V6, address},
        server::Server,
    },
    require,
};

/// No machine has these addresses, so that no answer comes back.
const CLIENTS: [&str; 2] = ["10.53.0.99", "fd53::99"];

fn v4(port: u16) -> Build {
    Build::tcp(853, SYN, 7, &[]).client_port(port).client(address(CLIENTS[0])).server(SERVER_V4)
}

fn v6(port: u16) -> Build {
    Build::tcp(853, SYN, 7, &[]).client_port(port).client(address(CLIENTS[1])).server(SERVER_V6)
}

/// Tags of VLAN 0, which the stack removes, however many there are.
fn tagged(build: Build, tags: usize) -> Frame {
    let frame = (0..tags).fold(build, |build, _| build.tag(0x8100)).frame();
    (0..tags).fold(frame, |frame, tag| frame.patched(14 + tag * 4, &[0, 0]))
}

/// Cuts what follows the IPv6 header of a frame into two fragments, the first of them of this length.
fn fragments_v6(frame: &Frame, octets: usize, id: u8) -> [Frame; 2] {
    let (header, body) = frame.octets.split_at(frame.ip + 40);
    [(0u16, 1u16, &body[..octets]), (octets as u16, 0, &body[octets..])].map(|(offset, more, part)| {
        let mut all = header.to_vec();
        let next = std::mem::replace(&mut all[frame.ip + 6], 44);
        let length = (part.len() + 8) as u16;
        all[frame.ip + 4..frame.ip + 6].copy_from_slice(&length.to_be_bytes());
        all.extend([next, 0]);
        all.extend((offset | more).to_be_bytes());
        all.extend([0, 0, 1, id]);
        all.extend(part);
        Frame { octets: all, ip: frame.ip, transport: frame.transport }
    })
}

/// The same of IPv4, whose checksum is made anew.
fn fragments_v4(frame: &Frame, octets: usize, id: u8) -> [Frame; 2] {
    let (header, body) = frame.octets.split_at(frame.transport);
    [(0u16, 0x2000u16, &body[..octets]), ((octets / 8) as u16, 0, &body[octets..])].map(
        |(offset, more, part)| {
            let mut all = header.to_vec();
            let ip = &mut all[frame.ip..];
            let length = (ip.len() + part.len()) as u16;
            ip[2..4].copy_from_slice(&length.to_be_bytes());
            ip[4..6].copy_from_slice(&[9, id]);
            ip[6..8].copy_from_slice(&(offset | more).to_be_bytes());
            ip[10..12].copy_from_slice(&[0, 0]);
            let checksum = dot_tests::frames::checksum(&[ip]);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            all.extend(part);
            Frame { octets: all, ip: frame.ip, transport: frame.transport }
        },
    )
}

/// SYNs with unusual headers, each from a port of its own; some consist of several frames.
fn probes() -> Vec<Frame> {
    let mut ports = 2_000..;
    let mut port = || ports.next().expect("enough");
    let mut probes = vec![v4(port()).frame(), v6(port()).frame()];
    for number in [60, 43] {
        for headers in 1..=20 {
            probes.push((0..headers).fold(v6(port()), |build, _| build.extension(number, 8)).frame());
        }
    }
    for headers in 1..=12 {
        let build = v6(port()).extension(0, 8);
        probes.push((1..headers).fold(build, |build, _| build.extension(60, 8)).frame());
        // The stack takes such a length for that of a jumbogram, although its option is missing.
        let build = (1..headers).fold(v6(port()).extension(0, 8), |build, _| build.extension(60, 8));
        let frame = build.frame();
        let length = frame.ip + 4;
        probes.push(frame.patched(length, &[0, 0]));
    }
    probes.push(v6(port()).fragment(Fragment::Atomic).frame());
    probes.push(v6(port()).extension(60, 8).fragment(Fragment::Atomic).frame());
    for options in [4, 12, 40] {
        probes.push(v4(port()).ip_options(options).frame());
    }
    for tags in 1..=12 {
        probes.push(tagged(v4(port()), tags));
        probes.push(tagged(v6(port()).extension(60, 8), tags));
    }
    for octets in [8, 16, 24, 32, 40, 48] {
        let whole = v6(port()).extension(60, 16).extension(60, 16).tcp_options(12).frame();
        probes.extend(fragments_v6(&whole, octets, octets as u8));
    }
    for octets in [8, 16, 24] {
        probes.extend(fragments_v4(&v4(port()).tcp_options(12).frame(), octets, octets as u8));
    }
    probes
}

/// The number of TCP segments that the server's stack received, whatever it did with them.
fn segments(network: &Network) -> u64 {
    let text = network.server.run(|| fs::read_to_string("/proc/thread-self/net/snmp").expect("readable"));
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let place = names.split(' ').position(|name| name == "InSegs").expect("a counter of Linux");
    values.split(' ').nth(place).and_then(|value| value.parse().ok()).expect("a number")
}

/// Sends all probes, one after the other, and a plain SYN last; returns how many of them the stack received.
fn taken(network: &Network, until: impl Fn() -> bool) -> u64 {
    let wire = Wire::open(network);
    let before = segments(network);
    for frame in probes() {
        assert!(wire.send(frame), "the pair takes it");
    }
    eventually("frames have come", || until().then_some(()));
    let mut last = u64::MAX;
    eventually("the stack has taken all", || {
        let now = segments(network);
        std::mem::replace(&mut last, now).eq(&now).then_some(())
    });
    last - before
}

/// Goal: every packet that the stack accepts was judged: no chain of extension headers, no fragment and no tag hides a
/// SYN, neither from the counters nor from the deny list. Method: some hundred SYNs with unusual headers, first without
/// XDP, which shows how many of them this kernel accepts; then every segment that TCP received must have been counted
/// as passed, and none of a denied client may pass.
#[test]
fn what_reaches_a_listener_was_judged() {
    require!(Root, Bpf);
    let network = Network::new();
    let dotd = Server::start(&network, &Config::new().xdp("off"));
    let plain = taken(&network, || true);
    dotd.stop();
    println!("{plain} segments without XDP");
    assert!(plain > 90, "this kernel takes few of these shapes: {plain}");
    for mode in ["generic", "native"] {
        let network = Network::new();
        let dotd = Server::start(&network, &Config::new().xdp(mode));
        let passed = || dotd.stats().packets("pass", "");
        let reached = taken(&network, || passed() > 0);
        let passed = passed();
        println!("{mode}: {reached} segments, {passed} passed, {} dropped", dotd.stats().packets("drop", ""));
        assert_eq!(reached, passed, "{mode}: a segment came through without a verdict: {:?}", dotd.stats());
        assert!(dotd.stats().packets("drop", "ipv6_chain_too_long") > 0);
        assert!(dotd.stats().packets("drop", "ipv6_chain_cut") > 0);
        assert!(dotd.stats().packets("drop", "too_many_vlan_tags") > 0);
        dotd.stop();

        let network = Network::new();
        let deny = format!("[\"{}/32\", \"{}/128\"]", CLIENTS[0], CLIENTS[1]);
        let dotd = Server::start(&network, &Config::new().xdp(mode).set("xdp", "deny", &deny));
        let reached = taken(&network, || dotd.stats().packets("drop", "denied") > 0);
        assert_eq!(reached, 0, "{mode}: a denied client got through: {:?}", dotd.stats());
        dotd.stop();
    }
}
