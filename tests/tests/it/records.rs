//! The rules of the record layer, sentence by sentence: which records a client may send after its handshake, and the
//! alert for all others. RFC 8446 §4.6.3, §5 and §6, RFC 5246 §6 and §7.2.
//!
//! Before: dotd with XDP off and one worker; a client that seals every octet by hand. After: the alert that the RFC
//! names, sealed, then FIN, and no answer to a query behind it; or, for a lawful record, the answer.

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        message::{A, Query, TXT, framed, reply_to, www},
        netns::{Network, SERVER_V4},
        offer::Offer,
        response::Message,
        scene::{HONEST, assert_served, honest, scripted, scripted_with},
        scripted::{Act, Received, Scripted},
        sealer::{ALERT, APPLICATION_DATA, Fin, HANDSHAKE, Sealer},
        server::Server,
    },
    require,
};

const CHANGE_CIPHER_SPEC: u8 = 20;
/// Most octets of plaintext in a record.
const PLAINTEXT_OCTETS_MAX: usize = 1 << 14;
/// Alerts by their names in RFC 8446 §6.
const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const RECORD_OVERFLOW: u8 = 22;
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
const USER_CANCELED: [u8; 2] = [1, 90];
/// A KeyUpdate that requests none, and one that requests one.
const UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

fn scene() -> (Network, Scripted, Server) {
    scripted(Config::new().xdp("off").set("server", "workers", "1"), honest)
}

fn sealer(network: &Network, is_tls12: bool) -> Sealer {
    let offer = Offer { is_tls12, ..Offer::default() };
    Dot::attempt(&network.client, SERVER_V4, &offer).expect("served").into_sealer()
}

/// One case: its name, the alert that it gets, and what the client sends.
type Case = (&'static str, u8, fn(&mut Sealer) -> Vec<u8>);

/// Each case, with a query behind it in the same write, ends with its alert and FIN alone.
fn assert_alerts(network: &Network, is_tls12: bool, cases: &[Case]) {
    for (name, description, octets) in cases {
        let mut client = sealer(network, is_tls12);
        let octets = octets(&mut client);
        let behind = client.seal(APPLICATION_DATA, &framed(&www(7)));
        assert!(client.send_octets(&[octets, behind].concat()), "{name}");
        assert_eq!(client.hear_all(), (vec![(ALERT, vec![2, *description])], Fin::Fin), "{name}");
    }
}

/// A query is answered in the next record of application data.
fn assert_answered(client: &mut Sealer, name: &str) {
    assert!(client.send(APPLICATION_DATA, &framed(&www(7))), "{name}");
    assert_answer(client, name);
}

/// An answer comes next; a ticket may come before it.
fn assert_answer(client: &mut Sealer, name: &str) {
    loop {
        match client.hear() {
            Ok((HANDSHAKE, message)) if message.first() == Some(&4) => {}
            Ok((APPLICATION_DATA, framed)) => {
                let end = 2 + usize::from(u16::from_be_bytes([framed[0], framed[1]]));
                let answer = Message::parse(&framed[2..end]).expect("a message");
                return assert_eq!(answer.rdata(A), [HONEST], "{name}");
            }
            other => panic!("{name}: {other:02x?}"),
        }
    }
}

/// Goal: a ticket lives for seven days at most, has an age_add and a nonce of its own, and allows no early data (RFC
/// 8446 §4.6.1). Method: the tickets of four clients, taken apart. Covers: C-64, C-260
#[test]
fn a_ticket_is_as_the_rfc_wants_it() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..4 {
        let mut client = sealer(&network, false);
        assert!(client.send(APPLICATION_DATA, &framed(&www(7))));
        let (content_type, message) = client.hear().expect("a ticket");
        assert_eq!((content_type, message[0]), (HANDSHAKE, 4), "a ticket comes with the first answer");
        let word = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().expect("four octets"));
        let (lifetime, age_add, nonce_octets) = (word(4), word(8), usize::from(message[12]));
        assert!((1..=604_800).contains(&lifetime), "{lifetime} seconds");
        let nonce = &message[13..13 + nonce_octets];
        assert!(seen.insert(age_add.to_be_bytes().to_vec()) && seen.insert(nonce.to_vec()));
        let ticket = 13 + nonce_octets;
        let ticket_octets = usize::from(u16::from_be_bytes([message[ticket], message[ticket + 1]]));
        assert_eq!(&message[ticket + 2 + ticket_octets..], [0, 0], "no extension");
    }
}

/// Goal: a KeyUpdate has the value 0 or 1, a length of one octet, and ends its record; no other handshake message may come
/// (RFC 8446 §4.6.2, §4.6.3, §5.1). Method: each wrong one sealed. Covers: C-261, C-262, C-263, C-265
#[test]
fn wrong_key_updates_get_their_alert() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    assert_alerts(
        &network,
        false,
        &[
            ("value 2", ILLEGAL_PARAMETER, |client| client.seal(HANDSHAKE, &[24, 0, 0, 1, 2])),
            ("value 255", ILLEGAL_PARAMETER, |client| client.seal(HANDSHAKE, &[24, 0, 0, 1, 255])),
            ("value 2 in two records", ILLEGAL_PARAMETER, |client| {
                [client.seal(HANDSHAKE, &[24, 0]), client.seal(HANDSHAKE, &[0, 1, 2])].concat()
            }),
            ("two in a record", UNEXPECTED_MESSAGE, |client| {
                client.seal(HANDSHAKE, &[UPDATE, UPDATE].concat())
            }),
            ("an octet behind it", UNEXPECTED_MESSAGE, |client| client.seal(HANDSHAKE, &[24, 0, 0, 1, 0, 0])),
            ("the front of another behind it", UNEXPECTED_MESSAGE, |client| {
                [client.seal(HANDSHAKE, &[24, 0, 0]), client.seal(HANDSHAKE, &[1, 0, 24])].concat()
            }),
            ("no octet", DECODE_ERROR, |client| client.seal(HANDSHAKE, &[24, 0, 0, 0])),
            ("two octets", DECODE_ERROR, |client| client.seal(HANDSHAKE, &[24, 0, 0, 2, 0, 0])),
            ("16 MiB", DECODE_ERROR, |client| client.seal(HANDSHAKE, &[24, 255, 255, 255, 0])),
            ("ClientHello", UNEXPECTED_MESSAGE, |client| client.seal(HANDSHAKE, &[1, 0, 0, 2, 3, 3])),
            ("NewSessionTicket", UNEXPECTED_MESSAGE, |client| client.seal(HANDSHAKE, &[4, 0, 0, 0])),
            ("EndOfEarlyData", UNEXPECTED_MESSAGE, |client| client.seal(HANDSHAKE, &[5, 0, 0, 0])),
            ("Certificate", UNEXPECTED_MESSAGE, |client| client.seal(HANDSHAKE, &[11, 0, 0, 4, 0, 0, 0, 0])),
            ("Finished", UNEXPECTED_MESSAGE, |client| client.seal(HANDSHAKE, &[20, 0, 0, 32])),
        ],
    );
}

/// Goal: no other record may stand between the parts of a handshake message (RFC 8446 §5.1). Method: half a KeyUpdate, then
/// a query, an empty record, an alert. Covers: C-264
#[test]
fn nothing_stands_between_the_parts_of_a_message() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    assert_alerts(
        &network,
        false,
        &[
            ("a query", UNEXPECTED_MESSAGE, |client| client.seal(HANDSHAKE, &UPDATE[..3])),
            ("an empty record", UNEXPECTED_MESSAGE, |client| {
                [client.seal(HANDSHAKE, &UPDATE[..1]), client.seal(APPLICATION_DATA, &[])].concat()
            }),
            ("a warning", UNEXPECTED_MESSAGE, |client| {
                [client.seal(HANDSHAKE, &UPDATE[..4]), client.seal(ALERT, &USER_CANCELED)].concat()
            }),
            ("close_notify", UNEXPECTED_MESSAGE, |client| {
                [client.seal(HANDSHAKE, &UPDATE[..4]), client.seal(ALERT, &CLOSE_NOTIFY)].concat()
            }),
        ],
    );
}

/// Goal: a KeyUpdate is one however many records it is in; the following records are read with the new key, and the
/// KeyUpdate that the client requested comes once, before the next answer, under the old key (RFC 8446 §4.6.3, §5.1).
/// Method: every cut, with and without a request; the server sends a KeyUpdate exactly if it was requested, and the
/// answer opens. Covers: C-62, C-264, C-266
#[test]
fn a_key_update_may_be_in_several_records() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    for (update, is_asked) in [(UPDATE, false), (UPDATE_REQUESTED, true)] {
        let mut client = sealer(&network, false);
        assert_answered(&mut client, "before");
        for step in 1..=5 {
            for part in update.chunks(step) {
                assert!(client.send(HANDSHAKE, part));
            }
            client.update_key();
            assert!(client.send(APPLICATION_DATA, &framed(&www(7))));
            if is_asked {
                assert_eq!(client.hear(), Ok((HANDSHAKE, UPDATE.to_vec())), "in records of {step}");
            }
            assert_answer(&mut client, "after");
        }
        assert!(client.send(ALERT, &CLOSE_NOTIFY));
        assert_eq!(client.hear_all(), (vec![(ALERT, CLOSE_NOTIFY.to_vec())], Fin::Fin));
    }
    assert_eq!(dotd.stats().counter("session_ends", "tls"), 0);
}

/// Goal: only a record under the right key and number opens, and every other one is bad_record_mac (RFC 8446 §5.2, §5.3;
/// §4.6.3: no new key before a KeyUpdate, no old one after it). Method: each sealed wrongly. Covers: C-63, C-267, C-276
#[test]
fn only_the_next_record_under_the_right_key_opens() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    for is_tls12 in [false, true] {
        assert_alerts(
            &network,
            is_tls12,
            &[
                ("changed", BAD_RECORD_MAC, |client| {
                    let mut record = client.seal(APPLICATION_DATA, &framed(&www(1)));
                    record[20] ^= 1;
                    record
                }),
                ("one left out", BAD_RECORD_MAC, |client| {
                    let _ = client.seal(APPLICATION_DATA, &framed(&www(1)));
                    client.seal(APPLICATION_DATA, &framed(&www(1)))
                }),
                ("shorter than a tag", BAD_RECORD_MAC, |_| {
                    vec![23, 3, 3, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
                }),
                ("empty", BAD_RECORD_MAC, |_| vec![23, 3, 3, 0, 0]),
            ],
        );
    }
    assert_alerts(
        &network,
        false,
        &[
            ("a new key without a KeyUpdate", BAD_RECORD_MAC, |client| {
                client.update_key();
                Vec::new()
            }),
            ("the old key after a KeyUpdate", BAD_RECORD_MAC, |client| client.seal(HANDSHAKE, &UPDATE)),
        ],
    );
}

/// Goal: the outer and the inner type of a record must be allowed at this point (RFC 8446 §5, §5.4). Method: every
/// other outer type in clear, a protected change_cipher_spec, unknown types, no type at all, empty messages with and
/// without padding. Covers: C-268, C-273, C-274, C-280
#[test]
fn a_record_has_a_type_and_a_message() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    assert_alerts(
        &network,
        false,
        &[
            ("change_cipher_spec", UNEXPECTED_MESSAGE, |_| vec![CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1]),
            ("an alert in clear", UNEXPECTED_MESSAGE, |_| vec![ALERT, 3, 3, 0, 2, 1, 0]),
            ("a handshake in clear", UNEXPECTED_MESSAGE, |_| vec![HANDSHAKE, 3, 3, 0, 4, 0, 0, 0, 0]),
            ("heartbeat", UNEXPECTED_MESSAGE, |_| vec![24, 3, 3, 0, 1, 1]),
            ("type 0", UNEXPECTED_MESSAGE, |_| vec![0, 3, 3, 0, 1, 1]),
            ("type 255", UNEXPECTED_MESSAGE, |_| vec![255, 3, 3, 0, 1, 1]),
            ("change_cipher_spec inside", UNEXPECTED_MESSAGE, |client| client.seal(CHANGE_CIPHER_SPEC, &[1])),
            ("heartbeat inside", UNEXPECTED_MESSAGE, |client| client.seal(24, &[1])),
            ("type 255 inside", UNEXPECTED_MESSAGE, |client| client.seal(255, &[1])),
            ("nothing inside", UNEXPECTED_MESSAGE, |client| client.seal_inside([3, 3], &[])),
            ("zeros inside", UNEXPECTED_MESSAGE, |client| client.seal_inside([3, 3], &[0; 300])),
            ("no handshake message", UNEXPECTED_MESSAGE, |client| client.seal(HANDSHAKE, &[])),
            ("no handshake message, padded", UNEXPECTED_MESSAGE, |client| {
                client.seal_inside([3, 3], &[HANDSHAKE, 0, 0, 0])
            }),
            ("no alert", UNEXPECTED_MESSAGE, |client| client.seal(ALERT, &[])),
            ("no alert, padded", UNEXPECTED_MESSAGE, |client| client.seal_inside([3, 3], &[ALERT, 0, 0])),
            ("half an alert", DECODE_ERROR, |client| client.seal(ALERT, &[1])),
            ("two alerts", DECODE_ERROR, |client| client.seal(ALERT, &[1, 90, 1, 0])),
        ],
    );
}

/// Goal: a record up to its greatest length, padding included, is accepted, and a longer one is not (RFC 8446 §5.1,
/// §5.2, §5.4). Method: one octet above each limit; at the limits themselves a query is answered. Covers: C-63, C-270,
/// C-271, C-272, C-278
#[test]
fn a_record_is_no_longer_than_it_may_be() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    assert_alerts(
        &network,
        false,
        &[
            ("content", RECORD_OVERFLOW, |client| {
                client.seal(APPLICATION_DATA, &[0; PLAINTEXT_OCTETS_MAX + 1])
            }),
            ("padding", RECORD_OVERFLOW, |client| {
                let mut inside = [&framed(&www(1))[..], &[APPLICATION_DATA]].concat();
                inside.resize(PLAINTEXT_OCTETS_MAX + 2, 0);
                client.seal_inside([3, 3], &inside)
            }),
            ("nothing but padding", RECORD_OVERFLOW, |client| {
                client.seal_inside([3, 3], &[0; PLAINTEXT_OCTETS_MAX + 2])
            }),
            ("ciphertext", RECORD_OVERFLOW, |client| {
                client.seal_inside([3, 3], &[7; PLAINTEXT_OCTETS_MAX + 256 - 16 + 1])
            }),
            ("a header alone", RECORD_OVERFLOW, |_| vec![23, 3, 3, 0xff, 0xff]),
        ],
    );
    let mut client = sealer(&network, false);
    for octets in [0, 1, 255, 256, PLAINTEXT_OCTETS_MAX - framed(&www(7)).len()] {
        let mut inside = [&framed(&www(7))[..], &[APPLICATION_DATA]].concat();
        inside.resize(inside.len() + octets, 0);
        let record = client.seal_inside([3, 3], &inside);
        assert!(client.send_octets(&record));
        assert_answer(&mut client, &format!("{octets} octets of padding"));
    }
    let queries = framed(&www(7)).repeat(PLAINTEXT_OCTETS_MAX / framed(&www(7)).len() + 1);
    assert!(client.send(APPLICATION_DATA, &queries[..PLAINTEXT_OCTETS_MAX]));
    assert_answer(&mut client, "as much content as there may be");
}

/// Goal: the version in a record's header is ignored in TLS 1.3 (RFC 8446 §5.1). Method: queries in records with every
/// version that ever existed, sealed with it. Covers: C-269
#[test]
fn the_version_of_a_record_is_ignored() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    let mut client = sealer(&network, false);
    for version in [[3, 1], [3, 0], [3, 2], [3, 4], [0, 0], [255, 255]] {
        let record = client.seal_as(version, APPLICATION_DATA, &framed(&www(7)));
        assert!(client.send_octets(&record));
        assert_answer(&mut client, &format!("{version:?}"));
    }
}

/// Goal: the same for TLS 1.2: types, lengths, alerts, and the version, which is authenticated as received (RFC 5246
/// §6.2.1, §6.2.3, §6.2.3.3, §7.1, §7.2). Method: each once. Covers: C-286, C-287, C-288, C-289, C-290, C-295
#[test]
fn tls12_records_get_their_alert() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    assert_alerts(
        &network,
        true,
        &[
            ("a version changed", BAD_RECORD_MAC, |client| {
                let mut record = client.seal(APPLICATION_DATA, &framed(&www(1)));
                record[2] = 2;
                record
            }),
            ("a type changed", BAD_RECORD_MAC, |client| {
                let mut record = client.seal(APPLICATION_DATA, &CLOSE_NOTIFY);
                record[0] = ALERT;
                record
            }),
            ("change_cipher_spec", UNEXPECTED_MESSAGE, |client| client.seal(CHANGE_CIPHER_SPEC, &[1])),
            ("heartbeat", UNEXPECTED_MESSAGE, |client| client.seal(24, &[1])),
            ("type 255", UNEXPECTED_MESSAGE, |client| client.seal(255, &[1])),
            ("no handshake message", UNEXPECTED_MESSAGE, |client| client.seal(HANDSHAKE, &[])),
            ("a new ClientHello", UNEXPECTED_MESSAGE, |client| client.seal(HANDSHAKE, &[1, 0, 0, 2, 3, 3])),
            ("no alert", UNEXPECTED_MESSAGE, |client| client.seal(ALERT, &[])),
            ("half an alert", DECODE_ERROR, |client| client.seal(ALERT, &[1])),
            ("two alerts", DECODE_ERROR, |client| client.seal(ALERT, &[1, 90, 1, 0])),
            ("a level that is none", ILLEGAL_PARAMETER, |client| client.seal(ALERT, &[3, 90])),
            ("content", RECORD_OVERFLOW, |client| {
                client.seal(APPLICATION_DATA, &[0; PLAINTEXT_OCTETS_MAX + 1])
            }),
            ("a header alone", RECORD_OVERFLOW, |_| vec![23, 3, 3, 0x48, 1]),
        ],
    );
    let mut client = sealer(&network, true);
    for _ in 0..30 {
        assert!(client.send(APPLICATION_DATA, &[]));
    }
    let record = client.seal_as([3, 2], APPLICATION_DATA, &framed(&www(7)));
    assert!(client.send_octets(&record));
    assert_answer(&mut client, "sealed with another version, after empty records");
}

/// Goal: warnings in TLS 1.2 do not end the session until there are too many; then a fatal alert ends it (RFC 5246
/// §7.2.2). Method: four with queries between them, then a fifth. Covers: C-285
#[test]
fn tls12_warnings_end_in_an_alert() {
    require!(Root);
    let (network, _backend, _dotd) = scene();
    let mut client = sealer(&network, true);
    for description in [90, 100, 112, 255] {
        assert!(client.send(ALERT, &[1, description]));
        assert_answered(&mut client, "after a warning");
    }
    assert!(client.send(ALERT, &[1, 100]));
    assert_eq!(client.hear_all(), (vec![(ALERT, vec![2, UNEXPECTED_MESSAGE])], Fin::Fin));
}

/// Goal: an error alert ends the connection at once, whatever its level and whether or not it is known; user_canceled
/// does not (RFC 8446 §6, §6.1, §6.2). Method: each; for the last, a query that is answered, and close_notify. Covers:
/// C-282, C-283
#[test]
fn an_error_alert_ends_without_a_word() {
    require!(Root);
    let (network, _backend, dotd) = scene();
    let cases = [(false, [2, 80]), (false, [1, 80]), (false, [1, 255]), (false, [7, 40]), (true, [2, 80])];
    for (count, (is_tls12, alert)) in (1..).zip(cases) {
        let mut client = sealer(&network, is_tls12);
        let octets = client.seal(ALERT, &alert);
        let behind = client.seal(APPLICATION_DATA, &framed(&www(7)));
        assert!(client.send_octets(&[octets, behind].concat()));
        assert_eq!(client.hear_all(), (Vec::new(), Fin::Fin), "{alert:?}");
        dotd.counts("it is counted", |stats| stats.counter("session_ends", "tls") == count);
    }
    let mut client = sealer(&network, false);
    assert!(client.send(ALERT, &USER_CANCELED));
    assert_answered(&mut client, "after user_canceled");
    assert!(client.send(ALERT, &CLOSE_NOTIFY));
    assert_eq!(client.hear_all(), (vec![(ALERT, CLOSE_NOTIFY.to_vec())], Fin::Fin));
    assert_served(&mut Dot::connect(&network.client, SERVER_V4));
}

/// Goal: everything behind close_notify is ignored, and the answers that are owed still arrive whole (RFC 8446 §6.1).
/// Method: five queries for 64 KiB each and close_notify, behind it a query, a broken record and octets that are no
/// record, in both versions; more of these between the answers. All five answers arrive, then close_notify and FIN.
/// Covers: C-281
#[test]
fn what_follows_close_notify_is_ignored() {
    require!(Root);
    let large = |query: &Received| {
        let rdata = [&[255][..], &[b'x'; 255]].concat();
        vec![Act::Send(reply_to(&query.octets, TXT, &vec![rdata; 240]))]
    };
    let config = Config::new().xdp("off").set("server", "workers", "1");
    let (network, backend, dotd) = scripted_with(config, "transport = \"tcp\"", large);
    for (count, is_tls12) in (1..).zip([false, true]) {
        let mut client = sealer(&network, is_tls12);
        let query = |id| framed(&Query::new(id, "large.dotd.test", TXT).octets());
        let asked = client.seal(APPLICATION_DATA, &(0..5).flat_map(query).collect::<Vec<_>>());
        let goodbye = client.seal(ALERT, &CLOSE_NOTIFY);
        let stray = client.seal(APPLICATION_DATA, &query(9));
        assert!(client.send_octets(&[asked, goodbye, stray, vec![0xff; 3000]].concat()));
        let mut answers = Vec::new();
        let end = loop {
            match client.hear() {
                Ok((APPLICATION_DATA, content)) => answers.extend(content),
                Ok((HANDSHAKE, _)) => {}
                Ok(other) => break other,
                Err(end) => panic!("{end:?} after {} octets", answers.len()),
            }
            assert!(client.send_octets(&[0xff; 10]), "it is still read");
        };
        assert_eq!(end, (ALERT, CLOSE_NOTIFY.to_vec()));
        assert_eq!(client.hear(), Err(Fin::Fin));
        let octets = 2 + usize::from(u16::from_be_bytes([answers[0], answers[1]]));
        assert!(octets > 60_000 && answers.len() == 5 * octets, "{} of {octets} each", answers.len());
        dotd.counts("it left in order", |stats| stats.counter("session_ends", "client") == count);
    }
    assert_eq!(backend.received().len(), 10, "no query behind it was taken");
}
