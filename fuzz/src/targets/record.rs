//! The record layer: no octets make it panic, sealed content opens unchanged, and no changed record opens.
//!
//! Before: an octet that chooses a suite, one that chooses a place, then content. After: sealed, opened, changed,
//! refused. Never: has a secret; its keys are constants.
//!
//! Source: RFC 8446 §5, RFC 5246 §6.2.

use dot_userspace::tls::{
    cipher::{Cipher, CipherError},
    record::{APPLICATION_DATA, HEADER_OCTETS, Overflow, header, whole},
};
use rustls::{
    ConnectionTrafficSecrets,
    crypto::cipher::{AeadKey, Iv},
};

/// Content that is sealed; three records and a part.
const CONTENT_OCTETS_MAX: usize = 50_000;

/// Runs the target.
///
/// # Panics
/// When a record opens that must not, or one does not that must.
pub fn run(octets: &[u8]) {
    let Some((&[choice, place], content)) = octets.split_first_chunk() else { return };
    assert_strangers_are_refused(choice, content);
    let content = &content[..content.len().min(CONTENT_OCTETS_MAX)];
    let mut wire = Vec::new();
    assert_eq!(cipher(choice).seal(APPLICATION_DATA, content, &mut wire), Ok(()));
    assert_eq!(opened(choice, wire.clone()), Ok(content.to_vec()));
    let at = usize::from(place) * wire.len() / 256;
    if !wire.is_empty() {
        wire[at] ^= 1 << (choice >> 5);
        assert_ne!(opened(choice, wire), Ok(content.to_vec()), "a changed octet at {at}");
    }
}

/// Octets that were never sealed: they are read, and never open.
fn assert_strangers_are_refused(choice: u8, octets: &[u8]) {
    match (header(octets), whole(octets)) {
        (Err(Overflow), Err(Overflow)) => {}
        (Ok(None), Ok(None)) => assert!(octets.len() < HEADER_OCTETS),
        (Ok(Some(header)), Ok(None)) => assert!(octets.len() < HEADER_OCTETS + header.octets),
        (Ok(Some(header)), Ok(Some((same, end)))) => {
            assert!(header == same && end == HEADER_OCTETS + header.octets && end <= octets.len());
            let mut record = octets[..end].to_vec();
            assert_eq!(cipher(choice).open(header, &mut record), Err(CipherError::Forged));
        }
        (header, whole) => panic!("{header:?} and {whole:?}"),
    }
}

/// Opens every record of `wire`; what is left over, or does not open, is an error.
fn opened(choice: u8, mut wire: Vec<u8>) -> Result<Vec<u8>, &'static str> {
    let (mut cipher, mut content) = (cipher(choice), Vec::new());
    let mut rest = &mut wire[..];
    while !rest.is_empty() {
        let (header, end) = whole(rest).map_err(|_| "too long")?.ok_or("cut")?;
        let (record, behind) = rest.split_at_mut(end);
        let opened = cipher.open(header, record).map_err(|_| "forged")?;
        if opened.content_type != APPLICATION_DATA {
            return Err("another content");
        }
        content.extend_from_slice(&record[opened.start..opened.start + opened.octets]);
        rest = behind;
    }
    Ok(content)
}

fn is_tls13(choice: u8) -> bool {
    choice % 4 < 2
}

/// One of the supported kinds of record; keys of fixed octets (rustls makes none of 128 bits from outside).
fn cipher(choice: u8) -> Cipher {
    let (key, iv) = (AeadKey::from([0x42; 32]), Iv::from([7; 12]));
    let secrets = match choice % 2 {
        0 => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
        _ => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
    };
    Cipher::new((u64::from(choice), secrets), is_tls13(choice)).expect("suites that we offer")
}
