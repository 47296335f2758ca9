//! ClientHellos of large and of hostile clients: cut into records and segments, larger than a segment, without an end,
//! or replaced by something else.
//!
//! Before: rustls's own hello, with its post-quantum share. After: a session that answers, or a cheap end.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    thread,
    time::Duration,
};

use dot_tests::{
    harness::{
        clients::{DOT_PORT, http, is_nothing_but_an_alert, read_to_close, tcp},
        config::Config,
        dot::Dot,
        netns::{CLIENT_INTERFACE, Network, SERVER_V4, SERVER_V6},
        offer::Offer,
        raw_hello::{handshake_record, named_hello},
        scene::{assert_served, honest, scripted},
        scripted::Scripted,
        server::Server,
        shake::{Shake, recut},
    },
    require,
};
use rustls::NamedGroup;

/// Octets of a useless hello: the largest number that its length field can state.
const HELLO_OCTETS_MAX: usize = (1 << 24) - 1;
/// Records after which the connection must be closed: more than any handshake has.
const RECORDS_MAX: usize = 100_000;

/// One worker: if it spins, no other client is served.
fn scene(config: Config) -> (Network, Scripted, Server) {
    scripted(config.set("server", "workers", "1"), honest)
}

/// A hello cut in every way leads to a session that answers.
fn cut_in_every_way(network: &Network, innocent: &mut Dot) {
    for server in [SERVER_V4, SERVER_V6] {
        for (record, segment) in [(usize::MAX, 1), (1, 4000), (7, 700), (100, 3), (usize::MAX, 600)] {
            let mut shake = Shake::new(&network.client, server, &Offer::default());
            let hello = shake.flight();
            assert!(hello.len() > 1200, "{} octets: no post-quantum share", hello.len());
            let octets = recut(&hello, record.min(hello.len()));
            for part in octets.chunks(segment) {
                shake.send([part]).expect("it is taken");
                if segment > 500 {
                    // So that no two of them share a segment.
                    thread::sleep(Duration::from_millis(20));
                }
            }
            let mut session = shake.finish().unwrap_or_else(|end| panic!("{record}, {segment}: {end:?}"));
            assert_eq!(session.group(), Some(NamedGroup::X25519MLKEM768));
            assert_served(&mut session);
            assert_served(innocent);
        }
    }
}

/// Goal: a hello leads to a session however it is cut, into records or segments of one octet; this includes dotd's own
/// parser of hellos (RFC 8446 §5.1). Method: rustls's hello of X25519MLKEM768, cut five ways over both families, with
/// XDP off; the session is used.
#[test]
fn a_hello_may_be_cut_anywhere() {
    require!(Root);
    let (network, _backend, dotd) = scene(Config::new().xdp("off"));
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    cut_in_every_way(&network, &mut innocent);
    assert_eq!(dotd.stats().sum("handshakes", "failed_"), 0);
}

/// Goal: the same through XDP's cleartext gate, native and generic, and where the path's segments are smaller than the
/// hello: the gate judges the first octets of the stream, and passes the rest. Segments of a cleartext client are
/// dropped meanwhile, which shows that the gate is active. Method: the same cuts on a veth with an MTU of 1280;
/// counters. Covers: A-46, C-61
#[test]
fn a_large_hello_passes_the_gate() {
    require!(Root, Bpf);
    for mode in ["native", "generic"] {
        let (network, _backend, dotd) =
            scene(Config::new().xdp(mode).set("xdp", "cleartext_853", "\"drop\""));
        network.client.ip(&format!("link set {CLIENT_INTERFACE} mtu 1280"));
        let mut innocent = Dot::connect(&network.client, SERVER_V4);
        cut_in_every_way(&network, &mut innocent);
        let stats = dotd.stats();
        assert_eq!(stats.packets("drop", ""), 0, "{mode}: {stats:?}");
        assert_eq!(stats.sum("handshakes", "failed_"), 0, "{mode}");
        let mut cleartext = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        cleartext.write_all(b"\0\x11hello, a query").expect("the socket takes it");
        dotd.counts("the gate is shut", |stats| stats.packets("drop", "cleartext_on_dot") > 0);
        assert_served(&mut innocent);
    }
}

/// Goal: a hello of 64 KiB, and one of 16 MiB, is refused before it is complete, and costs little memory. Method: both
/// are announced and sent in records of 16,000 octets; 64 KiB gets an alert at most, and the sockets never accept 16
/// MiB; twenty of them; memory.
#[test]
fn an_endless_hello_is_refused() {
    require!(Root);
    let (network, _backend, dotd) = scene(Config::new().xdp("off"));
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    assert_served(&mut innocent);
    let before = dotd.memory_kib("VmHWM");
    let record = |length: usize, fill: usize| {
        let [_, head @ ..] = u32::try_from(length).expect("24 bits").to_be_bytes();
        handshake_record(&[&[1][..], &head, &vec![0; fill]].concat())
    };
    for (length, count) in (0..20).flat_map(|_| [(64 * 1024, 6), (HELLO_OCTETS_MAX, 1100)]) {
        let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        let _ = stream.write_all(&record(length, 15_996));
        let more = handshake_record(&[0; 16_000]);
        let is_refused = (0..count).any(|_| stream.write_all(&more).is_err());
        assert!(is_refused || length < 1 << 20, "all of {length} octets were taken");
        let answer = read_to_close(&mut stream);
        assert!(is_nothing_but_an_alert(&answer), "{answer:02x?}");
        assert_served(&mut innocent);
    }
    let grown = dotd.memory_kib("VmHWM").saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB more");
    dotd.counts("each is counted", |stats| stats.sum("handshakes", "failed_") == 40);
}

/// Goal: close_notify or FIN, directly behind a hello or in its place, ends the connection: no worker spins on a peer
/// that is gone. Method: rustls's hello in both versions with an alert, or a FIN, in the same write; the only worker
/// serves others, and no connection is left, long before the handshake's deadline.
#[test]
fn a_hello_with_a_goodbye_ends() {
    require!(Root);
    let (network, _backend, dotd) =
        scene(Config::new().xdp("off").set("session", "handshake_timeout", "\"60s\""));
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    let close_notify = [21, 3, 3, 0, 2, 1, 0];
    for is_tls12 in [false, true] {
        for (has_hello, goodbye) in [(true, &close_notify[..]), (true, &[]), (false, &close_notify)] {
            let mut shake = Shake::new(&network.client, SERVER_V4, &Offer { is_tls12, ..Offer::default() });
            let hello = if has_hello { shake.flight() } else { Vec::new() };
            shake.send([&*[&*hello, goodbye].concat()]).expect("open");
            if goodbye.is_empty() {
                shake.stream.shutdown(Shutdown::Write).expect("open");
            }
            let _ = read_to_close(&mut shake.stream);
            assert_served(&mut innocent);
        }
    }
    let stats = dotd.counts("none is left", |stats| stats.counter("connections_open", "open") == 1);
    assert_eq!((stats.sum("handshakes", "failed_"), stats.counter("handshakes", "failed_timeout")), (6, 0));
}

/// Goal: endless alerts or change_cipher_spec in place of a handshake end the connection after a few, long before the
/// deadline. Method: both before a hello and behind it, in both versions, until dotd closes; no FIN from the client, a
/// deadline of a minute.
#[test]
fn floods_of_small_records_end_a_handshake() {
    require!(Root);
    let (network, _backend, dotd) =
        scene(Config::new().xdp("off").set("session", "handshake_timeout", "\"60s\""));
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    let (warning, change_cipher_spec) = ([21, 3, 3, 0, 2, 1, 90], [20, 3, 3, 0, 1, 1]);
    for (is_behind, is_tls12) in [(false, false), (true, false), (true, true)] {
        for record in [&warning[..], &change_cipher_spec] {
            let mut shake = Shake::new(&network.client, SERVER_V4, &Offer { is_tls12, ..Offer::default() });
            if is_behind {
                let hello = shake.flight();
                shake.send([&*hello]).expect("open");
            }
            let is_closed = (0..RECORDS_MAX).any(|_| shake.send([record]).is_err());
            assert!(is_closed, "{RECORDS_MAX} of {record:02x?} (behind: {is_behind}, TLS 1.2: {is_tls12})");
            assert_served(&mut innocent);
        }
    }
    let stats = dotd.counts("none is left", |stats| stats.counter("connections_open", "open") == 1);
    assert_eq!((stats.sum("handshakes", "failed_"), stats.counter("handshakes", "failed_timeout")), (6, 0));
}

/// Goal: an offer of ten thousand ALPN names is read once and answered: `dot` is found at its end, and without `dot`
/// the client gets the alert (RFC 7301 §3.2). Method: rustls's hello with them, in both versions. Covers: A-55, C-65
#[test]
fn ten_thousand_alpn_names_are_read() {
    require!(Root);
    let (network, _backend, dotd) = scene(Config::new().xdp("off"));
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    let names: Vec<Vec<u8>> = (0..10_000_u16).map(|name| name.to_be_bytes().to_vec()).collect();
    for is_tls12 in [false, true] {
        let with = Offer { alpn: [&*names, &[b"dot".to_vec()]].concat(), is_tls12, ..Offer::default() };
        let mut session = Dot::attempt(&network.client, SERVER_V4, &with).expect("served");
        assert_eq!(session.alpn().as_deref(), Some(&b"dot"[..]));
        assert_served(&mut session);
        let without = Offer { alpn: names.clone(), is_tls12, ..Offer::default() };
        let end = Dot::attempt(&network.client, SERVER_V4, &without).expect_err("no name of ours");
        assert!(format!("{end:?}").contains("NoApplicationProtocol"), "{end:?}");
        assert_served(&mut innocent);
    }
    dotd.counts("both are counted", |stats| stats.counter("handshakes", "failed_alpn") == 2);
}

/// Invalid names for SNI: too long, an address, a NUL, control characters, an escape sequence, no name at all.
fn odd_names() -> Vec<Vec<u8>> {
    let long = [b"x".repeat(63), b"y".repeat(63), b"z".repeat(63), b"w".repeat(63)].join(&b'.');
    let odd = [&b"192.0.2.1"[..], b"a\0b", b"\xff\xfe\n", b"\x1b[31mred", b"a\r\nready", b"", b"-.-"];
    std::iter::once(long).chain(odd.map(<[u8]>::to_vec)).collect()
}

/// Goal: no name in a hello harms logs or metrics: 255 octets, an address, octets that no name has (RFC 6066 §3), at
/// the most verbose level, in both formats. Method: each as SNI of a raw hello; the answer is a ServerHello or an
/// alert; dotd's output and its metrics contain neither a control character nor a part of a name. Covers: C-66, A-54
#[test]
fn strange_server_names_are_harmless() {
    require!(Root);
    for format in ["text", "json"] {
        let config = Config::new().xdp("off").set("log", "level", "\"debug\"").set(
            "log",
            "client_address",
            "\"full\"",
        );
        let config = config.set("log", "format", &format!("\"{format}\""));
        let (network, _backend, dotd) = scene(config.set("control", "http", "\"127.0.0.1:8853\""));
        let mut innocent = Dot::connect(&network.client, SERVER_V4);
        for name in odd_names() {
            let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
            stream.write_all(&handshake_record(&named_hello(&name))).expect("open");
            let mut answer = [0; 1];
            stream.read_exact(&mut answer).expect("a record");
            assert!(matches!(answer[0], 21 | 22), "{answer:02x?} to {name:02x?}");
            assert_served(&mut innocent);
        }
        let metrics = http(&network.server, "/metrics").replace('\r', "");
        assert!(metrics.contains("dotd_handshakes_total"), "{metrics}");
        let ended = dotd.stop();
        for said in [metrics, ended.stdout, ended.stderr] {
            assert!(
                said.bytes().all(|octet| octet == b'\n' || octet >= b' '),
                "control characters in {said:?}"
            );
            let is_named = ["xxxx", "192.0.2.1\"", "[31m", "-.-"].iter().any(|part| said.contains(part));
            assert!(!is_named, "a name in {said}");
        }
    }
}
