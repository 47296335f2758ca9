//! RFC 8446, TLS 1.3: records, key updates, groups, and the reactions to wrong ones.
//!
//! Before: dotd with XDP off, so that the engine sees everything. After: the right alert, and an innocent client was
//! served beside each case.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    thread,
    time::Duration,
};

use dot_tests::{
    harness::{
        clients::{DOT_PORT, alert, read_to_close, s_client, tcp},
        config::Config,
        dot::{Dot, End},
        message::{A, framed, www},
        netns::{Network, SERVER_V4},
        offer::Offer,
        raw_hello::{greased_hello, handshake_record},
        s_client::{SClient, s_client_sending},
        scene::{HONEST, assert_served, honest, scripted},
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
    scripted(Config::new().xdp("off"), honest)
}

/// Goal: a client may change its keys and ask the server to change its own, at any time (RFC 8446 §4.6.3). Method:
/// rustls updates before, between and after queries, fifty times, with queries in flight. Covers: C-62
#[test]
fn keys_may_be_updated() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for id in 0..50 {
        session.update_keys();
        session.ask(&www(id));
        session.update_keys();
        assert_eq!(session.receive().id, id);
        assert_eq!(session.exchange(&www(id)).rdata(A), [HONEST]);
    }
    assert_eq!(dotd.stats().counter("connections", "accepted"), 1);
}

/// Goal: OpenSSL's key updates work too, with and without a request for the server's. Method: s_client's commands `K`
/// and `k`, then a query, then again; both responses come. Covers: C-62
#[test]
fn openssl_may_update_keys() {
    require!(Root, Command("openssl"));
    let (network, _backend, _dotd) = scene();
    let mut client = SClient::start(&network.client, SERVER_V4, &["-tls1_3"]);
    // s_client looks for a command at the beginning of each read from stdin, so it must have read one before the next
    // is sent.
    for (octets, sign, times) in [
        (&b"K\n"[..], &b"KEYUPDATE"[..], 1),
        (&framed(&www(1)), &HONEST, 1),
        (b"k\n", b"KEYUPDATE", 2),
        (&framed(&www(2)), &HONEST, 2),
    ] {
        client.write(octets);
        client.await_said(sign, times);
    }
    client.finish();
}

/// Goal: a record that holds no DNS message and arrives in two parts is not half a message: the session lives on after
/// the deadline for messages. Method: a key update whose last octets come later; longer than that deadline, then a
/// query. Covers: C-14, C-62
#[test]
fn a_key_update_in_two_parts_ends_nothing() {
    require!(Root);
    let config = Config::new().xdp("off").set("session", "message_timeout", "\"3s\"");
    let (network, _backend, dotd) = scripted(config, honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&www(1)).id, 1);
    session.update_keys_in_two_parts(Duration::from_millis(200));
    thread::sleep(Duration::from_secs(4));
    assert_eq!(session.exchange(&www(2)).rdata(A), [HONEST]);
    assert_eq!(dotd.stats().counter("session_ends", "message_timeout"), 0);
}

/// Goal: queries that arrive together with the end of the handshake are all read, however large the hello was, and so
/// is an offer of many ALPN names. Method: a hello of 56 KiB; 1,500 queries in the same write as Finished. Covers:
/// C-17, C-65, A-45, A-55
#[test]
fn queries_may_follow_the_handshake_at_once() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    for names in [0, 230] {
        let mut alpn: Vec<Vec<u8>> = (0..names).map(|name| vec![b'a' + (name % 26); 250]).collect();
        alpn.push(b"dot".to_vec());
        let first: Vec<u8> = (0..1500).flat_map(|id| framed(&www(id))).collect();
        let offer = Offer { alpn, first, ..Offer::default() };
        let mut session = Dot::attempt(&network.client, SERVER_V4, &offer).expect("served");
        let mut ids: Vec<u16> = (0..1500).map(|_| session.receive().id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..1500).collect::<Vec<_>>());
    }
}

/// Goal: endless key updates end the session with unexpected_message, also if the client reads none of the server's;
/// memory does not grow, and other clients are served. Method: 20,000 updates that are never read; the end and its
/// counter. Covers: A-12, C-62
#[test]
fn a_flood_of_key_updates_is_ended() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let is_ended = (0..20_000).any(|_| !session.try_update_keys());
    assert!(is_ended, "20,000 key updates were taken");
    dotd.counts("it is counted", |stats| stats.counter("session_ends", "tls") == 1);
    assert_served(&mut Dot::connect(&network.client, SERVER_V4));
}

/// Goal: a record that is too long ends in record_overflow, one that was changed on the path in bad_record_mac, and
/// neither is answered (§5.2). Method: both written below TLS. Covers: C-63
#[test]
fn broken_records_get_their_alert() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    let long = [&record_header(16_384 + 256 + 1)[..], &[7; 16_384 + 256 + 1]].concat();
    let changed = [&record_header(48)[..], &[7; 48]].concat();
    for (octets, description) in [(long, "RecordOverflow"), (changed, "BadRecordMac")] {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        assert_eq!(session.exchange(&www(1)).id, 1);
        session.send_below_tls(&octets);
        let end = session.end();
        assert!(matches!(&end, End::Broken(said) if said.contains(description)), "{description}: {end:?}");
        assert_served(&mut Dot::connect(&network.client, SERVER_V4));
    }
    dotd.counts("both are counted", |stats| stats.counter("session_ends", "tls") == 2);
}

/// Goal: P-256, X25519 and X25519MLKEM768 are supported, and HelloRetryRequest asks for one of them (§4.1.4). Method:
/// OpenSSL with one group each, and with a share for an unsupported group first; rustls, which prefers the hybrid.
/// Covers: C-61
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

/// Goal: GREASE is ignored (RFC 8701), and a ClientHello is read however it is cut into records and segments. Method:
/// the hello whole, in records of seven octets, and in segments of one octet; a ServerHello of TLS 1.2 comes back.
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
    assert_served(&mut Dot::connect(&network.client, SERVER_V4));
}

/// Goal: a client without tickets, and without anything that would link its connections, lacks nothing (RFC 8932
/// §5.1.3.1). Method: OpenSSL with -no_ticket in both versions carries a query. Covers: C-72
#[test]
fn no_tickets_no_harm() {
    require!(Root, Command("openssl"));
    let (network, _backend, _dotd) = scene();
    for version in ["-tls1_3", "-tls1_2"] {
        let octets = s_client_sending(&network.client, SERVER_V4, &[version, "-no_ticket"], &framed(&www(9)));
        assert_eq!(octets.get(2..4), Some(&[0, 9][..]), "{version}");
    }
}

/// Goal: a ticket is valid for the server name under which it was given, and for no other (§4.2.11, RFC 6066 §3);
/// otherwise, and with a changed ticket, there is a full handshake. Method: OpenSSL saves under one name and comes back
/// under the same, under another, and without one. Covers: C-71, A-52
#[test]
fn a_ticket_belongs_to_its_name() {
    require!(Root, Command("openssl"));
    let (network, _backend, dotd) = scene();
    let saved = dotd.folder().join("session.pem").display().to_string();
    for version in ["-tls1_3", "-tls1_2"] {
        let words = [version, "-servername", "one.dotd.test", "-sess_out", &saved];
        assert!(s_client_sending(&network.client, SERVER_V4, &words, &framed(&www(1))).len() > 14);
        for (name, is_reused) in [("one.dotd.test", true), ("two.dotd.test", false)] {
            let words = [version, "-servername", name, "-sess_in", &saved];
            let said = s_client(&network.client, SERVER_V4, &words);
            assert_eq!(said.has("Reused, TLSv1."), is_reused, "{version} {name}: {}", said.text);
            assert!(said.has("Reused, TLSv1.") || said.has("New, TLSv1."), "{version} {name}: {}", said.text);
        }
    }
}

/// Goal: a client that offers only TLS 1.2 is served, and a hello without a supported group gets handshake_failure.
/// Method: rustls with TLS 1.2 alone; the greased hello with an unknown group. Covers: C-60, A-42
#[test]
fn versions_and_groups_fail_by_alert() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    let offer = Offer { is_tls12: true, ..Offer::default() };
    let mut old = Dot::attempt(&network.client, SERVER_V4, &offer).expect("TLS 1.2 is served");
    assert_eq!(old.exchange(&www(3)).rdata(A), [HONEST]);
    let mut hello = greased_hello();
    let group = hello.windows(4).position(|part| part == [0x3a, 0x3a, 0, 23]).expect("it is there");
    hello[group + 3] = 99;
    let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
    stream.write_all(&handshake_record(&hello)).expect("open");
    assert_eq!(alert(&read_to_close(&mut stream)), Some([2, 40]));
}
