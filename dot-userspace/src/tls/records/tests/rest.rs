//! Connections whose keys are at rest, against rustls's client: each record finds its key and its number.

use super::{super::octets::RECORDS_OCTETS_MAX, *};
use crate::octets::Octets;

impl Pair {
    fn rest(&mut self) {
        self.records.rest();
        assert!(self.records.is_at_rest());
    }

    /// Which of both keys are at rest: the client's, the server's.
    fn resting(&self) -> [bool; 2] {
        [&self.records.opener, &self.records.sealer].map(Cipher::is_at_rest)
    }
}

/// A connection for each suite, and its name. Those of RSA are as in `every_suite_carries_both_directions`.
fn of_every_suite() -> impl Iterator<Item = (Pair, String)> {
    let is_meant =
        |suite: &&SupportedCipherSuite| !suite.suite().as_str().is_some_and(|name| name.contains("RSA"));
    ALL_CIPHER_SUITES.iter().filter(is_meant).map(|suite| {
        let version = if suite.tls13().is_some() { &TLS13 } else { &TLS12 };
        (shake_hands(&[*suite], version), format!("{suite:?}"))
    })
}

/// Goal: in every suite of TLS 1.3 and 1.2 a connection rests and goes on with the next number, however often; a record
/// makes the key of its own direction alone, and octets that are no whole record make none. Method: rests at each point of an
/// exchange; rustls's client opens and seals only the next record. Covers: C-830, C-831
#[test]
fn every_suite_goes_on_after_a_rest() {
    for (mut pair, suite) in of_every_suite() {
        for round in 0..3_u8 {
            pair.rest();
            let (heard, taken) = pair.client_says(&[round; 100]);
            assert_eq!((heard, taken.closing), (vec![round; 100], None), "{suite}");
            assert_eq!(pair.resting(), [false, true], "{suite}: what was not used stays");
            assert_eq!(pair.server_says(&[round; 20_000]).unwrap(), [round; 20_000], "{suite}");
            assert_eq!(pair.resting(), [false, false]);
            pair.rest();
            assert_eq!(pair.server_says(b"first").unwrap(), b"first", "{suite}");
            assert_eq!(pair.resting(), [true, false]);
        }
        pair.rest();
        pair.client.writer().write_all(b"in two parts").unwrap();
        let mut wire = Vec::new();
        say(&mut pair.client, &mut wire);
        let half = wire.len() / 2;
        assert_eq!(pair.records.open(&mut wire[..half], &mut Vec::new()).used, 0);
        assert_eq!(pair.resting(), [true, true], "a part of a record costs nothing");
        let taken = pair.records.open(&mut wire, &mut Vec::new());
        assert_eq!(&wire[taken.plaintext], b"in two parts", "{suite}");
    }
}

/// Goal: a KeyUpdate that comes while the keys are at rest is opened by the old key, and answered under the old key if the
/// client requests that; then both sides go on with the new keys, also after another rest. One that requests nothing leaves
/// the server's key at rest, with its number. Method: rustls's client, which requests one each time; then updates that request
/// none, in one record and in one for each octet, sealed by the client's own key. Covers: C-832
#[test]
fn keys_change_while_they_are_at_rest() {
    for (mut pair, suite) in of_every_suite().filter(|(pair, _)| pair.records.is_tls13()) {
        for round in 0..4_u8 {
            pair.client.refresh_traffic_keys().unwrap();
            pair.rest();
            assert_eq!(pair.client_says(&[]).1.closing, None, "{suite}");
            assert!(!pair.to_client.is_empty(), "it was asked for one");
            pair.rest();
            assert_eq!(pair.server_says(&[round, 1]).unwrap(), [round, 1], "{suite}");
            pair.rest();
            assert_eq!(pair.client_says(&[round]).0, [round], "{suite}");
        }
        assert_eq!(pair.server_says(b"twice").unwrap(), b"twice");
        let Pair { client, mut records, .. } = pair;
        let secrets = client.dangerous_extract_secrets().unwrap();
        let (mut seals, mut opens) =
            (Cipher::new(secrets.tx, true).unwrap(), Cipher::new(secrets.rx, true).unwrap());
        let [kind, high, middle, low] = key_update::FRONT;
        for octet in [kind, high, middle, low, NOT_REQUESTED] {
            records.rest();
            let mut wire = Vec::new();
            seals.seal(HANDSHAKE, &[octet], &mut wire).unwrap();
            let mut replies = Vec::new();
            assert_eq!(records.open(&mut wire, &mut replies).closing, None);
            assert!(replies.is_empty() && records.sealer.is_at_rest());
        }
        let mut wire = Vec::new();
        records.seal(b"as before", &mut wire).unwrap();
        let (header, _) = record::whole(&wire).unwrap().unwrap();
        assert_eq!(opens.open(header, &mut wire).map(|opened| opened.octets), Ok(9), "{suite}");
        let mut old = Vec::new();
        seals.seal(APPLICATION_DATA, b"the old key", &mut old).unwrap();
        records.rest();
        let closing = records.open(&mut old, &mut Vec::new()).closing;
        assert_eq!(closing, Some(Closing::Broken(BAD_RECORD_MAC)));
    }
}

/// Goal: each end is as without a rest: dotd's close_notify and the client's, and the alert for a forged record. Method: each
/// in every suite, at rest. Covers: C-833
#[test]
fn a_connection_ends_in_order_while_it_is_at_rest() {
    for (mut pair, suite) in of_every_suite() {
        pair.rest();
        pair.records.farewell(None, &mut pair.to_client);
        let mut said = &pair.to_client[..];
        pair.client.read_tls(&mut said).unwrap();
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed(), "{suite}");
        pair.rest();
        pair.client.send_close_notify();
        assert_eq!(pair.client_says(&[]).1.closing, Some(Closing::Notified), "{suite}");
    }
    for (mut pair, suite) in of_every_suite() {
        pair.rest();
        pair.client.writer().write_all(b"query").unwrap();
        let mut wire = Vec::new();
        say(&mut pair.client, &mut wire);
        *wire.last_mut().unwrap() ^= 1;
        let taken = pair.records.open(&mut wire, &mut Vec::new());
        assert_eq!(taken.closing, Some(Closing::Broken(BAD_RECORD_MAC)), "{suite}");
        pair.rest();
        pair.records.farewell(taken.closing, &mut pair.to_client);
        let heard = hear(&mut pair.client, &mut pair.to_client).unwrap_err();
        assert_eq!(heard.to_string(), "received fatal alert: BadRecordMac", "{suite}");
    }
}

/// Goal: a connection moves while it is at rest as at any time, with the same octets, and is at rest in the next process too;
/// what has moved makes no key again, whatever comes. Method: the encodings of one connection awake and at rest; records for
/// the connection that was left and for the one that goes on. Covers: A-832, C-834, C-551
#[test]
fn a_connection_at_rest_moves_as_it_is() {
    for (mut pair, suite) in of_every_suite() {
        let form = |records: &mut Records| {
            let mut form = Vec::with_capacity(RECORDS_OCTETS_MAX);
            records.hand_over(&mut form);
            form
        };
        let of_form = |form: &[u8]| Records::read(&mut Octets::new(form)).unwrap();
        assert_eq!(pair.client_says(b"before").0, b"before");
        let awake = form(&mut pair.records);
        pair.records = of_form(&awake);
        assert!(pair.records.is_at_rest(), "{suite}: until its first record");
        let at_rest = form(&mut pair.records);
        assert_eq!(awake, at_rest, "{suite}");
        let mut left = std::mem::replace(&mut pair.records, of_form(&at_rest));
        pair.client.writer().write_all(b"after").unwrap();
        let mut wire = Vec::new();
        say(&mut pair.client, &mut wire);
        let closing = left.open(&mut wire.clone(), &mut Vec::new()).closing;
        assert!(matches!(closing, Some(Closing::Broken(_))), "{suite}: {closing:?}");
        assert!(left.seal(b"x", &mut Vec::new()).is_err() && left.is_at_rest(), "{suite}");
        let taken = pair.records.open(&mut wire, &mut Vec::new());
        assert_eq!(&wire[taken.plaintext], b"after", "{suite}");
        assert_eq!(pair.server_says(b"an answer").unwrap(), b"an answer", "{suite}");
    }
}

/// Goal: a rest gives no key back what it has used up. Method: a key that has sealed all records that it may, at rest.
/// Covers: C-831, C-275
#[test]
fn a_worn_key_stays_worn_at_rest() {
    let mut pair = Pair::new();
    pair.records.sealer = Cipher::at_rest(cipher::Suite::Aes128Gcm, [0; 12], cipher::RECORDS_MAX, true);
    assert_eq!(pair.records.seal(b"x", &mut Vec::new()), Err(CipherError::WornOut));
    let mut last = Vec::new();
    pair.records.farewell(None, &mut last);
    assert!(!last.is_empty(), "close_notify");
}
