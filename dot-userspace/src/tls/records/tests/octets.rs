//! Records that another process continues, against rustls's client and the octets of RFC 8448.

use proptest::prelude::*;

use super::{super::octets::RECORDS_OCTETS_MAX, *};
use crate::octets::Octets;

impl Pair {
    /// Another process continues the server's side.
    fn move_server(&mut self) {
        let mut form = Vec::with_capacity(RECORDS_OCTETS_MAX);
        self.records.hand_over(&mut form);
        assert!(form.len() <= RECORDS_OCTETS_MAX, "{}", form.len());
        let old = &mut self.records;
        assert!(old.seal(b"x", &mut Vec::new()).is_err(), "two processes would use one number");
        let mut last = Vec::new();
        old.farewell(None, &mut last);
        assert!(last.is_empty());
        let mut octets = Octets::new(&form);
        self.records = Records::read(&mut octets).expect("its own form");
        assert!(octets.is_empty());
    }
}

/// Goal: in every suite another process continues both directions, any number of times, with the next number, also in
/// the middle of a record. Method: data, a move, data cut in the middle of a record, a move between its parts;
/// rustls's client reads and sends the rest. Covers: C-550, C-551.
#[test]
fn every_suite_goes_on_in_another_process() {
    for suite in ALL_CIPHER_SUITES {
        let version = if suite.tls13().is_some() { &TLS13 } else { &TLS12 };
        if suite.suite().as_str().is_some_and(|name| name.contains("RSA")) {
            continue; // As in `every_suite_carries_both_directions`.
        }
        let mut pair = shake_hands(&[*suite], version);
        for round in 0..3_u8 {
            let (heard, taken) = pair.client_says(&[round; 100]);
            assert_eq!((heard, taken.closing), (vec![round; 100], None), "{suite:?}");
            assert_eq!(pair.server_says(&[round; 20_000]).unwrap(), [round; 20_000], "{suite:?}");
            pair.move_server();
        }
        pair.client.writer().write_all(b"in two parts").unwrap();
        let mut wire = Vec::new();
        say(&mut pair.client, &mut wire);
        let mut front = wire[..wire.len() / 2].to_vec();
        assert_eq!(pair.records.open(&mut front, &mut Vec::new()).used, 0);
        pair.move_server();
        let taken = pair.records.open(&mut wire, &mut Vec::new());
        assert_eq!(&wire[taken.plaintext.clone()], b"in two parts", "{suite:?}");
        assert_eq!(pair.server_says(b"once").unwrap(), b"once");
    }
}

/// Goal: keys are updated after a move as before it, in both directions, also by a KeyUpdate that the move divides.
/// Method: updates between moves; one in records of an octet each, sealed by the client's own key. Covers: C-552.
#[test]
fn keys_change_after_a_move() {
    let mut pair = Pair::new();
    for round in 0..4_u8 {
        pair.client.refresh_traffic_keys().unwrap();
        let (heard, taken) = pair.client_says(&[round]);
        assert_eq!((heard, taken.closing), (vec![round], None));
        pair.move_server();
        assert_eq!(pair.server_says(&[round, 1]).unwrap(), [round, 1]);
    }
    let Pair { client, mut records, .. } = Pair::new();
    let secrets = client.dangerous_extract_secrets().unwrap();
    let mut client = Cipher::new(secrets.tx, true).unwrap();
    for octet in [24, 0, 0, 1, 0] {
        let mut wire = Vec::new();
        client.seal(HANDSHAKE, &[octet], &mut wire).unwrap();
        assert_eq!(records.open(&mut wire, &mut Vec::new()).closing, None);
        let mut form = Vec::new();
        records.hand_over(&mut form);
        records = Records::read(&mut Octets::new(&form)).unwrap();
    }
    assert_eq!(records.key_updates, 1, "whole");
    assert!(!records.partial.is_begun());
}

/// Goal: the encoding gives the keys of RFC 8448 §3. Method: its two secrets, no record of the client yet and one of
/// the server; its two records of application data. Covers: C-550.
#[test]
fn the_form_gives_the_keys_of_rfc_8448() {
    const CLIENT: &str = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
    const SERVER: &str = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";
    const SAID: &str = "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f\
                        5a6292a2977014bd1e3deae63aeebb21694915e4";
    const ANSWERED: &str = "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fcc49c4b\
                            f2e5f0a21c0047c2abf332540dd032e167c2955d";
    let octets = |text: &str| -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
    };
    let numbers = [0_u64.to_be_bytes(), 1_u64.to_be_bytes()].concat();
    let form = [&[13, 0][..], &numbers, &octets(CLIENT), &octets(SERVER), &[0; 5]].concat();
    let mut records = Records::read(&mut Octets::new(&form)).unwrap();
    let content: Vec<u8> = (0..50).collect();
    let mut said = octets(SAID);
    let taken = records.open(&mut said, &mut Vec::new());
    assert_eq!((&said[taken.plaintext], taken.closing), (&content[..], None));
    let mut answered = Vec::new();
    records.seal(&content, &mut answered).unwrap();
    assert_eq!(answered, octets(ANSWERED));
}

proptest! {
    /// Goal: octets of an attacker are decoded or rejected, and the result harms nothing but its own connection.
    /// Method: any octets, and an encoding with one octet changed; then a record and a close_notify.
    ///
    #[test]
    fn any_octets_are_records_or_none(octets in prop::collection::vec(any::<u8>(), 0..200), place in 0..90_usize, octet: u8) {
        let mut form = [&[13, 2][..], &[0; 16], &[7; 64], &[0; 5]].concat();
        form[place.min(86)] = octet;
        for octets in [octets, form] {
            if let Some(mut records) = Records::read(&mut Octets::new(&octets)) {
                let mut wire = [&[23, 3, 3, 0, 40][..], &[9; 40]].concat();
                let taken = records.open(&mut wire, &mut Vec::new());
                records.farewell(taken.closing, &mut Vec::new());
            }
        }
    }
}
