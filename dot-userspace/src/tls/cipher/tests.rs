//! What is sealed can be opened, in every shape, and nothing else can.

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

/// Goal: TLS 1.2 authenticates the version that its record carries (RFC 5246 §6.2.3.3): a changed one is forged, and one
/// that the peer sealed so opens. Covers: C-288
#[test]
fn the_version_of_a_tls12_record_is_authenticated() {
    for kind in [0, 1] {
        let (mut sealer, mut opener) = pair(kind, false);
        let mut wire = Vec::new();
        sealer.seal(APPLICATION_DATA, &[1, 2, 3], &mut wire).unwrap();
        let (header, _) = whole(&wire).unwrap().unwrap();
        for (place, octet) in [(1, 2), (2, 2), (2, 4)] {
            let mut changed = wire.clone();
            changed[place] = octet;
            assert_eq!(opener.open(header, &mut changed), Err(CipherError::Forged), "{place}: {octet}");
        }
        assert_eq!(opener.open(header, &mut wire).map(|opened| opened.octets), Ok(3));
    }
}

/// A record of TLS 1.3 whose inside, type and padding included, is `inner`.
fn record13(inner: &[u8]) -> Vec<u8> {
    let sealer = pair(0, true).0;
    let mut record = Vec::new();
    let header = put_header(&mut record, APPLICATION_DATA, inner.len() + TAG_OCTETS);
    let mut body = inner.to_vec();
    let key = sealer.key.as_ref().unwrap();
    key.seal_in_place_append_tag(sealer.nonce(), Aad::from(header), &mut body).unwrap();
    [record, body].concat()
}

/// Goal: the plaintext of a record of TLS 1.3 may have 2^14 + 1 octets with its type and its padding, and must have a
/// type (RFC 8446 §5.2, §5.4). Method: records sealed by hand, one full of content, one nearly full of padding; an
/// empty one, and one of zeros.
/// Covers: C-270, C-272, C-273
#[test]
fn the_inside_of_a_record_is_bounded_with_its_padding() {
    let inside = |content: usize, padding: usize| {
        [vec![7; content], vec![APPLICATION_DATA], vec![0; padding]].concat()
    };
    let cases: [(Vec<u8>, Result<usize, CipherError>); 7] = [
        (inside(PLAINTEXT_OCTETS_MAX, 0), Ok(PLAINTEXT_OCTETS_MAX)),
        (inside(PLAINTEXT_OCTETS_MAX, 1), Err(CipherError::Overflow)),
        (inside(3, PLAINTEXT_OCTETS_MAX - 3), Ok(3)),
        (inside(3, PLAINTEXT_OCTETS_MAX - 2), Err(CipherError::Overflow)),
        (Vec::new(), Err(CipherError::Typeless)),
        (vec![0; 100], Err(CipherError::Typeless)),
        (vec![0; PLAINTEXT_OCTETS_MAX + 2], Err(CipherError::Overflow)),
    ];
    for (inner, outcome) in cases {
        let mut record = record13(&inner);
        let (header, _) = whole(&record).unwrap().unwrap();
        let opened = pair(0, true).1.open(header, &mut record).map(|opened| opened.octets);
        assert_eq!(opened, outcome, "{} octets", inner.len());
    }
}

/// Covers: C-275
#[test]
fn a_key_ends_before_it_is_worn() {
    let mut sealer = Cipher::new((RECORDS_MAX - 1, secrets(0)), true).unwrap();
    let mut wire = Vec::new();
    assert_eq!(sealer.seal(APPLICATION_DATA, &[1], &mut wire), Ok(()));
    let whole = wire.len();
    assert_eq!(sealer.seal(APPLICATION_DATA, &[1], &mut wire), Err(CipherError::WornOut));
    assert_eq!(wire.len(), whole, "nothing half is left");
    for _ in 0..LAST_RECORDS - 1 {
        assert_eq!(sealer.seal(ALERT, &[1, 0], &mut wire), Ok(()), "a last word");
    }
    assert_eq!(sealer.seal(ALERT, &[1, 0], &mut wire), Ok(()));
    assert_eq!(sealer.seal(ALERT, &[1, 0], &mut wire), Err(CipherError::WornOut));
}
