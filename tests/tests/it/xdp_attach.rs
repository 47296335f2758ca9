//! The loader on real interfaces: what it attaches, pins, hands over and leaves behind.
//!
//! Holds: each test in a thread with a network and a mount namespace of its own: veth, pins and mounts end with the
//! thread, also after a panic. Needs root; prints SKIPPED without.
//! Never: touches an interface or a pin of the machine.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use aya::util::KernelVersion;
use dot_tests::{
    frames::Build,
    harness::{eventually, flood::Wire, uninterrupted},
    xdp_field::{
        become_nobody, begin, beside, count, ip, isolated, listeners, pins, programs_on, try_begin,
        until_free,
    },
};
use dot_userspace::{
    config::{Gate, Xdp as Config, XdpMode},
    xdp::{ListenerGroup, Report, Xdp, start},
};

/// The next connection of any listener, blocking.
fn accept_any(listeners: &[TcpListener]) -> TcpStream {
    loop {
        for listener in listeners {
            listener.set_nonblocking(true).unwrap();
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The control thread owns it, so it must be able to move there.
#[expect(dead_code, reason = "compiling is the test")]
fn moves_between_threads(xdp: Xdp) -> impl Send {
    xdp
}

fn interface(report: &Report, name: &str) -> (String, String) {
    let row = report.interfaces.iter().find(|row| row.name == name);
    let row = row.unwrap_or_else(|| panic!("{name} is not in {report:#?}"));
    (row.mode.clone(), row.learner.clone())
}

/// Goal: native where the driver can, generic on loopback, cleartext refused and counted, nothing left.
/// Method: a wildcard listener of two workers; a client on loopback says cleartext, then a ClientHello.
/// Covers: C-3.
#[test]
fn attaches_judges_and_leaves_nothing() {
    isolated("attaches_judges_and_leaves_nothing", || {
        let listeners = listeners("0.0.0.0:853", 2);
        let both = vec!["here".to_owned(), "lo".to_owned()];
        let xdp = begin(&Config { interfaces: both, ..Config::default() }, &listeners);
        let report = xdp.report();
        assert_eq!(report.state, "mixed", "{report:#?}");
        let learner =
            if KernelVersion::current().unwrap() < KernelVersion::new(6, 6, 0) { "clsact" } else { "tcx" };
        assert_eq!(interface(&report, "here"), ("native".into(), learner.into()));
        assert_eq!(interface(&report, "lo"), ("generic".into(), learner.into()));
        assert_eq!(report.steering, "reuseport-ebpf", "{report:#?}");
        assert_eq!(report.programs.len(), 6, "{report:#?}");
        assert!(programs_on("here").contains("prog/xdp"), "{}", programs_on("here"));

        let mut liar = TcpStream::connect("127.0.0.1:853").unwrap();
        liar.write_all(b"\x00\x1dcleartext").unwrap();
        let mut client = TcpStream::connect("127.0.0.1:853").unwrap();
        client.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).unwrap();
        // The honest client's octets arrive; the other client's octets, sent before, would have arrived by then.
        let heard = [accept_any(&listeners), accept_any(&listeners)];
        let is_client = |stream: &&TcpStream| stream.peer_addr().unwrap() == client.local_addr().unwrap();
        let mut octets = [0; 9];
        let mut honest = heard.iter().find(is_client).unwrap();
        honest.read_exact(&mut octets).expect("the hello arrives");
        let mut lying = heard.iter().find(|stream| !is_client(stream)).unwrap();
        lying.set_nonblocking(true).unwrap();
        assert_eq!(uninterrupted(|| lying.read(&mut octets)).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(count(&xdp, "drop", "cleartext_on_dot") >= 1);
        assert_eq!(count(&xdp, "pass", "client_hello"), 1);
        assert_eq!(count(&xdp, "pass", "own"), 2, "a machine's own SYN meet no limit");

        xdp.detach();
        assert_eq!(pins(), Vec::<PathBuf>::new());
        until_free("here");
    });
}

/// Sends cleartext to `address` and waits for the reset; returns what it got otherwise.
fn is_reset(address: &str) -> Result<(), String> {
    let mut client = TcpStream::connect(address).map_err(|error| error.to_string())?;
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.write_all(b"\x00\x1dcleartext").unwrap();
    match uninterrupted(|| client.read(&mut [0; 9])) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => Err(format!("{address}: {other:?}")),
    }
}

/// Goal: `reset` ends the connection on both sides, in generic mode. Method: a client on loopback sends cleartext until
/// it gets the reset.
#[test]
fn reset_ends_the_connection() {
    isolated("reset_ends_the_connection", || {
        for address in ["127.0.0.1:853", "[::1]:853"] {
            let listeners = listeners(address, 1);
            let config = Config { cleartext_853: Gate::Reset, ..Config::default() };
            let xdp = begin(&config, &listeners);
            is_reset(address).unwrap();
            assert!(count(&xdp, "drop", "cleartext_on_dot") >= 2, "{address}");
            xdp.detach();
        }
    });
}

/// Goal: the same through a driver: native mode, real checksum offload, both IP versions, then `drop`.
/// Method: a client in a namespace of its own, at the other end of the veth pair.
#[test]
fn native_mode_resets_and_drops() {
    isolated("native_mode_resets_and_drops", || {
        ip("address add 2001:db8::1/64 dev here nodad");
        let listeners =
            [listeners("192.0.2.1:853", 1), listeners("[2001:db8::1]:853", 1)].map(|mut one| one.remove(0));
        let groups: Vec<_> = listeners
            .iter()
            .map(|one| ListenerGroup { address: one.local_addr().unwrap(), sockets: vec![one.as_fd()] })
            .collect();
        let native = Config { mode: XdpMode::Native, ..Config::default() };
        let config = Config { cleartext_853: Gate::Reset, ..native.clone() };
        let mut xdp = start(&config, &groups).unwrap();
        assert_eq!(interface(&xdp.report(), "there").0, "tc", "the other way in: {:#?}", xdp.report());
        assert_eq!(xdp.report().state, "native");
        let outcomes = beside("there", &["192.0.2.2/24", "2001:db8::2/64"], || {
            ["192.0.2.1:853", "[2001:db8::1]:853"].map(is_reset)
        });
        assert_eq!(outcomes, [Ok(()), Ok(())]);
        let resets = count(&xdp, "drop", "cleartext_on_dot");
        assert!(resets >= 4, "{resets}");

        xdp.apply(&native).unwrap();
        assert_eq!(native.cleartext_853, Gate::Drop);
        beside("there", &["192.0.2.2/24", "2001:db8::2/64"], || {
            let datagrams = std::net::UdpSocket::bind("192.0.2.2:0").unwrap();
            datagrams.send_to(b"quic?", "192.0.2.1:853").unwrap();
            let mut liar = TcpStream::connect("192.0.2.1:853").unwrap();
            liar.write_all(b"cleartext").unwrap();
        });
        let (mut stream, _) = listeners[0].accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(
            !matches!(uninterrupted(|| stream.read(&mut [0; 9])), Ok(octets) if octets > 0),
            "cleartext came through"
        );
        assert!(count(&xdp, "drop", "cleartext_on_dot") > resets);
        assert_eq!(count(&xdp, "drop", "udp_on_dot"), 1);
        xdp.detach();
    });
}

/// Goal: native mode works with jumbo frames. Method: attaches to a veth with an MTU of 9,000, to which a program
/// without `frags` cannot be attached.
#[test]
fn jumbo_mtu_stays_native() {
    isolated("jumbo_mtu_stays_native", || {
        ip("link set here mtu 9000");
        ip("link set there mtu 9000");
        let listeners = listeners("192.0.2.1:853", 1);
        let config = Config { interfaces: vec!["here".into()], ..Config::default() };
        let xdp = begin(&config, &listeners);
        assert_eq!(interface(&xdp.report(), "here").0, "native", "{:#?}", xdp.report());
        xdp.detach();
    });
}

/// Goal: the report quotes the driver when it refuses, with the cost of the remaining mode; where native mode is
/// required, that line ends the start. Method: a veth with fewer receive queues than its peer has transmit queues.
///
#[test]
fn a_driver_is_heard() {
    isolated("a_driver_is_heard", || {
        ip("link add few numrxqueues 1 numtxqueues 1 type veth peer name many numrxqueues 4 numtxqueues 4");
        ip("address add 198.51.100.1/24 dev few");
        ip("link set few up");
        let listeners = listeners("198.51.100.1:853", 1);
        let named = Config { interfaces: vec!["few".into()], ..Config::default() };
        let xdp = begin(&named, &listeners);
        let report = xdp.report();
        let row = report.interfaces.iter().find(|row| row.name == "few").expect("it is named");
        let reason = row.reason.as_deref().unwrap_or_default();
        assert_eq!(row.mode, "generic", "{row:?}");
        assert!(reason.contains("native: ") && reason.contains("number of rx queues"), "{reason}");
        assert!(reason.contains("generic mode judges a packet only after"), "{reason}");
        assert_eq!(report.degraded, None, "auto takes what there is");
        xdp.detach();
        until_free("few");
        let error = try_begin(&Config { mode: XdpMode::Native, ..named }, &listeners).err().expect("refused");
        assert!(error.to_string().contains("number of rx queues"), "{error}");
        assert!(
            !programs_on("few").contains("prog/xdp"),
            "the question left nothing: {}",
            programs_on("few")
        );
    });
}

/// Goal: if XDP is required and not available, one line names the cause; if it is optional, it is off.
#[test]
fn demands_that_cannot_be_met() {
    isolated("demands_that_cannot_be_met", || {
        let listeners = listeners("0.0.0.0:853", 1);
        let refusal = |config: Config| match try_begin(&config, &listeners) {
            Ok(xdp) => panic!("{:#?}", xdp.report()),
            Err(error) => {
                assert_eq!(pins(), Vec::<PathBuf>::new(), "{error}");
                error.to_string()
            }
        };
        let named = |name: &str| vec![name.to_owned()];
        let native_lo = Config { mode: XdpMode::Native, interfaces: named("lo"), ..Config::default() };
        let line = refusal(native_lo);
        assert!(line.starts_with("XDP on lo: native: "), "{line}");
        let absent = Config { mode: XdpMode::Generic, interfaces: named("eth9"), ..Config::default() };
        assert_eq!(refusal(absent), "XDP on eth9: no such interface");
        // The first interface had its program when the second one refused.
        let both = vec!["here".to_owned(), "lo".to_owned()];
        let native_both = Config { mode: XdpMode::Native, interfaces: both, ..Config::default() };
        assert!(refusal(native_both).starts_with("XDP on lo: native: "));
        until_free("here");
        let contradiction = Config { mode: XdpMode::Off, required: true, ..Config::default() };
        assert!(refusal(contradiction).contains("contradict"));

        // Loopback was not named, so native mode leaves it out.
        let native = begin(&Config { mode: XdpMode::Native, ..Config::default() }, &listeners);
        assert_eq!(native.report().state, "native");
        assert_eq!(interface(&native.report(), "lo").0, "off");
        native.detach();
        let off = begin(&Config { mode: XdpMode::Off, ..Config::default() }, &listeners);
        assert_eq!(off.report().reason.as_deref(), Some("xdp.mode is \"off\""));
        assert!(off.packets().iter().all(|row| row.count == 0) && !off.packets().is_empty());
        assert_eq!(pins(), Vec::<PathBuf>::new());
    });
}

/// Goal: `required` at start and `/health` afterwards use the same rule. Method: two listen addresses, one of them on
/// an interface that is down: degraded where XDP is optional, refused where it is required.
#[test]
fn no_start_accepts_what_health_calls_unwell() {
    isolated("no_start_accepts_what_health_calls_unwell", || {
        ip("link add other type veth peer name another");
        ip("address add 198.51.100.1/32 dev other");
        let sets = ["192.0.2.1:853", "198.51.100.1:853"].map(|address| listeners(address, 1));
        let groups: Vec<_> = sets
            .iter()
            .map(|set| ListenerGroup {
                address: set[0].local_addr().unwrap(),
                sockets: set.iter().map(AsFd::as_fd).collect(),
            })
            .collect();
        let xdp = start(&Config::default(), &groups).unwrap();
        let degraded = xdp.report().degraded.expect("one address has no XDP");
        assert_eq!(degraded, "no interface carries 198.51.100.1");
        xdp.detach();
        until_free("here");
        let required = Config { required: true, ..Config::default() };
        let error = start(&required, &groups).err().expect("refused").to_string();
        assert!(error.ends_with("than it can do here: no interface carries 198.51.100.1"), "{error}");
        assert_eq!(pins(), Vec::<PathBuf>::new());
        until_free("here");
    });
}

/// Goal: the engine's part works after every right is gone, pins are root's, and no other user may enter their folder.
/// Method: the attachments go to a thread that stays root; this one becomes nobody, reads and reloads (gates, and a
/// list that fills and empties).
#[test]
fn works_without_rights() {
    isolated("works_without_rights", || {
        let listeners = listeners("0.0.0.0:853", 2);
        let mut xdp = try_begin(&Config::default(), &listeners).unwrap();
        let pin = pins().into_iter().find(|path| path.ends_with("FLOWS4")).expect("it is pinned");
        let mode =
            |path: &Path| (fs::metadata(path).unwrap().uid(), fs::metadata(path).unwrap().mode() & 0o777);
        assert_eq!(mode(&pin), (0, 0o600));
        assert!(pin.ancestors().skip(1).take(3).all(|folder| mode(folder) == (0, 0o700)), "{pin:?}");
        let mut holder = xdp.give_away().expect("it is attached");
        let (end, ends) = mpsc::channel();
        let keeper = thread::spawn(move || {
            ends.recv().expect("the test ends");
            holder.let_go();
        });
        become_nobody();
        assert!(fs::read_dir(pin.parent().unwrap()).is_err(), "rights are not gone");

        let mut client = TcpStream::connect("127.0.0.1:853").unwrap();
        xdp.apply(&Config { cleartext_853: Gate::Count, ..Config::default() }).unwrap();
        client.write_all(b"cleartext").unwrap();
        // Before Linux 6.5 a packet on loopback waits for ksoftirqd while that has work.
        let counted = |xdp: &Xdp, verdict: &str, reason: &str| {
            eventually(reason, || (count(xdp, verdict, reason) == 1).then_some(()));
        };
        counted(&xdp, "would_drop", "cleartext_on_dot");
        assert_eq!(count(&xdp, "drop", "cleartext_on_dot"), 0);
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (deny, reason) in [(vec!["127.0.0.0/8".parse().unwrap()], "denied"), (Vec::new(), "udp_on_dot")] {
            xdp.apply(&Config { deny, ..Config::default() }).unwrap();
            datagrams.send_to(b"quic?", "127.0.0.1:853").unwrap();
            counted(&xdp, "drop", reason);
        }
        assert_eq!(count(&xdp, "drop", "denied"), 1);
        end.send(()).unwrap();
        keeper.join().unwrap();
        until_free("here");
    });
}

/// Goal: an interface that is deleted and made anew is judged again, with its learner, however that is attached.
/// Method: `ip link`, runs of the watchdog between, a packet afterwards.
#[test]
fn lost_links_come_back() {
    isolated("lost_links_come_back", || {
        let listeners = listeners("0.0.0.0:853", 2);
        let config = Config { interfaces: vec!["here".into()], ..Config::default() };
        let mut xdp = try_begin(&config, &listeners).unwrap();
        assert_eq!(xdp.report().degraded, None);
        ip("link delete here");
        xdp.look_after(true);
        assert_eq!(xdp.report().degraded.as_deref(), Some("here: no such interface"));
        ip("link add here type veth peer name there");
        ip("address add 192.0.2.1/24 dev here");
        ip("link set here up");
        ip("link set there up");
        xdp.look_after(true);
        let report = xdp.report();
        assert!(interface(&report, "here").0 == "native" && report.repairs == 1, "{report:#?}");
        assert_eq!(report.degraded, None);
        let before = count(&xdp, "drop", "udp_on_dot");
        assert!(Wire::between("there", "here").send(Build::udp(853, b"quic?").frame()));
        while count(&xdp, "drop", "udp_on_dot") == before {
            thread::sleep(Duration::from_millis(1));
        }
        xdp.detach();
        until_free("here");
    });
}

/// Goal: as an ordinary user nothing fails: XDP is off with its reason, and steering uses the method that needs no
/// right. Method: becomes nobody first.
#[test]
fn without_rights_it_is_off_and_says_so() {
    isolated("without_rights_it_is_off_and_says_so", || {
        let listeners = listeners("127.0.0.1:8853", 2);
        become_nobody();
        let xdp = begin(&Config::default(), &listeners);
        let report = xdp.report();
        assert_eq!(report.state, "off");
        let reason = report.reason.unwrap();
        assert!(reason.contains("run as root") && !reason.contains('\n'), "{reason}");
        assert_eq!(report.steering, "reuseport-cbpf", "{:?}", report.steering_reason);
    });
}
