//! Records against rustls's own client, in memory: each side reads what the other sends, and an invalid record ends
//! the connection with the alert for it.

mod octets;
mod rest;

use std::{
    io::{Read, Write},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CipherSuite, ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, SupportedCipherSuite,
    SupportedProtocolVersion,
    crypto::aws_lc_rs::{ALL_CIPHER_SUITES, default_provider, sign::any_supported_type},
    pki_types::{PrivateKeyDer, ServerName},
    version::{TLS12, TLS13},
};

use super::*;
use crate::{
    config,
    tls::{
        Serving, Tickets,
        certificate::Identity,
        cipher,
        dialogue::{Dialogue, Step},
        serving,
    },
};

/// A client and what serves it, after the handshake.
struct Pair {
    client: ClientConnection,
    records: Records,
    /// Octets of the server for the client.
    to_client: Vec<u8>,
}

fn identity() -> (Identity, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(vec!["dns.example.net".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let identity = Identity {
        name: "test".to_owned(),
        chain: vec![made.cert.der().clone()],
        entry: None,
        key: any_supported_type(&PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into())).unwrap(),
        spki_pin: String::new(),
        not_before: SystemTime::now(),
        not_after: SystemTime::now(),
        dns_names: Vec::new(),
        addresses: Vec::new(),
        staple: None,
        warnings: Vec::new(),
    };
    (identity, roots)
}

fn shake_hands(suites: &[SupportedCipherSuite], version: &'static SupportedProtocolVersion) -> Pair {
    let (identity, roots) = identity();
    let tickets = Tickets::new(Path::new(""), Duration::from_secs(3600)).unwrap();
    let serving: Serving = serving(&[identity], &config::Config::default().tls, &tickets).unwrap();
    let mut provider = default_provider();
    provider.cipher_suites = suites.to_vec();
    let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    let name = ServerName::try_from("dns.example.net").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut dialogue = Dialogue::new(&serving).unwrap();
    loop {
        match dialogue.step().unwrap() {
            Step::Turn { .. } => {}
            Step::Read => {
                hear(&mut client, &mut dialogue.outbound).unwrap();
                say(&mut client, dialogue.inbound());
            }
            Step::Done => break,
        }
    }
    let (kind, records, carry, mut to_client) = dialogue.finish().unwrap();
    assert!(!to_client.is_empty(), "a ticket, or the end of the handshake");
    hear(&mut client, &mut to_client).unwrap();
    assert_eq!(kind.is_tls13, version.version == ProtocolVersion::TLSv1_3);
    assert!(carry.is_empty());
    Pair { client, records, to_client }
}

/// Moves the client's octets into `wire`.
fn say(client: &mut ClientConnection, wire: &mut Vec<u8>) {
    while client.wants_write() {
        client.write_tls(wire).unwrap();
    }
}

/// Lets the client read `wire`; returns its plaintext.
fn hear(client: &mut ClientConnection, wire: &mut Vec<u8>) -> Result<Vec<u8>, TlsError> {
    let mut rest = &wire[..];
    let mut plaintext = Vec::new();
    while !rest.is_empty() {
        client.read_tls(&mut rest).unwrap();
        let octets = client.process_new_packets()?.plaintext_bytes_to_read();
        let start = plaintext.len();
        plaintext.resize(start + octets, 0);
        client.reader().read_exact(&mut plaintext[start..]).unwrap();
    }
    wire.clear();
    Ok(plaintext)
}

impl Pair {
    fn new() -> Self {
        shake_hands(&[suite(CipherSuite::TLS13_AES_128_GCM_SHA256)], &TLS13)
    }

    /// Sends `content` from the client; returns what the server reads.
    fn client_says(&mut self, content: &[u8]) -> (Vec<u8>, Taken) {
        self.client.writer().write_all(content).unwrap();
        let mut wire = Vec::new();
        say(&mut self.client, &mut wire);
        let taken = self.records.open(&mut wire, &mut self.to_client);
        (wire[taken.plaintext.clone()].to_vec(), taken)
    }

    /// Sends `content` from the server; returns what the client reads.
    fn server_says(&mut self, content: &[u8]) -> Result<Vec<u8>, TlsError> {
        self.records.seal(content, &mut self.to_client).unwrap();
        hear(&mut self.client, &mut self.to_client)
    }
}

fn suite(name: CipherSuite) -> SupportedCipherSuite {
    *ALL_CIPHER_SUITES.iter().find(|suite| suite.suite() == name).unwrap()
}

/// Goal: the cheapest suite is chosen, whatever a client prefers, unless it prefers ChaCha20: such a client has no
/// AES in hardware.
#[test]
fn the_cheapest_suite_is_chosen_unless_the_client_has_no_aes() {
    const AES_128: CipherSuite = CipherSuite::TLS13_AES_128_GCM_SHA256;
    const AES_256: CipherSuite = CipherSuite::TLS13_AES_256_GCM_SHA384;
    const CHACHA: CipherSuite = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
    for (offered, chosen) in [
        ([AES_256, CHACHA, AES_128], AES_128),
        ([CHACHA, AES_256, AES_128], CHACHA),
        ([AES_256, CHACHA, AES_256], AES_256),
    ] {
        let pair = shake_hands(&offered.map(suite), &TLS13);
        assert_eq!(pair.client.negotiated_cipher_suite().map(|suite| suite.suite()), Some(chosen));
    }
}

/// Goal: every suite that we offer carries both directions, one octet to several records at once.
#[test]
fn every_suite_carries_both_directions() {
    for suite in ALL_CIPHER_SUITES {
        let version = if suite.tls13().is_some() { &TLS13 } else { &TLS12 };
        if suite.suite().as_str().is_some_and(|name| name.contains("RSA")) {
            continue; // The certificate is ECDSA; the record layer of these is that of their ECDSA twins.
        }
        let mut pair = shake_hands(&[*suite], version);
        for octets in [1, 100, 16_384, 16_385, 50_000] {
            let content: Vec<u8> = (0..octets).map(|n: usize| n.to_le_bytes()[0]).collect();
            let (heard, taken) = pair.client_says(&content);
            assert_eq!((heard, taken.closing), (content.clone(), None), "{suite:?} up, {octets}");
            assert_eq!(pair.server_says(&content).unwrap(), content, "{suite:?} down, {octets}");
        }
    }
}

/// Goal: octets that are cut anywhere give their whole records now and the rest with the missing octets.
#[test]
fn a_record_that_is_cut_waits_for_its_rest() {
    let mut pair = Pair::new();
    let mut wire = Vec::new();
    for content in [&b"one"[..], b"two"] {
        pair.client.writer().write_all(content).unwrap();
        say(&mut pair.client, &mut wire);
    }
    let cut = wire.len() - 1;
    let mut front = wire[..cut].to_vec();
    let taken = pair.records.open(&mut front, &mut Vec::new());
    assert_eq!(&front[taken.plaintext.clone()], b"one");
    let mut rest = [&front[taken.used..], &wire[cut..]].concat();
    let taken = pair.records.open(&mut rest, &mut Vec::new());
    assert_eq!(&rest[taken.plaintext.clone()], b"two");
    assert_eq!(taken.used, rest.len());
}

/// Goal: a key update is followed, and answered if it requests one, however often and between any records.
#[test]
fn key_updates_are_followed_in_both_directions() {
    let mut pair = Pair::new();
    assert_eq!(pair.server_says(b"before").unwrap(), b"before");
    for round in 0..40_u8 {
        pair.client.refresh_traffic_keys().unwrap();
        let (heard, taken) = pair.client_says(&[round]);
        assert_eq!((heard, taken.closing), (vec![round], None));
        assert!(!pair.to_client.is_empty(), "it was asked for one");
        assert_eq!(pair.server_says(&[round, 1]).unwrap(), [round, 1]);
    }
}

/// Goal: records that carry nothing are bounded.
#[test]
fn a_flood_of_key_updates_ends_the_connection() {
    let mut pair = Pair::new();
    let closings = (0..=IDLE_RECORDS_MAX).map(|_| {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client_says(&[]).1.closing
    });
    let closings: Vec<_> = closings.collect();
    let (last, before) = closings.split_last().unwrap();
    assert!(before.iter().all(Option::is_none));
    assert_eq!(*last, Some(Closing::Broken(UNEXPECTED_MESSAGE)));
}

/// Goal: application data between key updates does not permit more of them: each costs dotd two derivations and an
/// answer. Method: an octet and an update in turn. Covers: C-62, A-12
#[test]
fn key_updates_between_data_are_bounded() {
    let mut pair = Pair::new();
    for _ in 0..KEY_UPDATES_MAX {
        pair.client.refresh_traffic_keys().unwrap();
        assert_eq!(pair.client_says(b"x").1.closing, None);
    }
    pair.client.refresh_traffic_keys().unwrap();
    assert_eq!(pair.client_says(b"x").1.closing, Some(Closing::Broken(UNEXPECTED_MESSAGE)));
}

/// Goal: close_notify ends reading, whatever follows; the client understands dotd's close_notify.
#[test]
fn close_notify_is_heard_and_said() {
    let mut pair = Pair::new();
    pair.client.writer().write_all(b"last").unwrap();
    pair.client.send_close_notify();
    let mut wire = Vec::new();
    say(&mut pair.client, &mut wire);
    wire.extend([0xff; 40]);
    let taken = pair.records.open(&mut wire, &mut Vec::new());
    assert_eq!((&wire[taken.plaintext.clone()], taken.closing), (&b"last"[..], Some(Closing::Notified)));
    pair.records.farewell(taken.closing, &mut pair.to_client);
    let mut rest = &pair.to_client[..];
    pair.client.read_tls(&mut rest).unwrap();
    assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
}

/// Goal: each invalid record gets the alert that RFC 8446 names. Covers: A-48, C-63.
#[test]
fn what_is_wrong_gets_its_alert() {
    let forged = |wire: &mut Vec<u8>| *wire.last_mut().unwrap() ^= 1;
    let plain_alert = |wire: &mut Vec<u8>| *wire = vec![21, 3, 3, 0, 2, 1, 0];
    let change_cipher_spec = |wire: &mut Vec<u8>| *wire = vec![20, 3, 3, 0, 1, 1];
    let too_long = |wire: &mut Vec<u8>| *wire = vec![23, 3, 3, 0xff, 0xff];
    // TLS 1.3 allows less than 1.2 does (RFC 8446 §5.2), whatever the content of the record.
    let a_little_too_long = |wire: &mut Vec<u8>| *wire = [&[23, 3, 3, 0x41, 1][..], &[7; 0x4101]].concat();
    let no_tag = |wire: &mut Vec<u8>| *wire = vec![23, 3, 3, 0, 1, 0];
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let cases: [(Change<'_>, u8, &str); 6] = [
        (&forged, BAD_RECORD_MAC, "BadRecordMac"),
        (&plain_alert, UNEXPECTED_MESSAGE, "UnexpectedMessage"),
        (&change_cipher_spec, UNEXPECTED_MESSAGE, "UnexpectedMessage"),
        (&too_long, RECORD_OVERFLOW, "RecordOverflow"),
        (&a_little_too_long, RECORD_OVERFLOW, "RecordOverflow"),
        (&no_tag, BAD_RECORD_MAC, "BadRecordMac"),
    ];
    for (change, description, name) in cases {
        let mut pair = Pair::new();
        pair.client.writer().write_all(b"query").unwrap();
        let mut wire = Vec::new();
        say(&mut pair.client, &mut wire);
        change(&mut wire);
        let taken = pair.records.open(&mut wire, &mut Vec::new());
        assert_eq!(taken.closing, Some(Closing::Broken(description)), "{name}");
        assert!(taken.plaintext.is_empty());
        pair.records.farewell(taken.closing, &mut pair.to_client);
        let heard = hear(&mut pair.client, &mut pair.to_client).unwrap_err();
        assert_eq!(heard.to_string(), format!("received fatal alert: {name}"));
    }
}

/// Goal: an invalid header is answered before the rest of its record comes, which a client need not send (§5, §5.2).
/// Method: headers without their records, in both versions. Covers: C-268, C-271, C-286
#[test]
fn a_wrong_header_is_answered_at_once() {
    let tls12 = suite(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    let cases: [([u8; 5], u8, u8); 6] = [
        ([20, 3, 3, 0, 1], UNEXPECTED_MESSAGE, UNEXPECTED_MESSAGE),
        ([22, 3, 3, 0, 40], UNEXPECTED_MESSAGE, UNEXPECTED_MESSAGE),
        ([24, 3, 3, 0, 40], UNEXPECTED_MESSAGE, UNEXPECTED_MESSAGE),
        ([0, 3, 3, 0, 40], UNEXPECTED_MESSAGE, UNEXPECTED_MESSAGE),
        ([23, 3, 3, 0x48, 1], RECORD_OVERFLOW, RECORD_OVERFLOW),
        ([255, 3, 3, 0, 0], UNEXPECTED_MESSAGE, UNEXPECTED_MESSAGE),
    ];
    for (header, in_tls13, in_tls12) in cases {
        for (mut pair, description) in [(Pair::new(), in_tls13), (shake_hands(&[tls12], &TLS12), in_tls12)] {
            let taken = pair.records.open(&mut header.to_vec(), &mut Vec::new());
            assert_eq!(taken.closing, Some(Closing::Broken(description)), "{header:?}");
        }
    }
    let taken = Pair::new().records.open(&mut [23, 3, 3, 0x41, 1], &mut Vec::new());
    assert_eq!(taken.closing, Some(Closing::Broken(RECORD_OVERFLOW)), "what TLS 1.2 alone allows");
}

/// Goal: a key that has sealed all records that it may still sends close_notify, and is still replaced if the peer
/// requests that; if even that is not possible the session ends, because the peer does not know a new key without a
/// KeyUpdate (§4.6.3, §5.5). Method: a sealer at its limit, and one beyond; an update that requests one in return.
/// Covers: C-266, C-275
#[test]
fn a_worn_key_is_replaced_or_ends_the_session() {
    let worn = |number| {
        let key = || rustls::crypto::cipher::AeadKey::from([7; 32]);
        let iv = rustls::crypto::cipher::Iv::from([9; 12]);
        Cipher::new((number, rustls::ConnectionTrafficSecrets::Aes256Gcm { key: key(), iv }), true).unwrap()
    };
    for (number, closing) in [
        (cipher::RECORDS_MAX, None),
        (cipher::RECORDS_MAX + cipher::LAST_RECORDS, Some(Closing::Broken(INTERNAL_ERROR))),
    ] {
        let mut pair = Pair::new();
        pair.records.sealer = worn(number);
        assert!(pair.records.seal(b"x", &mut Vec::new()).is_err(), "worn");
        pair.client.refresh_traffic_keys().unwrap();
        assert_eq!(pair.client_says(b"").1.closing, closing);
        assert_eq!(pair.records.seal(b"x", &mut Vec::new()).is_ok(), closing.is_none(), "a new key");
    }
    let mut pair = Pair::new();
    pair.records.sealer = worn(cipher::RECORDS_MAX);
    let mut last = Vec::new();
    pair.records.farewell(None, &mut last);
    assert!(!last.is_empty(), "close_notify");
}

/// Goal: a few warnings of TLS 1.2 have no effect; more of them end the connection with an alert, and not silently
/// (RFC 5246 §7.2.2). Method: no_renegotiation, sealed by the client's own key. Covers: C-285
#[test]
fn warnings_of_tls12_are_bounded() {
    let tls12 = suite(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    let pair = shake_hands(&[tls12], &TLS12);
    let secrets = pair.client.dangerous_extract_secrets().unwrap();
    let (mut client, mut records) = (Cipher::new(secrets.tx, false).unwrap(), pair.records);
    let closings = (0..=WARNINGS_MAX).map(|_| {
        let mut wire = Vec::new();
        client.seal(ALERT, &[WARNING, 100], &mut wire).unwrap();
        records.open(&mut wire, &mut Vec::new()).closing
    });
    let closings: Vec<_> = closings.collect();
    let (last, before) = closings.split_last().unwrap();
    assert!(before.iter().all(Option::is_none), "{closings:?}");
    assert_eq!(*last, Some(Closing::Broken(UNEXPECTED_MESSAGE)));
}
