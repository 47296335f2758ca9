//! The kernel half on the drivers of network cards, where a veth pair could hide what they do: virtio_net with several
//! queues, e1000e, vmxnet3.
//!
//! Before: a guest of `cargo xtask test-kernels` with these cards; elsewhere each test prints SKIPPED. After: programs were
//! attached to each card, and judged what came through it.
//! Never: measures speed: the cards are emulated.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use aya::util::KernelVersion;
use dot_tests::{
    cards::{HERE, THERE, on_each_card},
    frames::{Build, SYN},
    harness::{
        eventually,
        flood::{Wire, ethernet_address},
        netns::address,
        uninterrupted,
    },
    xdp_field::{begin, beside, count, listeners, pins, try_begin, until_free},
};
use dot_userspace::{
    config::{Gate, SynCookies, SynOver, Xdp as Config, XdpMode},
    xdp::{ListenerGroup, Xdp, start},
};
use socket2::SockRef;

const SERVER_V4: &str = "192.0.2.1:853";
const SERVER_V6: &str = "[2001:db8::1]:853";
const CLIENT: [&str; 2] = ["192.0.2.2/24", "2001:db8::2/64"];
const HELLO: [u8; 9] = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];

/// The mode that the driver's part of this kernel has: vmxnet3 knows XDP from Linux 6.6 on, e1000e does not.
fn mode_of(driver: &str) -> &'static str {
    let is_native = match driver {
        "virtio_net" => true,
        "vmxnet3" => KernelVersion::current().unwrap() >= KernelVersion::new(6, 6, 0),
        _ => false,
    };
    if is_native { "native" } else { "generic" }
}

/// Starts the kernel half on the card alone, and checks the mode.
fn attached(driver: &str, config: &Config, listeners: &[TcpListener]) -> Xdp {
    let xdp = begin(&Config { interfaces: vec![HERE.into()], ..config.clone() }, listeners);
    let report = xdp.report();
    let row = report.interfaces.iter().find(|row| row.name == HERE).expect("the card is named");
    println!(
        "{driver}: {}, learner {}, {}",
        row.mode,
        row.learner,
        row.reason.as_deref().unwrap_or("no remark")
    );
    assert_eq!(row.mode, mode_of(driver), "{row:?}");
    assert_eq!(report.degraded, None);
    xdp
}

/// Connects; a card may have reset its rings a moment ago.
fn connect(address: &str) -> TcpStream {
    let stream = eventually("a connection", || TcpStream::connect(address).ok());
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// The next connection of any listener, with that listener's number.
fn accepted(listeners: &[TcpListener]) -> (usize, TcpStream) {
    eventually("a connection arrives", || {
        listeners.iter().enumerate().find_map(|(number, listener)| {
            listener.set_nonblocking(true).unwrap();
            let (stream, _) = listener.accept().ok()?;
            stream.set_nonblocking(false).unwrap();
            Some((number, stream))
        })
    })
}

/// Goal: on every card the loader finds the driver's mode and says why it is not native; the gate drops cleartext, a
/// ClientHello passes, over both IP versions; nothing is left, and the card can be attached again. Method: a client behind the
/// other card of each pair.
#[test]
fn a_card_is_judged() {
    on_each_card("a_card_is_judged", |driver| {
        for server in [SERVER_V4, SERVER_V6] {
            let listeners = listeners(server, 2);
            let xdp = attached(driver, &Config::default(), &listeners);
            let row = xdp.report().interfaces.into_iter().find(|row| row.name == HERE).unwrap();
            let reason = row.reason.unwrap_or_default();
            assert_eq!(
                reason.contains("generic mode judges a packet only after"),
                row.mode == "generic",
                "{reason}"
            );
            assert_eq!(reason.contains(&format!("driver {driver}, ")), row.mode == "generic", "{reason}");
            beside(THERE, &CLIENT, || {
                let mut liar = connect(server);
                liar.write_all(b"\x00\x1dcleartext").unwrap();
                let mut lying = accepted(&listeners).1;
                let mut client = connect(server);
                client.write_all(&HELLO).unwrap();
                let mut octets = [0; 9];
                accepted(&listeners).1.read_exact(&mut octets).expect("the hello arrives");
                assert_eq!(octets, HELLO);
                lying.set_nonblocking(true).unwrap();
                assert_eq!(
                    uninterrupted(|| lying.read(&mut octets)).unwrap_err().kind(),
                    ErrorKind::WouldBlock
                );
            });
            assert!(count(&xdp, "drop", "cleartext_on_dot") >= 1, "{driver}, {server}");
            assert_eq!(count(&xdp, "pass", "client_hello"), 1, "{driver}, {server}");
            xdp.detach();
            assert!(pins().is_empty(), "{:?}", pins());
            until_free(HERE);
        }
        let required = Config { mode: XdpMode::Native, interfaces: vec![HERE.into()], ..Config::default() };
        let listeners = listeners(SERVER_V4, 1);
        match try_begin(&required, &listeners) {
            Ok(xdp) => {
                assert_eq!((mode_of(driver), xdp.report().state.as_str()), ("native", "native"));
                xdp.detach();
            }
            Err(error) => {
                println!("{driver}: {error}");
                assert_eq!(mode_of(driver), "generic", "{error}");
            }
        }
        until_free(HERE);
    });
}

/// Goal: a refused stream's client is reset on every card: the program rewrites frames of these drivers. Method: cleartext
/// with `reset`, over both IP versions.
#[test]
fn cleartext_is_reset_on_a_card() {
    on_each_card("cleartext_is_reset_on_a_card", |driver| {
        for server in [SERVER_V4, SERVER_V6] {
            let listeners = listeners(server, 1);
            let config = Config { cleartext_853: Gate::Reset, ..Config::default() };
            let xdp = attached(driver, &config, &listeners);
            beside(THERE, &CLIENT, || {
                let mut client = connect(server);
                client.write_all(b"\x00\x1dcleartext").unwrap();
                let error =
                    uninterrupted(|| client.read(&mut [0; 9])).expect_err("no octets from the server");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{driver}, {server}");
            });
            assert!(count(&xdp, "drop", "cleartext_on_dot") >= 1, "{driver}, {server}");
            xdp.detach();
            until_free(HERE);
        }
    });
}

/// Frames of three kinds from one number, of many flows, so that they arrive on every queue.
fn kinds(number: u16) -> [Build; 3] {
    let server: IpAddr = address("192.0.2.1");
    let port = 10_000 + number;
    [
        Build::tcp(853, SYN, u32::from(number), &[])
            .client_port(port)
            .client(address("192.0.2.9"))
            .server(server),
        Build::tcp(853, SYN, u32::from(number), &[])
            .client_port(port)
            .client(address("192.0.2.66"))
            .server(server),
        Build::udp(853, b"no quic here").client_port(port).client(address("192.0.2.9")).server(server),
    ]
}

/// The counters of these kinds, and all others together.
fn counted(xdp: &Xdp) -> [u64; 4] {
    let three = [count(xdp, "pass", "syn"), count(xdp, "drop", "denied"), count(xdp, "drop", "udp_on_dot")];
    let all: u64 = xdp.packets().iter().map(|row| row.count).sum();
    [three[0], three[1], three[2], all - three.iter().sum::<u64>()]
}

/// Goal: each frame of a card is counted once, under its own verdict, also while two CPUs judge at once (per-CPU memory, which
/// a kernel with PREEMPT_RT shares out otherwise). Method: three kinds of frames of many flows, thirty at a time, which no
/// ring is too small for; after each thirty the counters are exact.
#[test]
fn every_frame_of_a_card_is_counted_once() {
    on_each_card("every_frame_of_a_card_is_counted_once", |driver| {
        let listeners = listeners(SERVER_V4, 2);
        let mut config = Config { deny: vec!["192.0.2.66/32".parse().unwrap()], ..Config::default() };
        config.limit.syn_per_second = 0;
        let xdp = attached(driver, &config, &listeners);
        let wire = Wire::between(THERE, HERE);
        // The card is ready when the first frame has arrived.
        let foreign = Build::udp(853, b"ready?").client(address("192.0.2.9")).server(address("192.0.2.1"));
        eventually("the card takes frames", || {
            wire.send(foreign.frame());
            (counted(&xdp)[2] > 0).then_some(())
        });
        let mut last = [u64::MAX; 4];
        let before = eventually("all of these have arrived", || {
            let now = counted(&xdp);
            thread::sleep(Duration::from_millis(200));
            std::mem::replace(&mut last, now).eq(&now).then_some(now)
        });
        for batch in 0..100 {
            for number in 0..10 {
                for kind in kinds(batch * 10 + number) {
                    assert!(wire.send(kind.frame()));
                }
            }
            let wanted = u64::from(batch + 1) * 10;
            let all =
                || counted(&xdp).iter().zip(before).map(|(now, before)| now - before).collect::<Vec<_>>();
            eventually("thirty more were counted", || {
                (all()[..3].iter().sum::<u64>() >= 3 * wanted).then_some(())
            });
            assert_eq!(all(), [wanted, wanted, wanted, 0], "{driver}");
        }
        xdp.detach();
        until_free(HERE);
    });
}

/// Goal: under a flood that fills a card's rings, a client is served on each card, and the flood is refused. Method: SYNs of
/// one address far above its rate, from a thread that does not wait; a client of another address connects and is heard
/// meanwhile.
#[test]
fn a_client_is_served_beside_a_flood_on_a_card() {
    on_each_card("a_client_is_served_beside_a_flood_on_a_card", |driver| {
        let listeners = listeners(SERVER_V4, 2);
        let mut config = Config::default();
        (config.limit.syn_per_second, config.limit.syn_burst) = (10, 10);
        config.limit.syn_over = SynOver::Drop;
        let xdp = attached(driver, &config, &listeners);
        let server = ethernet_address(HERE);
        let (is_over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        beside(THERE, &CLIENT, || {
            let wire = Wire::towards(THERE, server);
            thread::scope(|scope| {
                let flood = scope.spawn(|| {
                    while !is_over.load(Relaxed) {
                        let [syn, ..] = kinds((sent.load(Relaxed) % 50_000) as u16);
                        sent.fetch_add(u64::from(wire.send(syn.frame())), Relaxed);
                    }
                });
                for round in 1..=10 {
                    // The flood goes on between two connections.
                    eventually("the flood is on", || (sent.load(Relaxed) > round * 2_000).then_some(()));
                    let mut client = connect(SERVER_V4);
                    client.write_all(&HELLO).unwrap();
                    // Some of the flood's SYNs pass, but no client completes those.
                    let mut heard = accepted(&listeners).1;
                    assert_eq!(heard.peer_addr().unwrap(), client.local_addr().unwrap());
                    heard.read_exact(&mut [0; 9]).expect("the hello arrives");
                }
                is_over.store(true, Relaxed);
                flood.join().expect("the flood ends");
            });
        });
        let refused = count(&xdp, "drop", "dot_syn_rate");
        println!("{driver}: 10 of 10 clients served, {refused} of {} frames refused", sent.load(Relaxed));
        assert!(refused > 1_000 && refused > count(&xdp, "pass", "syn"), "{driver}: {refused}");
        xdp.detach();
        until_free(HERE);
    });
}

/// Goal: a connection goes to the worker of the CPU that its card's queue interrupts; with several queues every worker has
/// some. Method: connections of many ports; the kernel says which CPU took the packets of each.
#[test]
fn queues_of_a_card_have_their_workers() {
    on_each_card("queues_of_a_card_have_their_workers", |driver| {
        let listeners = listeners(SERVER_V4, 2);
        let group = ListenerGroup {
            address: listeners[0].local_addr().unwrap(),
            sockets: listeners.iter().map(AsFd::as_fd).collect(),
        };
        let xdp = start(&Config { interfaces: vec![HERE.into()], ..Config::default() }, &[group]).unwrap();
        assert_eq!(xdp.report().steering, "reuseport-ebpf", "{:?}", xdp.report().steering_reason);
        let (mut own, mut found) = (0, [0; 2]);
        beside(THERE, &CLIENT, || {
            for _ in 0..100 {
                let mut client = connect(SERVER_V4);
                client.write_all(&HELLO).unwrap();
                let (worker, mut stream) = accepted(&listeners);
                stream.read_exact(&mut [0; 9]).expect("the hello arrives");
                found[worker] += 1;
                own += usize::from(SockRef::from(&stream).cpu_affinity().is_ok_and(|cpu| cpu == worker));
            }
        });
        println!("{driver}: workers have {found:?} of 100, {own} of them on the CPU of their packets");
        assert!(own >= 90, "{driver}: {own} of 100 connections are at the worker of their CPU");
        if driver == "virtio_net" {
            assert!(found.iter().all(|connections| *connections >= 10), "two queues: {found:?}");
        }
        xdp.detach();
        until_free(HERE);
    });
}

/// Switches the guest's second CPU on or off.
fn set_second_cpu(is_on: bool) {
    let value = if is_on { "1" } else { "0" };
    fs::write("/sys/devices/system/cpu/cpu1/online", value).expect("a guest's CPU can be switched");
}

/// Goal: a CPU that goes, and comes back, costs no connection: those that begin meanwhile go to a worker, whichever it is. Method:
/// connections before, while the second of two CPUs is off, and afterwards.
#[test]
fn a_cpu_that_goes_costs_no_connection() {
    on_each_card("a_cpu_that_goes_costs_no_connection", |driver| {
        let listeners = listeners(SERVER_V4, 2);
        let group = ListenerGroup {
            address: listeners[0].local_addr().unwrap(),
            sockets: listeners.iter().map(AsFd::as_fd).collect(),
        };
        let xdp = start(&Config { interfaces: vec![HERE.into()], ..Config::default() }, &[group]).unwrap();
        beside(THERE, &CLIENT, || {
            for (state, is_on) in [("before", true), ("off", false), ("on again", true)] {
                set_second_cpu(is_on);
                let mut found = [0; 2];
                for _ in 0..30 {
                    let mut client = connect(SERVER_V4);
                    client.write_all(&HELLO).unwrap();
                    let (worker, mut stream) = accepted(&listeners);
                    stream.read_exact(&mut [0; 9]).expect("the hello arrives");
                    found[worker] += 1;
                }
                println!("{driver}: second CPU {state}: workers have {found:?} of 30");
            }
        });
        xdp.detach();
        until_free(HERE);
    });
}

/// Goal: the SYN proxy answers through a card's driver, whose checksums and buffers a veth pair does not have, and on every kernel that
/// has its function; elsewhere XDP makes the cookies, and the report says so. Method: connections at a rate of one SYN a second, over
/// both IP versions, until some came of cookies; each is heard, and none begins twice.
#[test]
fn the_proxy_answers_on_a_card() {
    on_each_card("the_proxy_answers_on_a_card", |driver| {
        for server in [SERVER_V4, SERVER_V6] {
            let listeners = listeners(server, 2);
            let mut config = Config { syn_cookies: SynCookies::Proxy, ..Config::default() };
            (config.limit.syn_flood_rate, config.limit.syn_per_second) = (1, 0);
            let xdp = attached(driver, &config, &listeners);
            let report = xdp.report();
            let is_there = KernelVersion::current().unwrap() >= KernelVersion::new(6, 9, 0);
            assert_eq!(report.syn_cookies == "proxy", is_there, "{:?}", report.syn_cookies_reason);
            // On a slow machine a second may pass between two connections, and both are the stack's.
            for round in 0..20 {
                beside(THERE, &CLIENT, || {
                    for _ in 0..10 {
                        let mut client = connect(server);
                        client.write_all(&HELLO).unwrap();
                        accepted(&listeners).1.read_exact(&mut [0; 9]).expect("the hello arrives");
                    }
                });
                if !is_there || xdp.report().proxied.completed >= 5 {
                    break;
                }
                assert!(round < 19, "{driver}, {server}: {:?}", xdp.report().proxied);
            }
            let proxied = xdp.report().proxied;
            println!("{driver}: {server}, cookies {}, {proxied:?}", report.syn_cookies);
            // Octets that came in one batch with the ACK are the stack's: it would drop a second beginning, and them with it.
            assert!(proxied.completed <= proxied.answered, "{driver}, {server}: {proxied:?}");
            assert!(count(&xdp, "pass", "client_hello") > 0 || !is_there, "the gate knows the streams");
            xdp.detach();
            until_free(HERE);
        }
    });
}
