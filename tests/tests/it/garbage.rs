//! Octets that arrive at an Internet port and are not TLS, or old TLS, or half a handshake.
//!
//! Before: XDP off, so that the engine sees it. After: the right alert, one counter, and an innocent client was served.

use std::{io::Write, net::SocketAddr};

use dot_tests::{
    harness::{
        clients::{DOT_PORT, alert, is_nothing_but_an_alert, read_to_close, tcp},
        config::Config,
        dot::Dot,
        eventually,
        netns::{Network, SERVER_V4},
        scene::{assert_served, honest, scripted},
        scripted::Scripted,
        server::Server,
    },
    require,
};

/// Fatal alert: level 2, description protocol_version.
const PROTOCOL_VERSION: [u8; 2] = [2, 70];
/// Fatal alert: level 2, description handshake_failure.
const HANDSHAKE_FAILURE: [u8; 2] = [2, 40];

fn scene() -> (Network, Scripted, Server) {
    scripted(Config::new().xdp("off").set("session", "handshake_timeout", "\"2s\""), honest)
}

/// Sends the first octets of a connection, and returns everything received until it closes.
fn answer_to(network: &Network, octets: &[u8]) -> Vec<u8> {
    let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
    stream.write_all(octets).expect("open");
    read_to_close(&mut stream)
}

/// A ClientHello of one version that offers the suite 0xc02f, with these extensions.
fn hello(minor: u8, extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([0x42; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    if !extensions.is_empty() {
        body.extend([0, u8::try_from(extensions.len()).expect("short")]);
        body.extend(extensions);
    }
    let length = u8::try_from(body.len()).expect("short");
    [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length], &*body].concat()
}

/// signature_algorithms with ecdsa_secp256r1_sha256, and supported_groups with P-256.
const EXTENSIONS: [u8; 16] = [0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 23];

/// Goal: octets that are no TLS record end the connection, are counted as such, and do not affect other clients.
/// Method: HTTP, an SSH banner, random octets, a PROXY header, zeros.
#[test]
fn what_is_not_tls_is_closed_and_counted() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    let random: Vec<u8> =
        (0..600_u32).map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[1] | 0x80).collect();
    let guests: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: dotd.test\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        &random,
        b"PROXY TCP4 10.53.0.2 10.53.0.1 4242 853\r\n",
        &[0; 64],
    ];
    for (count, guest) in (1..).zip(guests) {
        let octets = answer_to(&network, guest);
        assert!(is_nothing_but_an_alert(&octets), "{octets:02x?} to {guest:02x?}");
        dotd.counts("it is counted", |stats| stats.counter("handshakes", "failed_not_tls") == count);
        assert_served(&mut innocent);
    }
}

/// Goal: TLS 1.0 and 1.1 are refused with protocol_version (RFC 8446 §4.2.1, RFC 9325 §3.1). Method: a hello of each as
/// a modern stack makes it, and without any extension as old ones do; the octets of the alert. Covers: A-41, C-59
#[test]
fn old_tls_gets_protocol_version() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    let hellos = [hello(1, &EXTENSIONS), hello(2, &EXTENSIONS), hello(1, &[]), hello(2, &[])];
    for (count, hello) in (1..).zip(hellos) {
        let octets = answer_to(&network, &hello);
        assert_eq!(alert(&octets), Some(PROTOCOL_VERSION), "{octets:02x?} to {hello:02x?}");
        dotd.counts("it is counted", |stats| stats.counter("handshakes", "failed_version") == count);
        assert_served(&mut innocent);
    }
}

/// Goal: TLS 1.2 without any extension, so without the extended master secret, gets a fatal alert.
/// Method: a hand-made hello. Covers: A-42, C-60
#[test]
fn tls12_without_extensions_gets_an_alert() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    let octets = answer_to(&network, &hello(3, &[]));
    assert_eq!(alert(&octets).map(|[level, _]| level), Some(2), "{octets:02x?}");
    dotd.counts("it is counted", |stats| stats.sum("handshakes", "failed_") == 1);
}

/// Goal: SSL 2.0's hello, which is no TLS record, is closed (RFC 6176).
/// Method: its first octets.
#[test]
fn sslv2_is_closed() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    let octets = answer_to(&network, &[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, 1, 0, 0x80, 0x42, 0x42]);
    assert!(is_nothing_but_an_alert(&octets), "{octets:02x?}");
    dotd.counts("it is counted", |stats| stats.sum("handshakes", "failed_") == 1);
}

/// Goal: a hello without a common suite is handshake_failure (40), and counted as such. Method: TLS 1.2 with a suite
/// that no server has.
#[test]
fn no_common_suite_is_handshake_failure() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    let mut octets = hello(3, &EXTENSIONS);
    let suite = octets.windows(2).position(|two| two == [0xc0, 0x2f]).expect("it is offered");
    octets[suite..suite + 2].copy_from_slice(&[0xc1, 0x99]);
    let answer = answer_to(&network, &octets);
    assert_eq!(alert(&answer), Some(HANDSHAKE_FAILURE), "{answer:02x?}");
    dotd.counts("it is counted", |stats| stats.counter("handshakes", "failed_no_common_parameters") == 1);
}

/// Goal: silence and half a ClientHello end at the handshake's absolute deadline; octets do not reset it.
/// Method: nothing; half a hello; a hello of which an octet comes now and then.
#[test]
fn unfinished_handshakes_end_at_their_deadline() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    let whole = hello(3, &EXTENSIONS);
    for (count, part) in (1..).zip([&[][..], &whole[..1], &whole[..20]]) {
        let octets = answer_to(&network, part);
        assert!(is_nothing_but_an_alert(&octets), "{octets:02x?}");
        dotd.counts("it is counted", |stats| stats.counter("handshakes", "failed_timeout") == count);
    }
    let mut slow = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
    // A record of 16 KiB, which would take minutes to become whole.
    slow.write_all(&[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3]).expect("open");
    eventually("it is cut while octets come", || slow.write_all(&[0x42]).is_err().then_some(()));
    dotd.counts("the slow one too", |stats| stats.counter("handshakes", "failed_timeout") == 4);
    assert_served(&mut innocent);
}

/// Goal: a client that leaves before the end of its handshake is counted as such, and uses no resources afterwards.
/// Method: connect and close, with and without half a hello.
#[test]
fn clients_that_leave_early_are_counted() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    for part in [&[][..], &hello(3, &EXTENSIONS)[..20]] {
        let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        stream.write_all(part).expect("open");
    }
    let stats = dotd.counts("both are counted", |stats| stats.counter("handshakes", "failed_closed") == 2);
    assert_eq!(stats.counter("connections", "accepted"), 2);
    dotd.counts("none is open", |stats| stats.counter("connections_open", "open") == 0);
}
