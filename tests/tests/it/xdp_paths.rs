//! Every way to a listen address is judged, by XDP or at tc ingress, and once: tunnels, interfaces without Ethernet, bridges of
//! containers.
//!
//! Before: namespaces of a thread with the kinds of interfaces that this kernel has. After: reports, counters, and the
//! answers that clients got. Needs root; prints SKIPPED without, and for each kind that the kernel lacks.
//! Never: touches an interface of the machine.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use aya::{
    EbpfLoader,
    programs::{
        SchedClassifier, TcAttachType,
        tc::{self, TcAttachOptions},
    },
    util::KernelVersion,
};
use dot_common::{
    maps::PROGRAM_INGRESS,
    packet::flags,
    rate::Rate,
    settings::{Gate, Settings},
    verdict::{Action, Reason, Verdict},
};
use dot_tests::{
    frames::{ACK, Build, CLEARTEXT_QUERY, CLIENT_HELLO, PSH, QUERY, SYN, shapes},
    harness::{eventually, uninterrupted},
    xdp_field::{begin, beside, count, ip, isolated, listeners, pins, programs_on, try_ip, tun, until_free},
    xdp_lab::{Lab, settings},
};
use dot_userspace::{
    config::{Xdp as Config, XdpMode},
    xdp::{Paths, Report, Xdp, object::OBJECT},
};

/// TC_ACT_UNSPEC: other programs see the packet, then the stack.
const GOES_ON: u32 = u32::MAX;
/// TC_ACT_SHOT.
const ENDS: u32 = 2;

fn mode(report: &Report, name: &str) -> String {
    let row = report.interfaces.iter().find(|row| row.name == name);
    row.unwrap_or_else(|| panic!("{name} is not in {report:#?}")).mode.clone()
}

/// Goal: the judge at tc gives every packet the verdict that XDP gives it, whatever its headers are; a packet that XDP
/// would answer is dropped, and nothing is rewritten. Method: segments and datagrams with every arrangement of headers,
/// given to both programs.
#[test]
fn verdicts_at_tc_are_those_of_xdp() {
    // A rate that admits one packet: both programs share it, so each frame is either the first of its client or above
    // the rate.
    let strict = Settings { local: 3, ..settings(Gate::Drop) };
    let Some(mut lab) = Lab::open("verdicts_at_tc_are_those_of_xdp", &strict) else { return };
    lab.own("192.0.2.1".parse().unwrap(), 32);
    lab.own("2001:db8::1".parse().unwrap(), 64);
    for initial in [Build::syn_ack(853, 6), Build::syn_ack(853, 6).v6()] {
        lab.learn(&initial.frame().octets);
    }
    let mut verdicts = std::collections::BTreeSet::new();
    for (name, shape) in shapes() {
        for (what, build) in [
            ("SYN", Build::tcp(853, SYN, 6, &[])),
            ("cleartext in a SYN", Build::tcp(853, SYN, 6, &CLEARTEXT_QUERY)),
            ("hello", Build::tcp(853, PSH | ACK, 7, &CLIENT_HELLO)),
            ("cleartext", Build::tcp(853, PSH | ACK, 7, &CLEARTEXT_QUERY)),
            ("reset", Build::tcp(853, flags::RST, 7, &[])),
            ("QUIC", Build::udp(853, b"quic?")),
            ("query", Build::udp(53, &QUERY)),
            ("another port", Build::tcp(443, SYN, 6, &[])),
            ("another machine's", Build::tcp(853, SYN, 6, &[])),
        ] {
            let build = shape(build);
            let others: IpAddr =
                if build.source().is_ipv6() { "2001:db8:1::1" } else { "192.0.2.9" }.parse().unwrap();
            let frame = if what == "another machine's" { build.server(others) } else { build }.frame();
            let (by_xdp, by_tc) = (lab.judge(&frame.octets), lab.judge_at_tc(&frame.octets));
            assert_eq!(by_tc.verdict, by_xdp.verdict, "{name}, {what}");
            let ends = by_xdp.verdict.is_some_and(|verdict| verdict.action == Action::Drop);
            assert_eq!(by_tc.action, if ends { ENDS } else { GOES_ON }, "{name}, {what}");
            assert_eq!(by_tc.octets, frame.octets, "{name}, {what}: rewritten");
            verdicts.extend(by_tc.verdict.map(|verdict| format!("{verdict:?}")));
        }
        for cut in [60, 56] {
            let frame = shape(Build::tcp(853, SYN, 6, &CLIENT_HELLO)).frame();
            let cut = frame.octets.len().min(cut);
            let frame = frame.cut_to(cut);
            let (by_xdp, by_tc) = (lab.judge(&frame.octets).verdict, lab.judge_at_tc(&frame.octets).verdict);
            // The length includes the link header: a false length that differs by less is left to the stack, which
            // refuses it.
            let is_lenient = by_tc.is_none_or(|one| one.action == Action::Pass);
            assert!(by_tc == by_xdp || is_lenient, "{name} cut to {cut}: {by_tc:?}, not {by_xdp:?}");
        }
    }
    assert!(verdicts.len() >= 6, "{verdicts:?}");
    let chain = (0..9).fold(Build::tcp(853, SYN, 7, &[]).v6(), |build, _| build.extension(60, 8)).frame();
    assert_eq!(lab.judge_at_tc(&chain.octets).verdict, Some(Verdict::drop(Reason::ChainTooLong)));
    let tags = (0..9).fold(Build::tcp(853, SYN, 7, &[]), |build, _| build.tag(0x8100)).frame();
    assert_eq!(lab.judge_at_tc(&tags.octets).verdict, Some(Verdict::drop(Reason::TooManyTags)));
    // This hook sends no answer.
    let slow = Rate { period_ns: 3_600_000_000_000, tolerance_ns: 0 };
    lab.set(&Settings { do53_query: slow, ..strict });
    let query = Build::udp(53, &QUERY).frame().octets;
    assert_eq!(lab.judge_at_tc(&query).verdict, Some(Verdict::pass(Reason::Do53Datagram)));
    let over = lab.judge_at_tc(&query);
    assert_eq!((over.action, over.verdict), (ENDS, Some(Verdict::drop(Reason::Do53QueryRate))));
}

/// Goal: what comes in through an interface without Ethernet is judged, and its connections are learned. Method: a tun: raw
/// packets in, the stack's SYN-ACK out, cleartext over that connection; a banned client.
#[test]
fn what_comes_through_a_tun_is_judged() {
    isolated("what_comes_through_a_tun_is_judged", || {
        let Some(mut device) = tun("tun9") else {
            println!("SKIPPED what_comes_through_a_tun_is_judged: no tun in this kernel");
            return;
        };
        ip("address add 10.9.0.1/24 dev tun9");
        ip("link set tun9 up");
        let listeners = listeners("0.0.0.0:853", 1);
        let mut xdp = begin(&Config { required: true, ..Config::default() }, &listeners);
        let report = xdp.report();
        assert_eq!(mode(&report, "tun9"), "tc", "{report:#?}");
        assert_eq!(report.paths.not_covered, 0, "{report:#?}");
        let packet = |build: Build| {
            let build = build.client("10.9.0.7".parse().unwrap()).server("10.9.0.1".parse().unwrap());
            let frame = build.frame();
            frame.octets[frame.ip..].to_vec()
        };
        device.write_all(&packet(Build::udp(853, b"quic?"))).unwrap();
        assert_eq!(count(&xdp, "drop", "udp_on_dot"), 1, "a tun hands its packets over at once");
        device.write_all(&packet(Build::tcp(853, SYN, 0xffff_fffe, &[]))).unwrap();
        let sequence = until_syn_ack(&mut device);
        let segment = |payload: &[u8]| {
            let mut build = Build::tcp(853, PSH | ACK, 0xffff_ffff, payload);
            build.acknowledgment = sequence + 1;
            packet(build)
        };
        device.write_all(&segment(&CLEARTEXT_QUERY)).unwrap();
        assert_eq!(count(&xdp, "drop", "cleartext_on_dot"), 1, "{:?}", xdp.packets());
        device.write_all(&segment(&CLIENT_HELLO)).unwrap();
        assert_eq!(count(&xdp, "pass", "client_hello"), 1);
        xdp.apply(&Config { deny: vec!["10.9.0.0/24".parse().unwrap()], ..Config::default() }).unwrap();
        device.write_all(&packet(Build::tcp(853, SYN, 1, &[]).client_port(5))).unwrap();
        assert_eq!(count(&xdp, "drop", "denied"), 1);
        xdp.detach();
        assert_eq!(pins(), Vec::<std::path::PathBuf>::new());
        until_free("here");
    });
}

/// Reads outgoing packets until a SYN-ACK comes; returns its sequence number.
fn until_syn_ack(device: &mut std::fs::File) -> u32 {
    let mut packet = [0; 2048];
    loop {
        let octets = device.read(&mut packet).expect("the stack answers");
        let [head, ..] = packet;
        let tcp = usize::from(head & 0xf) * 4;
        // There are other outgoing packets: those that IPv6 sends when an interface comes up.
        if head >> 4 == 4 && packet[9] == 6 && octets >= tcp + 20 && packet[tcp + 13] == SYN | ACK {
            return u32::from_be_bytes(packet[tcp + 4..tcp + 8].try_into().expect("four"));
        }
    }
}

/// The other end's Ethernet address.
const THERE: &str = "02:00:00:00:53:02";

/// A tunnel between 192.0.2.1 and another address, as `ip link add` makes it: kind and arguments.
const TUNNELS: [(&str, &str); 5] =
    [("vxlan", "id 7 dstport 4789 dev DEV"), ("gre", ""), ("ipip", ""), ("gretap", ""), ("sit", "")];

/// Goal: packets from a tunnel are judged behind the outer headers: cleartext is dropped, a hello arrives, a denied
/// client gets no connection, and nothing is counted twice. Method: each kind of tunnel that this kernel has, between
/// two namespaces. The other end's Ethernet address is known from the beginning, and each tunnel has an outer address of its
/// own. Seen without this on Linux 7.2 and on 6.12 with PREEMPT_RT: what the kernel sent through a tunnel without another end came
/// back as "host unreachable", and the client's ACK of the next connection got a reset. By the kernel's source the error counts for the
/// tunnel (ip_tunnel's err_count), and drops the next request.
#[test]
fn what_a_tunnel_brings_is_judged() {
    isolated("what_a_tunnel_brings_is_judged", || {
        ip(&format!("link set there address {THERE}"));
        for ((kind, arguments), host) in TUNNELS.into_iter().zip(2..) {
            let outer = format!("192.0.2.{host}");
            ip(&format!("neighbour replace {outer} lladdr {THERE} dev here nud permanent"));
            let make = |from: &str, to: &str, device: &str| {
                let arguments = arguments.replace("DEV", device);
                let words = format!("link add tunnel type {kind} local {from} remote {to} {arguments}");
                try_ip(words.trim())
            };
            if !make("192.0.2.1", &outer, "here") {
                println!("SKIPPED a tunnel: this kernel has no {kind}");
                continue;
            }
            // sit carries only IPv6 packets.
            let [ours, theirs] = if kind == "sit" {
                ["2001:db8:9::1/64", "2001:db8:9::2/64"]
            } else {
                ["10.9.0.1/24", "10.9.0.2/24"]
            };
            let address = |prefix: &str| prefix.split('/').next().expect("one").parse::<IpAddr>().unwrap();
            let nodad = if kind == "sit" { " nodad" } else { "" };
            ip(&format!("address add {ours} dev tunnel{nodad}"));
            ip("link set tunnel up");
            let listening = if kind == "sit" { "[::]:853" } else { "0.0.0.0:853" };
            let listeners = listeners(listening, 1);
            let mut xdp = begin(&Config::default(), &listeners);
            assert_eq!(mode(&xdp.report(), "tunnel"), "tc", "{kind}: {:#?}", xdp.report());
            let server = SocketAddr::new(address(ours), 853);
            beside("there", &[&format!("{outer}/24")], || {
                assert!(make(&outer, "192.0.2.1", "there"), "{kind}");
                ip(&format!("address add {theirs} dev tunnel{nodad}"));
                ip("link set tunnel up");
                for (words, is_heard) in [(&CLEARTEXT_QUERY[..], false), (&CLIENT_HELLO[..], true)] {
                    assert_eq!(is_heard_of(&mut xdp, &listeners[0], server, words), is_heard, "{kind}");
                }
                assert_eq!(count(&xdp, "pass", "syn"), 2, "{kind}: {:?}", xdp.packets());
                let deny = vec![address(theirs).into()];
                xdp.apply(&Config { deny, ..Config::default() }).unwrap();
                let refused = TcpStream::connect_timeout(&server, Duration::from_millis(300));
                assert!(refused.is_err(), "{kind}: a denied client connected");
                assert!(count(&xdp, "drop", "denied") > 0, "{kind}");
                ip("link delete tunnel");
            });
            xdp.detach();
            ip("link delete tunnel");
            until_free("here");
        }
    });
}

/// Sends octets over a new connection, which the listener accepts; returns whether they arrived or were refused.
fn is_heard_of(xdp: &mut Xdp, listener: &TcpListener, server: SocketAddr, words: &[u8]) -> bool {
    let refused = || count(xdp, "drop", "cleartext_on_dot");
    let before = refused();
    let client = TcpStream::connect_timeout(&server, Duration::from_secs(30));
    let mut client = client.unwrap_or_else(|error| panic!("{server}: {error}, {:?}", xdp.packets()));
    listener.set_nonblocking(true).unwrap();
    let (mut ours, _) = eventually("the listener has the connection", || listener.accept().ok());
    ours.set_nonblocking(true).unwrap();
    client.write_all(words).unwrap();
    let counts = || xdp.packets().into_iter().filter(|row| row.count > 0).collect::<Vec<_>>();
    eventually(&format!("it is heard, or refused, beside {:?}", counts()), || {
        let mut octets = [0; 64];
        match uninterrupted(|| ours.read(&mut octets)) {
            Ok(count) => Some(count > 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => (refused() > before).then_some(false),
            Err(error) => panic!("{error}"),
        }
    })
}

/// Goal: a wildcard takes a bridge of containers once, at tc, and none of its ports, so that traffic between containers
/// costs nothing; a port that is added later changes nothing, and a bridge with a network card is judged at its ports.
/// Method: a bridge over veths, connections to it from a container over both IP versions.
#[test]
fn a_bridge_of_containers_is_judged_at_the_bridge() {
    isolated("a_bridge_of_containers_is_judged_at_the_bridge", || {
        ip("link add bridge type bridge");
        ip("address del 192.0.2.1/24 dev here");
        ip("link set here master bridge");
        ip("address add 192.0.2.1/24 dev bridge");
        ip("address add 2001:db8:9::1/64 dev bridge nodad");
        ip("link set bridge up");
        let listeners = listeners("[::]:853", 1);
        let mut xdp = begin(&Config { required: true, ..Config::default() }, &listeners);
        let names = |report: &Report| -> Vec<String> {
            report.interfaces.iter().map(|row| format!("{} {}", row.name, row.mode)).collect()
        };
        // `there` is a veth of this namespace, as in a container.
        assert_eq!(names(&xdp.report()), ["bridge tc", "lo tc", "there tc"]);
        assert_eq!(xdp.report().paths, Paths { xdp: 0, tc: 3, not_covered: 0 });
        assert!(!programs_on("here").contains("prog/xdp"), "{}", programs_on("here"));
        ip("link add another type veth peer name container");
        ip("link set another master bridge");
        ip("link set another up");
        xdp.look_after(true);
        assert_eq!(mode(&xdp.report(), "bridge"), "tc");
        assert!(xdp.report().interfaces.iter().all(|row| row.name != "another"), "{:#?}", xdp.report());
        beside("there", &["192.0.2.2/24"], || {
            ip("address add 2001:db8:9::2/64 dev there nodad");
            for server in ["192.0.2.1:853", "[2001:db8:9::1]:853"] {
                let server = server.parse().unwrap();
                assert!(is_heard_of(&mut xdp, &listeners[0], server, &CLIENT_HELLO));
                assert!(!is_heard_of(&mut xdp, &listeners[0], server, &CLEARTEXT_QUERY));
            }
        });
        // A SYN may be sent again while the neighbour's address is resolved; a hello is not.
        assert_eq!(count(&xdp, "pass", "client_hello"), 2, "once each: {:?}", xdp.packets());
        xdp.detach();
        until_free("there");
    });
}

/// Goal: in a container dotd costs the container's traffic least by default, and gives it XDP where the config asks for it. Method:
/// a namespace whose only interface is a veth, as in a container; every mode, and a named interface.
#[test]
fn a_containers_own_end_is_judged_at_tc_by_default() {
    isolated("a_containers_own_end_is_judged_at_tc_by_default", || {
        let listeners = listeners("0.0.0.0:853", 1);
        let named = || vec!["here".to_owned()];
        for (config, expected) in [
            (Config { required: true, ..Config::default() }, "tc"),
            (Config { mode: XdpMode::Native, ..Config::default() }, "native"),
            (Config { mode: XdpMode::Generic, ..Config::default() }, "generic"),
            (Config { interfaces: named(), ..Config::default() }, "native"),
        ] {
            let mut xdp = begin(&config, &listeners);
            assert_eq!(mode(&xdp.report(), "here"), expected, "{:#?}", xdp.report());
            assert_eq!(xdp.report().degraded, None);
            beside("there", &["192.0.2.2/24"], || {
                let server = "192.0.2.1:853".parse().unwrap();
                assert!(is_heard_of(&mut xdp, &listeners[0], server, &CLIENT_HELLO));
                assert!(!is_heard_of(&mut xdp, &listeners[0], server, &CLEARTEXT_QUERY));
                // Longer than what is gathered of a short packet: the gate reads it where it lies.
                let long = |first: &[u8]| [first, &[0x17; 900]].concat();
                assert!(is_heard_of(&mut xdp, &listeners[0], server, &long(&CLIENT_HELLO)));
                assert!(!is_heard_of(&mut xdp, &listeners[0], server, &long(&CLEARTEXT_QUERY)));
            });
            assert_eq!(count(&xdp, "pass", "syn"), 4, "once each: {:?}", xdp.packets());
            xdp.detach();
            until_free("here");
        }
    });
}

/// Goal: an interface that is made a port while dotd runs is judged at one place, as if it had been a port before, and
/// a bridge without ports is judged at tc until it gets some. Method: a bridge is made, dotd starts, the pair's end
/// becomes its port; connections through it are counted once each.
#[test]
fn an_interface_that_becomes_a_port_is_judged_once() {
    isolated("an_interface_that_becomes_a_port_is_judged_once", || {
        ip("link add bridge type bridge");
        ip("link set bridge up");
        let listeners = listeners("0.0.0.0:853", 1);
        let mut xdp = begin(&Config { required: true, ..Config::default() }, &listeners);
        assert_eq!(mode(&xdp.report(), "bridge"), "tc", "{:#?}", xdp.report());
        assert_eq!(mode(&xdp.report(), "here"), "tc", "{:#?}", xdp.report());
        ip("address del 192.0.2.1/24 dev here");
        ip("link set here master bridge");
        ip("address add 192.0.2.1/24 dev bridge");
        xdp.look_after(true);
        let report = xdp.report();
        assert!(report.interfaces.iter().all(|row| row.name != "here"), "{report:#?}");
        assert_eq!((mode(&report, "bridge").as_str(), report.degraded.as_deref()), ("tc", None));
        let server = "192.0.2.1:853".parse().unwrap();
        beside("there", &["192.0.2.2/24"], || {
            assert!(is_heard_of(&mut xdp, &listeners[0], server, &CLIENT_HELLO));
        });
        assert_eq!(count(&xdp, "pass", "syn"), 1, "once: {:?}", xdp.packets());
        ip("link set here nomaster");
        xdp.look_after(true);
        assert_eq!(mode(&xdp.report(), "here"), "tc", "{:#?}", xdp.report());
        xdp.detach();
        assert_eq!(pins(), Vec::<std::path::PathBuf>::new());
        until_free("here");
    });
}

/// Goal: before Linux 6.6, where tc's programs are filters that stay after a crash, the next start removes those of its
/// predecessor, also where XDP judges now: no packet is judged twice. Method: the judge as a filter on the pair's end,
/// as after a crash, then a start.
#[test]
fn a_filter_that_a_crash_left_is_taken_off() {
    if KernelVersion::current().unwrap() >= KernelVersion::new(6, 6, 0) {
        println!("SKIPPED a_filter_that_a_crash_left_is_taken_off: this kernel has links for tc's programs");
        return;
    }
    isolated("a_filter_that_a_crash_left_is_taken_off", || {
        let mut object = EbpfLoader::new().load(OBJECT).unwrap();
        let program = object.program_mut(PROGRAM_INGRESS).unwrap();
        let program: &mut SchedClassifier = program.try_into().unwrap();
        program.load().unwrap();
        tc::qdisc_add_clsact("here").unwrap();
        let options = TcAttachOptions::Netlink(tc::NlOptions::default());
        let id = program.attach_with_options("here", TcAttachType::Ingress, options).unwrap();
        std::mem::forget(program.take_link(id).unwrap());
        let listeners = listeners("0.0.0.0:853", 1);
        let named = Config { interfaces: vec!["here".into()], ..Config::default() };
        let xdp = begin(&named, &listeners);
        assert_eq!(mode(&xdp.report(), "here"), "native", "{:#?}", xdp.report());
        let left = tc::qdisc_detach_program("here", TcAttachType::Ingress, PROGRAM_INGRESS);
        assert!(left.is_err(), "the predecessor's filter judged beside XDP");
        xdp.detach();
        until_free("here");
    });
}

/// Goal: with an address to listen on, the interfaces that do not carry it are judged too, at tc; with `xdp.interfaces`
/// the report says that they are not covered, and `required` does not fail for that. Method: two pairs, a packet
/// through the second to the first one's address.
#[test]
fn an_address_is_judged_on_every_way_in() {
    isolated("an_address_is_judged_on_every_way_in", || {
        ip("link add second type veth peer name behind");
        ip("address add 198.51.100.1/24 dev second");
        ip("link set second up");
        let listeners = listeners("192.0.2.1:853", 1);
        let named = Config { interfaces: vec!["here".into()], required: true, ..Config::default() };
        let xdp = begin(&named, &listeners);
        let report = xdp.report();
        let left = report.interfaces.iter().find(|row| row.name == "second").expect("it is said");
        assert_eq!((left.mode.as_str(), left.reason.as_deref()), ("off", Some("not in xdp.interfaces")));
        assert_eq!((report.degraded, report.paths.not_covered), (None, 2));
        xdp.detach();
        until_free("here");
        let mut xdp = begin(&Config { required: true, ..Config::default() }, &listeners);
        assert_eq!(mode(&xdp.report(), "second"), "tc");
        beside("behind", &["198.51.100.2/24"], || {
            ip("route add 192.0.2.1 via 198.51.100.1");
            let server = "192.0.2.1:853".parse().unwrap();
            assert!(!is_heard_of(&mut xdp, &listeners[0], server, &CLEARTEXT_QUERY));
        });
        assert_eq!(count(&xdp, "pass", "syn"), 1);
        xdp.detach();
        until_free("here");
    });
}
