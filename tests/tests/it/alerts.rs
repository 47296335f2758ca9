//! Handshakes that fail: the client gets the alert that the RFC names, in clear, and then FIN, whatever else it had
//! sent.
//!
//! Before: dotd with XDP off and one worker; hellos made by hand. After: the alert, no RST, and an innocent client served.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use dot_tests::{
    harness::{
        clients::{DOT_PORT, alert, read_to_close, tcp},
        config::Config,
        dot::Dot,
        netns::{Network, SERVER_V4},
        raw_hello::{greased_hello, handshake_record, named_hello, retried_hellos},
        scene::{assert_served, honest, scripted},
        scripted::Scripted,
        server::Server,
    },
    require,
};

const RECORD_OVERFLOW: [u8; 2] = [2, 22];
const HANDSHAKE_FAILURE: [u8; 2] = [2, 40];
const ILLEGAL_PARAMETER: [u8; 2] = [2, 47];

fn scene(config: Config) -> (Network, Scripted, Server) {
    scripted(config.xdp("off").set("server", "workers", "1"), honest)
}

fn connected(network: &Network) -> TcpStream {
    tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT))
}

/// One record from the server: its type and content.
fn hear(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 5];
    stream.read_exact(&mut header).expect("a record");
    let mut content = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut content).expect("a whole record");
    (header[0], content)
}

/// Goal: a record in clear that is longer than 2^14 octets is record_overflow, sent as soon as its header is read: in a
/// first hello, in the one behind a HelloRetryRequest, in a later flight of TLS 1.2 (RFC 8446 §5.1, RFC 5246 §6.2.1). A
/// record of 2^14 octets is read. Method: headers alone, and whole records. Covers: C-291
#[test]
fn a_long_record_in_clear_is_record_overflow() {
    require!(Root);
    let (network, _backend, dotd) = scene(Config::new());
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    let [first, _] = retried_hellos();
    let fronts = [Vec::new(), handshake_record(&first), handshake_record(&greased_hello())];
    let mut count = 0;
    for front in &fronts {
        for octets in [16_385_u16, 18_431, 18_432, 18_433, 65_535] {
            for is_whole in [false, true] {
                let mut stream = connected(&network);
                if !front.is_empty() {
                    stream.write_all(front).expect("open");
                    assert_eq!(hear(&mut stream).0, 22, "ServerHello or HelloRetryRequest");
                }
                let [high, low] = octets.to_be_bytes();
                let body = if is_whole { octets.into() } else { 0 };
                let record = [vec![22, 3, 3, high, low, 1, 0, 0xff, 0xff], vec![0; body]].concat();
                let _ = stream.write_all(&record);
                let mut said = read_to_close(&mut stream);
                let last = said.split_off(said.len().saturating_sub(7));
                assert_eq!(alert(&last), Some(RECORD_OVERFLOW), "{octets} octets, whole: {is_whole}");
                count += 1;
            }
        }
    }
    let mut stream = connected(&network);
    let hello = [&[1, 0, 0x40, 0][..], &[0; (1 << 14) - 4]].concat();
    stream.write_all(&handshake_record(&hello)).expect("open");
    assert_served(&mut innocent);
    drop(stream);
    dotd.counts("each is counted", |stats| stats.counter("handshakes", "failed_other") == count);
}

/// Goal: an alert that ends a handshake arrives, whatever the client had sent behind the faulty octets: dotd sends FIN
/// after it, and no RST, which would destroy it (RFC 8446 §6). Method: a hello without a common group, and cleartext,
/// each with 30 KB behind it in one write; the client gets the alert and FIN, and after the failure was counted its
/// kernel still accepts octets, which it would not after RST. Covers: C-292
#[test]
fn no_reset_destroys_an_alert() {
    require!(Root);
    let (network, _backend, dotd) = scene(Config::new());
    let mut hello = greased_hello();
    let group = hello.windows(4).position(|part| part == [0x3a, 0x3a, 0, 23]).expect("it is there");
    hello[group + 3] = 99;
    let wrong = handshake_record(&hello);
    let cases = [
        (&wrong[..], HANDSHAKE_FAILURE, "failed_no_common_parameters"),
        (b"GET / HTTP/1.1\r\n\r\n", [2, 50], "failed_not_tls"),
    ];
    for (octets, expected, counter) in cases {
        let mut stream = connected(&network);
        stream.write_all(&[octets, &[7; 30_000]].concat()).expect("open");
        assert_eq!(hear(&mut stream), (21, expected.to_vec()));
        assert_eq!(stream.read(&mut [0; 1]).expect("no RST"), 0, "a FIN");
        dotd.counts("it is counted", |stats| stats.counter("handshakes", counter) == 1);
        // Behind a FIN the kernel reports a RST only to a write.
        stream.write_all(&[7]).expect("no RST");
    }
}

/// Goal: a server name that is no host name is illegal_parameter, which is the client's fault but no offence; a host
/// name that no certificate has, or an address, gets the first certificate (RFC 6066 §3). Method: names as clients send
/// them, in a hello each; the record that is sent back, and the counter. Covers: C-66, C-296
#[test]
fn server_names_that_are_no_host_names() {
    require!(Root);
    let (network, _backend, dotd) = scene(Config::new());
    let label = |octets: usize| [vec![b'x'; octets], b".example".to_vec()].concat();
    let served: [&[u8]; 6] =
        [b"other.example", b"OTHER.example", b"_dns.example", b"192.0.2.1", b"2001:db8::1", &label(63)];
    for name in served {
        let mut stream = connected(&network);
        stream.write_all(&handshake_record(&named_hello(name))).expect("open");
        assert_eq!(hear(&mut stream).0, 22, "{name:?}");
    }
    let refused: [&[u8]; 4] = [b"x-.example", b"1.2.3.4.", b"*.example", &label(64)];
    for name in refused {
        let mut stream = connected(&network);
        stream.write_all(&handshake_record(&named_hello(name))).expect("open");
        assert_eq!(alert(&read_to_close(&mut stream)), Some(ILLEGAL_PARAMETER), "{name:?}");
    }
    dotd.counts("each is counted", |stats| stats.counter("handshakes", "failed_server_name") == 4);
}

/// Goal: a TLS 1.2 client without the extended master secret is refused. Where the operator allows it, the client is
/// served, and dotd's hello lacks the extension (RFC 7627 §5.2). Method: a hello without it, and one with it, under
/// both values. Covers: C-297
#[test]
fn the_extended_master_secret_is_asked_for() {
    require!(Root);
    let with = greased_hello();
    let mut without = with.clone();
    let at = without.windows(4).position(|part| part == [0, 23, 0, 0]).expect("it is there");
    // Another GREASE extension takes its place.
    without[at..at + 2].copy_from_slice(&[0x6a, 0x6a]);
    for (is_required, is_served) in [(true, false), (false, true)] {
        let config = Config::new().set("tls", "require_ems", &is_required.to_string());
        let (network, _backend, _dotd) = scene(config);
        for (hello, is_answered) in [(&with, true), (&without, is_served)] {
            let mut stream = connected(&network);
            stream.write_all(&handshake_record(hello)).expect("open");
            let (content_type, content) = hear(&mut stream);
            if is_answered {
                assert_eq!((content_type, content[0]), (22, 2), "a ServerHello");
                let has_ems = content.windows(4).any(|part| part == [0, 23, 0, 0]);
                assert_eq!(has_ems, hello == &with);
            } else {
                assert_eq!((content_type, &content[..]), (21, &HANDSHAKE_FAILURE[..]));
            }
        }
    }
}
