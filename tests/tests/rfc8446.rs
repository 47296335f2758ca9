//! RFC 8446, TLS 1.3: records, key updates, groups, and what is done about those that are wrong.
//!
//! Before: dotd with XDP off, so that the engine sees everything. After: the right alert, and an innocent client
//! served beside each case.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    process::Stdio,
    thread,
    time::Duration,
};

use dot_tests::{
    harness::{
        clients::{DOT_PORT, alert, read_to_close, s_client, s_client_sending, tcp},
        config::Config,
        dot::{Dot, End, Offer},
        message::{A, Query, framed},
        netns::{Network, SERVER_V4},
        process::bounded,
        scene::{HONEST, honest, scripted},
        scripted::Scripted,
        server::Server,
    },
    require,
};
use rustls::NamedGroup;

/// Type, version and length of an encrypted record.
const fn record_header(octets: u16) -> [u8; 5] {
    let [high, low] = octets.to_be_bytes();
    [23, 3, 3, high, low]
}

fn scene() -> (Network, Scripted, Server) {
    let config = Config::new().xdp("off").set("session", "idle_timeout", "\"2s\"");
    scripted(config.set("session", "handshake_timeout", "\"2s\""), honest)
}

fn host(id: u16) -> Vec<u8> {
    Query::new(id, "www.dotd.test", A).octets()
}

fn assert_served(network: &Network) {
    assert_eq!(Dot::connect(&network.client, SERVER_V4).exchange(&host(1)).rdata(A), [HONEST]);
}

/// Goal: a client may change its keys and ask for ours to change, in the middle of anything (RFC 8446 §4.6.3).
/// Method: rustls updates before, between and after queries, fifty times, with queries in flight. Covers: C-62
#[test]
fn keys_may_be_updated() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for id in 0..50 {
        session.update_keys();
        session.ask(&host(id));
        session.update_keys();
        assert_eq!(session.receive().id, id);
        assert_eq!(session.exchange(&host(id)).rdata(A), [HONEST]);
    }
    assert_eq!(dotd.stats().counter("connections", "accepted"), 1);
}

/// Goal: OpenSSL's key updates work too, with and without a request for ours. Method: s_client's commands `K` and
/// `k`, then a query, then again; both responses come. Covers: C-62
#[test]
fn openssl_may_update_keys() {
    require!(Root, Command("openssl"));
    let (network, _backend, _dotd) = scene();
    let address = SocketAddr::new(SERVER_V4, DOT_PORT).to_string();
    let mut command = bounded("openssl");
    command.args(["s_client", "-connect", &*address, "-tls1_3"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = network.client.spawn(command);
    let mut stdin = child.stdin.take().expect("piped");
    // A command is what one read of stdin begins with: s_client must have read the last one before the next.
    for octets in [&b"K\n"[..], &framed(&host(1)), b"k\n", &framed(&host(2))] {
        thread::sleep(Duration::from_millis(300));
        stdin.write_all(octets).expect("openssl reads");
    }
    thread::sleep(Duration::from_millis(300));
    drop(stdin);
    let output = child.wait_with_output().expect("our own child");
    let said = [&*output.stdout, &*output.stderr].concat();
    assert_eq!(said.windows(9).filter(|part| part == b"KEYUPDATE").count(), 2);
    assert_eq!(
        said.windows(4).filter(|part| *part == HONEST).count(),
        2,
        "{}",
        String::from_utf8_lossy(&said)
    );
}

/// Goal: a record without a message that comes in two parts is no half message: the session lives on after the
/// deadline of messages. Method: a key update whose last octets come later; twice that deadline, then a query.
/// Covers: C-14, C-62
#[test]
fn a_key_update_in_two_parts_ends_nothing() {
    require!(Root);
    let config = Config::new().xdp("off").set("session", "message_timeout", "\"1s\"");
    let (network, _backend, dotd) = scripted(config, honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&host(1)).id, 1);
    session.update_keys_in_two_parts(Duration::from_millis(200));
    thread::sleep(Duration::from_secs(2));
    assert_eq!(session.exchange(&host(2)).rdata(A), [HONEST]);
    assert_eq!(dotd.stats().counter("session_ends", "message_timeout"), 0);
}

/// Goal: queries that leave with the end of the handshake are all read, however large the hello before them was,
/// and so is an offer of many ALPN names. Method: a hello of 56 KiB; 1,500 queries in the same write as Finished.
/// Covers: C-17, C-65, A-45, A-55
#[test]
fn queries_may_follow_the_handshake_at_once() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    for names in [0, 230] {
        let mut alpn: Vec<Vec<u8>> = (0..names).map(|name| vec![b'a' + (name % 26); 250]).collect();
        alpn.push(b"dot".to_vec());
        let first: Vec<u8> = (0..1500).flat_map(|id| framed(&host(id))).collect();
        let offer = Offer { alpn, first, ..Offer::default() };
        let mut session = Dot::attempt(&network.client, SERVER_V4, &offer).expect("served");
        let mut ids: Vec<u16> = (0..1500).map(|_| session.receive().id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..1500).collect::<Vec<_>>());
    }
}

/// Goal: key updates without end are no way to hold a server: they are bounded or cost a client at least what they
/// cost us, memory stays where it was, others are served. Method: 20,000 updates that are never read.
#[test]
fn a_flood_of_key_updates_is_survived() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for _ in 0..20_000 {
        if !session.is_quiet() || !session.try_update_keys() {
            break;
        }
    }
    assert_served(&network);
    drop(session);
    dotd.counts("it is over", |stats| stats.counter("connections_open", "open") == 0);
}

/// Goal: a record that is longer than any may be ends in record_overflow, one that was changed on its way in
/// bad_record_mac, and neither in an answer (§5.2). Method: both written below TLS. Covers: C-63
#[test]
fn broken_records_get_their_alert() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    let long = [&record_header(16_384 + 256 + 1)[..], &[7; 16_384 + 256 + 1]].concat();
    let changed = [&record_header(48)[..], &[7; 48]].concat();
    for (octets, description) in [(long, "RecordOverflow"), (changed, "BadRecordMac")] {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        assert_eq!(session.exchange(&host(1)).id, 1);
        session.send_below_tls(&octets);
        let end = session.end();
        assert!(matches!(&end, End::Broken(said) if said.contains(description)), "{description}: {end:?}");
        assert_served(&network);
    }
    dotd.counts("both are counted", |stats| stats.counter("session_ends", "tls") == 2);
}

/// Goal: P-256, X25519 and X25519MLKEM768 are there, and HelloRetryRequest asks for one of them (§4.1.4).
/// Method: OpenSSL with one group each, and with a share for a group that we lack first; rustls, which prefers the
/// hybrid. Covers: C-61
#[test]
fn groups_and_retry() {
    require!(Root, Command("openssl"));
    let (network, _backend, _dotd) = scene();
    for group in ["P-256", "X25519", "X448:P-256", "P-521:X25519"] {
        let said = s_client(&network.client, SERVER_V4, &["-tls1_3", "-groups", group]);
        assert!(said.has("New, TLSv1.3"), "{group}: {}", said.text);
    }
    let said = s_client(&network.client, SERVER_V4, &["-tls1_3", "-groups", "X448"]);
    assert!(said.has("alert handshake failure"), "{}", said.text);
    let session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.group(), Some(NamedGroup::X25519MLKEM768));
}

/// The hello that OpenSSL sends, with GREASE (RFC 8701) in front of its suites, extensions and groups.
fn greased_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0x42; 32]);
    body.extend([0, 0, 4, 0x1a, 0x1a, 0xc0, 0x2b, 1, 0]);
    // GREASE, supported_groups (GREASE, P-256), signature_algorithms (GREASE, ecdsa_secp256r1_sha256), EMS, GREASE.
    let extensions = [
        &[0x2a, 0x2a, 0, 0][..],
        &[0, 10, 0, 6, 0, 4, 0x3a, 0x3a, 0, 23],
        &[0, 13, 0, 6, 0, 4, 0x4a, 0x4a, 4, 3],
        &[0, 23, 0, 0],
        &[0x5a, 0x5a, 0, 1, 0],
    ];
    let extensions = extensions.concat();
    body.extend(u16::try_from(extensions.len()).expect("short").to_be_bytes());
    body.extend(extensions);
    [&[1, 0, 0, u8::try_from(body.len()).expect("short")], &*body].concat()
}

/// One record of a handshake.
fn handshake_record(octets: &[u8]) -> Vec<u8> {
    let length = u16::try_from(octets.len()).expect("short").to_be_bytes();
    [&[22, 3, 1][..], &length, octets].concat()
}

/// Goal: GREASE is ignored (RFC 8701), and a ClientHello is one however it is cut into records and segments.
/// Method: the hello whole, in records of seven octets, and an octet a segment; a ServerHello of TLS 1.2 comes back.
/// Covers: C-61, A-45
#[test]
fn a_client_hello_is_one_however_it_comes() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    let hello = greased_hello();
    let cut: Vec<u8> = hello.chunks(7).flat_map(handshake_record).collect();
    for (octets, step) in
        [(handshake_record(&hello), usize::MAX), (cut, usize::MAX), (handshake_record(&hello), 1)]
    {
        let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        octets.chunks(step.min(octets.len())).for_each(|part| stream.write_all(part).expect("open"));
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).expect("a ServerHello");
        assert_eq!((&answer[..3], answer[5]), (&[22, 3, 3][..], 2), "{answer:02x?}");
    }
    assert_served(&network);
}

/// Goal: a hello that claims more than any hello needs is refused before it is all there. Method: 64 KiB of hello,
/// in records.
#[test]
fn an_endless_hello_is_refused() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    let mut hello = vec![1, 1, 0, 0];
    hello.resize(64 * 1024 + 4, 0);
    let octets: Vec<u8> = hello.chunks(16_000).flat_map(handshake_record).collect();
    let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
    let _ = stream.write_all(&octets);
    let answer = read_to_close(&mut stream);
    assert!(answer.is_empty() || answer[0] == 21, "{answer:02x?}");
    assert_served(&network);
}

/// Goal: who says goodbye, or a warning, or change_cipher_spec without end instead of a handshake is let go.
/// Method: each as a connection's first octets, or behind a hello.
#[test]
fn what_is_no_handshake_ends() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    let hello = handshake_record(&greased_hello());
    let (close_notify, warning) = ([21, 3, 3, 0, 2, 1, 0], [21, 3, 3, 0, 2, 1, 90]);
    let change_cipher_spec = [20, 3, 3, 0, 1, 1].repeat(5000);
    for octets in [
        [&*hello, &close_notify].concat(),
        close_notify.to_vec(),
        [&*hello, &warning.repeat(5000)].concat(),
        warning.repeat(5000),
        [&*hello, &change_cipher_spec].concat(),
        change_cipher_spec,
    ] {
        let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        let _ = stream.write_all(&octets);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = read_to_close(&mut stream);
        assert_served(&network);
    }
    dotd.counts("none is left", |stats| stats.counter("connections_open", "open") == 0);
}

/// Goal: without tickets, and without anything that would tell one connection from the next, nothing is missing
/// (RFC 8932 §5.1.3.1). Method: OpenSSL with -no_ticket in both versions carries a query. Covers: C-72
#[test]
fn no_tickets_no_harm() {
    require!(Root, Command("openssl"));
    let (network, _backend, _dotd) = scene();
    for version in ["-tls1_3", "-tls1_2"] {
        let octets =
            s_client_sending(&network.client, SERVER_V4, &[version, "-no_ticket"], &framed(&host(9)));
        assert_eq!(octets.get(2..4), Some(&[0, 9][..]), "{version}");
    }
}

/// Goal: a ticket is good for the name that it was given under, and for no other (§4.2.11, RFC 6066 §3); a changed
/// one is no ticket: a whole handshake each time. Method: OpenSSL saves under one name and comes back under the
/// same, under another, and without one. Covers: C-71, A-52
#[test]
fn a_ticket_belongs_to_its_name() {
    require!(Root, Command("openssl"));
    let (network, _backend, dotd) = scene();
    let saved = dotd.folder().join("session.pem").display().to_string();
    for version in ["-tls1_3", "-tls1_2"] {
        let words = [version, "-servername", "one.dotd.test", "-sess_out", &saved];
        assert!(s_client_sending(&network.client, SERVER_V4, &words, &framed(&host(1))).len() > 14);
        for (name, is_reused) in [("one.dotd.test", true), ("two.dotd.test", false)] {
            let words = [version, "-servername", name, "-sess_in", &saved];
            let said = s_client(&network.client, SERVER_V4, &words);
            assert_eq!(said.has("Reused, TLSv1."), is_reused, "{version} {name}: {}", said.text);
            assert!(said.has("Reused, TLSv1.") || said.has("New, TLSv1."), "{version} {name}: {}", said.text);
        }
    }
}

/// Goal: no name in a hello harms logs or metrics: 255 octets, an address, octets that no name has (RFC 6066 §3).
/// Method: each as SNI of a raw hello; the answer is a ServerHello or an alert. Covers: C-66, A-54
#[test]
fn strange_server_names_are_harmless() {
    require!(Root);
    let (network, _backend, mut dotd) = scene();
    let long = [b"x".repeat(63), b"y".repeat(63), b"z".repeat(63), b"w".repeat(63)].join(&b'.');
    for name in [&long[..], b"192.0.2.1", b"a\0b", b"\xff\xfe\n", b"", b"-.-"] {
        let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        stream.write_all(&handshake_record(&named_hello(name))).expect("open");
        let mut answer = [0; 1];
        stream.read_exact(&mut answer).expect("a record");
        assert!(matches!(answer[0], 21 | 22), "{answer:02x?} to {name:02x?}");
    }
    assert_served(&network);
    dotd.signal(nix::sys::signal::Signal::SIGTERM);
    let (ended, _scratch) = dotd.wait();
    let said = ended.stdout + &ended.stderr;
    assert!(said.bytes().all(|octet| octet == b'\n' || octet >= b' '), "control characters in {said:?}");
}

/// [`greased_hello`] with a server name.
fn named_hello(name: &[u8]) -> Vec<u8> {
    let mut hello = greased_hello();
    let short = |octets: usize| u16::try_from(octets).expect("short").to_be_bytes();
    let (list, all) = (short(name.len() + 3), short(name.len() + 5));
    let extension = [&[0, 0][..], &all, &list, &[0], &short(name.len()), name].concat();
    let extensions_at = 4 + 2 + 32 + 1 + 6 + 2;
    let before = usize::from(u16::from_be_bytes([hello[extensions_at], hello[extensions_at + 1]]));
    hello.extend(&extension);
    hello[extensions_at..extensions_at + 2].copy_from_slice(&short(before + extension.len()));
    let body = short(hello.len() - 4);
    hello[2..4].copy_from_slice(&body);
    hello
}

/// Goal: an expired offer of versions is told by its alert, and a hello without a group of ours by handshake_failure.
/// Method: rustls offering only TLS 1.2 is served; the greased hello with a group that nobody has is not.
/// Covers: C-60, A-42
#[test]
fn versions_and_groups_fail_by_alert() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    let offer = Offer { is_tls12: true, ..Offer::default() };
    let mut old = Dot::attempt(&network.client, SERVER_V4, &offer).expect("TLS 1.2 is served");
    assert_eq!(old.exchange(&host(3)).rdata(A), [HONEST]);
    let mut hello = greased_hello();
    let group = hello.windows(4).position(|part| part == [0x3a, 0x3a, 0, 23]).expect("it is there");
    hello[group + 3] = 99;
    let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
    stream.write_all(&handshake_record(&hello)).expect("open");
    assert_eq!(alert(&read_to_close(&mut stream)), Some([2, 40]));
}
