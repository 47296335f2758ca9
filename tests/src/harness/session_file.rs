//! Changes a session that OpenSSL saved, as an attacker would: its ticket, or what the session permits.
//!
//! Before: the file of `-sess_out`. After: a file that `-sess_in` accepts.
//! Holds: as much of DER as an `SSL_SESSION` needs. Never: interprets the rest.
//!
//! Source: OpenSSL's ssl/ssl_asn1.c (SSL_SESSION_ASN1); X.690 §8.1.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// \[10\] tick, \[15\] max_early_data.
const TICKET: u8 = 0xaa;
const EARLY_DATA: u8 = 0xaf;
/// The first constructed context tag: untagged fields precede it.
const CONTEXT: u8 = 0xa0;

/// The same session with one bit of its ticket changed.
///
/// # Panics
/// When it holds no ticket.
#[must_use]
pub fn tampered(pem: &str) -> String {
    let mut fields = fields(pem);
    let ticket = fields.iter_mut().find(|(tag, _)| *tag == TICKET).expect("a ticket");
    *ticket.1.last_mut().expect("not empty") ^= 1;
    text(&fields)
}

/// The same session with permission to send early data, which no server gave.
#[must_use]
pub fn with_early_data(pem: &str) -> String {
    let mut fields = fields(pem);
    fields.retain(|(tag, _)| *tag != EARLY_DATA);
    let at = fields.iter().position(|(tag, _)| *tag > EARLY_DATA).unwrap_or(fields.len());
    // INTEGER 16384.
    fields.insert(at, (EARLY_DATA, vec![2, 2, 0x40, 0]));
    text(&fields)
}

/// Tag and content of each field.
fn fields(pem: &str) -> Vec<(u8, Vec<u8>)> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    let octets = STANDARD.decode(lines.collect::<String>()).expect("PEM");
    let (_, content) = take(&mut &octets[..]);
    let (mut rest, mut fields) = (&*content, Vec::new());
    while !rest.is_empty() {
        fields.push(take(&mut rest));
    }
    assert!(fields.iter().any(|(tag, _)| *tag >= CONTEXT), "a session of OpenSSL");
    fields
}

/// Takes one value from the front.
fn take(octets: &mut &[u8]) -> (u8, Vec<u8>) {
    let (tag, first) = (octets[0], usize::from(octets[1]));
    let (start, length) = match first {
        0x81 => (3, usize::from(octets[2])),
        0x82 => (4, usize::from(octets[2]) << 8 | usize::from(octets[3])),
        short => (2, short),
    };
    let content = octets[start..start + length].to_vec();
    *octets = &octets[start + length..];
    (tag, content)
}

fn put(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = match content.len() {
        short @ 0..0x80 => vec![u8::try_from(short).expect("short")],
        long => [&[0x82][..], &u16::try_from(long).expect("small").to_be_bytes()].concat(),
    };
    [&[tag][..], &length, content].concat()
}

fn text(fields: &[(u8, Vec<u8>)]) -> String {
    let content: Vec<u8> = fields.iter().flat_map(|(tag, content)| put(*tag, content)).collect();
    let base64 = STANDARD.encode(put(0x30, &content));
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!(
        "-----BEGIN SSL SESSION PARAMETERS-----\n{}\n-----END SSL SESSION PARAMETERS-----\n",
        lines.join("\n")
    )
}
