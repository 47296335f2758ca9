//! What is sealed is what is opened, in every shape, and nothing else is.

use rustls::crypto::cipher::{AeadKey, Iv};

use super::*;
use crate::tls::record::{ALERT, whole};

fn secrets(kind: u8) -> ConnectionTrafficSecrets {
    let (key, iv) = (AeadKey::from([7; 32]), Iv::from([9; 12]));
    match kind {
        0 => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
        _ => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
    }
}

fn pair(kind: u8, is_tls13: bool) -> (Cipher, Cipher) {
    let cipher = || Cipher::new((0, secrets(kind)), is_tls13).unwrap();
    (cipher(), cipher())
}

const SHAPES: [(u8, bool); 4] = [(0, true), (1, true), (0, false), (1, false)];

/// Goal: three records in a row, the middle one larger than a record may be, come back in order.
#[test]
fn what_is_sealed_is_what_is_opened() {
    for (kind, is_tls13) in SHAPES {
        let (mut sealer, mut opener) = pair(kind, is_tls13);
        let contents = [vec![1; 31], vec![2; PLAINTEXT_OCTETS_MAX + 100], vec![3; 1]];
        let mut wire = Vec::new();
        for content in &contents {
            sealer.seal(APPLICATION_DATA, content, &mut wire).unwrap();
        }
        let mut seen = Vec::new();
        while let Some((header, octets)) = whole(&wire).unwrap() {
            let mut record: Vec<u8> = wire.drain(..octets).collect();
            let opened = opener.open(header, &mut record).unwrap();
            assert_eq!(opened.content_type, APPLICATION_DATA);
            seen.extend_from_slice(&record[opened.start..opened.start + opened.octets]);
        }
        assert!(wire.is_empty());
        assert_eq!(seen, contents.concat());
    }
}

/// Goal: one flipped bit anywhere, or a record out of its order, is refused. Covers: C-63.
#[test]
fn a_forged_or_repeated_record_is_refused() {
    for (kind, is_tls13) in SHAPES {
        let (mut sealer, mut opener) = pair(kind, is_tls13);
        let mut wire = Vec::new();
        sealer.seal(ALERT, &[1, 0], &mut wire).unwrap();
        let (header, _) = whole(&wire).unwrap().unwrap();
        for place in HEADER_OCTETS..wire.len() {
            let mut forged = wire.clone();
            forged[place] ^= 1;
            assert_eq!(opener.open(header, &mut forged), Err(CipherError::Forged), "octet {place}");
        }
        assert_eq!(opener.open(header, &mut wire.clone()).unwrap().content_type, ALERT);
        assert_eq!(opener.open(header, &mut wire), Err(CipherError::Forged), "the same once more");
        assert_eq!(opener.open(header, &mut []), Err(CipherError::Forged));
    }
}

/// Covers: C-63.
#[test]
fn padding_is_taken_off_and_nothing_but_padding_is_refused() {
    assert_eq!(inner_type(&[5, 6, 23, 0, 0]), Some((23, 2)));
    assert_eq!(inner_type(&[23]), Some((23, 0)));
    assert_eq!(inner_type(&[0, 0, 0]), None);
    assert_eq!(inner_type(&[]), None);
}

#[test]
fn a_key_ends_before_it_is_worn() {
    let mut sealer = Cipher::new((RECORDS_MAX - 1, secrets(0)), true).unwrap();
    let mut wire = Vec::new();
    assert_eq!(sealer.seal(APPLICATION_DATA, &[1], &mut wire), Ok(()));
    let whole = wire.len();
    assert_eq!(sealer.seal(APPLICATION_DATA, &[1], &mut wire), Err(CipherError::WornOut));
    assert_eq!(wire.len(), whole, "nothing half is left");
}
