//! The test harness itself: namespaces, backends and capture do what the other files assume.
//!
//! Before: no dotd runs. After: a failure in another file is a fault of dotd, not of the harness.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    thread,
};

use dot_tests::{
    harness::{
        backends::{Backend, dnsperf_queries},
        capture::{Capture, holds},
        clients::{dnsperf, getdns, is_answered_over_tls, kdig, s_client, tool, udp},
        dot::Dot,
        eventually,
        message::{A, Query, TXT, reply_to},
        mounts,
        netns::{Namespace, Network, SERVER_V4, SERVER_V6},
        response::Message,
        scratch::Scratch,
        scripted::{Act, Scripted},
        uninterrupted,
    },
    require,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{chdir, chroot},
};

/// Goal: both namespaces reach each other over both families, and leave nothing behind. Method: ping across the pair,
/// then look for the interface where the test itself lives.
#[test]
fn the_pair_carries_both_families() {
    require!(Root, Command("ip"), Command("kdig"));
    let network = Network::new();
    let _nsd = Backend::nsd_at(&network, SocketAddr::new(SERVER_V4, 5300));
    let _nsd6 = Backend::nsd_at(&network, SocketAddr::new(SERVER_V6, 5300));
    for address in [SERVER_V4, SERVER_V6] {
        let said =
            tool(&network.client, "kdig", &[&format!("@{address}"), "-p", "5300", "www.dotd.test", "A"]);
        assert!(said.has("192.0.2.80"), "{}", said.text);
    }
    assert!(
        network.server.exists("/sys/class/net/server") && !network.server.exists("/sys/class/net/client")
    );
    let outside = Command::new("ip").args(["link", "show", "server"]).output().expect("ip runs");
    assert!(!outside.status.success(), "the pair is visible outside");
}

/// Goal: NSD and Unbound serve the generated zone, the TXT record beyond 4 KB over TCP only. Method: kdig asks each
/// server for small, big and absent names.
#[test]
fn backends_serve_the_zone() {
    require!(Root, Command("nsd"), Command("unbound"), Command("kdig"));
    let network = Network::new();
    for backend in [Backend::nsd(&network, 5301), Backend::unbound(&network, 5302)] {
        let ask = |words: &[&str]| {
            let (at, port) = (format!("@{}", backend.address.ip()), backend.address.port().to_string());
            tool(&network.server, "kdig", &[&[&*at, "-p", &*port, "+retry=0"], words].concat())
        };
        assert!(ask(&["www.dotd.test", "AAAA"]).has("2001:db8::80"));
        assert!(ask(&["absent.dotd.test", "A"]).has("NXDOMAIN"));
        let cut = ask(&["big.dotd.test", "TXT", "+ignore", "+bufsize=1232"]);
        assert!(cut.has("tc;") || cut.has(" tc"), "{}", cut.text);
        let whole = ask(&["big.dotd.test", "TXT", "+tcp"]);
        assert!(whole.has(&"y".repeat(200)), "{}", whole.text);
    }
}

/// Goal: the capture sees every frame on the pair: a cleartext query's name is found. Method: one UDP query that
/// arrives at the other end. This shows that the test of DoT can fail.
#[test]
fn capture_sees_a_cleartext_name() {
    require!(Root);
    let network = Network::new();
    let capture = Capture::start(&network.client);
    let sink = network.server.run(|| UdpSocket::bind((SERVER_V4, 853)).expect("free"));
    let socket = udp(&network.client, SocketAddr::new(SERVER_V4, 853));
    socket.send(&Query::new(7, "secret.dotd.test", A).octets()).expect("the pair is up");
    assert!(sink.recv(&mut [0; 512]).expect("it arrives") > 12);
    let frames = capture.frames_of(853);
    assert!(frames.iter().any(|frame| holds(&frame.payload, b"secret")), "{frames:?}");
}

/// Goal: a scripted backend answers, sends false replies from another port, and holds replies until they are released.
/// Method: three queries over UDP from the same namespace.
#[test]
fn scripted_backend_obeys() {
    require!(Root);
    let network = Network::new();
    let backend = Scripted::start(&network, |query| {
        let reply = reply_to(&query.octets, A, &[vec![192, 0, 2, 9]]);
        match Message::parse(&query.octets).map(|query| query.id) {
            Some(1) => vec![Act::Send(reply)],
            Some(2) => vec![Act::Hold(reply)],
            _ => Vec::new(),
        }
    });
    let socket = udp(&network.server, backend.address);
    let mut buffer = [0; 512];
    socket.send(&Query::new(2, "held.test", A).octets()).expect("loopback");
    socket.send(&Query::new(3, "silent.test", TXT).octets()).expect("loopback");
    socket.send(&Query::new(1, "now.test", A).octets()).expect("loopback");
    assert!(uninterrupted(|| socket.recv(&mut buffer)).expect("an answer") > 12);
    assert_eq!(buffer[1], 1, "the held reply was not sent first");
    eventually("one reply is held", || (backend.held() == 1).then_some(()));
    backend.release();
    assert!(uninterrupted(|| socket.recv(&mut buffer)).expect("an answer") > 12);
    assert_eq!(buffer[1], 2);
    assert_eq!(backend.received().len(), 3);
}

/// Goal: dnsperf loses nothing against NSD itself, so that a loss through dotd is a fault of dotd. Method: 2,000
/// queries over TCP.
#[test]
fn dnsperf_loses_nothing_without_dotd() {
    require!(Root, Command("nsd"), Command("dnsperf"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let nsd = Backend::nsd_at(&network, SocketAddr::new(SERVER_V4, 5303));
    let queries = scratch.write("queries", dnsperf_queries(2000)).display().to_string();
    let (at, port): (IpAddr, _) = (nsd.address.ip(), nsd.address.port().to_string());
    let words = ["-m", "tcp", "-s", &at.to_string(), "-p", &port, "-d", &queries, "-c", "2", "-q", "50"];
    let said = tool(&network.client, "dnsperf", &words);
    assert_eq!(said.number_after("Queries completed:"), 2000, "{}", said.text);
    assert_eq!(said.number_after("Queries lost:"), 0, "{}", said.text);
}

/// Goal: kdig reports a port where nothing listens as a failure, so that `answered` is not always true. Method: kdig
/// +tls at an empty namespace.
#[test]
fn kdig_fails_where_nobody_listens() {
    require!(Root, Command("kdig"));
    let network = Network::new();
    let said = kdig(&network.client, SERVER_V4, "+tls dotd.test A");
    assert!(!said.is_success && !said.has("NOERROR"), "{}", said.text);
}

/// Goal: every client can do over TLS what the other files need, against a server other than dotd. Method: Unbound's
/// own DoT; kdig, getdns, s_client, dnsperf, and the tests' own client. If this fails, the fault is not dotd's.
#[test]
fn clients_speak_dot_to_unbound() {
    require!(Root, Command("unbound"), Command("kdig"), Command("getdns_query"), Command("dnsperf"));
    let network = Network::new();
    let _unbound = Backend::unbound_over_tls(&network);
    for address in [SERVER_V4, SERVER_V6] {
        let said = kdig(&network.client, address, "+tls www.dotd.test A");
        assert!(is_answered_over_tls(&said), "{}", said.text);
        let said = getdns(&network.client, address, &["dotd.test", "A"]);
        assert!(said.is_success && said.has("GETDNS_RESPSTATUS_GOOD"), "{}", said.text);
        let said = s_client(&network.client, address, &["-tls1_3"]);
        assert!(said.has("New, TLSv1.3"), "{}", said.text);
        let mut session = Dot::connect(&network.client, address);
        let query = Query::new(1, "big.dotd.test", TXT).octets();
        assert!(session.exchange(&query).rdata(TXT)[0].len() > 4096);
        let scratch = Scratch::new();
        let queries = scratch.write("queries", dnsperf_queries(500));
        let said = dnsperf(&network.client, address, &queries, "-c 2 -q 20");
        assert_eq!(said.number_after("Queries completed:"), 500, "{}", said.text);
    }
}

/// Goal: tests run in a chroot whose `/` is no mount point, and no other process sees their mounts. Method: a folder
/// below a mount that other namespaces share is made `/`; a thread there gets its own mount namespace and mounts sysfs;
/// root and working directory are unchanged, and another thread sees an empty folder.
#[test]
fn a_chroot_into_a_plain_folder_will_do() {
    require!(Root);
    let scratch = Scratch::new();
    let top = scratch.folder("top");
    let outside = Namespace::new(false);
    outside.run(move || {
        mount(Some("tmpfs"), &top, Some("tmpfs"), MsFlags::empty(), mounts::NOTHING)
            .expect("a mount to share");
        mount(mounts::NOTHING, &top, mounts::NOTHING, MsFlags::MS_SHARED, mounts::NOTHING)
            .expect("it is shared");
        let root = top.join("root");
        fs::create_dir_all(root.join("sys")).expect("a root");
        fs::create_dir_all(root.join("here")).expect("a working directory");
        let inside = thread::spawn({
            let root = root.clone();
            move || {
                // This comes first, because a thread shares both with its process.
                unshare(CloneFlags::CLONE_FS).expect("root and working directory of its own");
                chroot(&root).expect("root may");
                chdir("/here").expect("it was made");
                mounts::separate(CloneFlags::empty()).expect("mounts of its own");
                mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), mounts::NOTHING)
                    .expect("its own /sys");
                let names = |path: &str| fs::read_dir(path).expect("a folder").count();
                (names("/"), names(".."), names("/sys") > 0)
            }
        });
        assert_eq!(inside.join().expect("no panic"), (2, 2, true));
        assert_eq!(
            fs::read_dir(root.join("sys")).expect("still there").count(),
            0,
            "the mount was passed on"
        );
    });
}
