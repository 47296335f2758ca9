//! Reads the first octets of a connection before rustls does.
//!
//! Before: `dialogue` has a complete record, or octets that cannot be one. After: it knows whether the ClientHello
//! offers a session, and which alert an old client understands.
//! Never: decides anything about security: its result orders a queue and chooses an alert.
//!
//! Source: RFC 8446 §4.1.2, §4.2 and appendix D.5; RFC 5077 §3.2.

use super::{
    alert::{FATAL, RECORD_OVERFLOW},
    record::{ALERT, CHANGE_CIPHER_SPEC, HANDSHAKE, HEADER_OCTETS, Overflow, PLAINTEXT_OCTETS_MAX, header},
};

/// A fatal `protocol_version` alert in the record version that every TLS client reads.
pub const PROTOCOL_VERSION_ALERT: [u8; 7] = [0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 70];

/// A fatal `record_overflow` alert in clear.
pub const RECORD_OVERFLOW_ALERT: [u8; 7] = [ALERT, 0x03, 0x03, 0x00, 0x02, FATAL, RECORD_OVERFLOW];

/// Octets at the beginning of each ClientHello: handshake header, version, random.
const FIXED_OCTETS: usize = 4 + 2 + 32;
/// Extensions that carry a ticket. Source: IANA, TLS ExtensionType values.
const SESSION_TICKET: u16 = 35;
const PRE_SHARED_KEY: u16 = 41;
/// A client that sends this may support TLS 1.3, where a session ID means nothing (RFC 8446 §4.1.2 and appendix D.4).
pub(super) const SUPPORTED_VERSIONS: u16 = 43;
/// Suites with ChaCha20-Poly1305. Source: IANA, TLS Cipher Suites.
const CHACHA_SUITES: [u16; 3] = [0x1303, 0xcca8, 0xcca9];
/// Reserved values (GREASE) have this in both octets (RFC 8701 §2).
pub(super) const GREASE: u16 = 0x0a0a;

/// Whether these octets can never become a TLS record.
#[must_use]
pub fn is_no_record(octets: &[u8]) -> bool {
    let is_wrong =
        |place: usize, is_right: fn(u8) -> bool| octets.get(place).is_some_and(|octet| !is_right(*octet));
    let is_too_long = match header(octets) {
        Ok(header) => header
            .is_some_and(|header| header.content_type == HANDSHAKE && header.octets > PLAINTEXT_OCTETS_MAX),
        Err(Overflow) => true,
    };
    is_wrong(0, |content_type| (20..=24).contains(&content_type))
        || is_wrong(1, |major| major == 3)
        || is_too_long
}

/// The header of a record in clear that claims to be longer than allowed (RFC 8446 §5.1). rustls has no such limit.
#[must_use]
pub fn is_overflow(octets: &[u8]) -> bool {
    let Some(&[content_type, major, _, high, low]) = octets.first_chunk::<HEADER_OCTETS>() else {
        return false;
    };
    (CHANGE_CIPHER_SPEC..=HANDSHAKE).contains(&content_type)
        && major == 3
        && usize::from(u16::from_be_bytes([high, low])) > PLAINTEXT_OCTETS_MAX
}

/// Whether the first record is a ClientHello of SSL 3, TLS 1.0 or 1.1. It has no signature algorithms, which rustls
/// would complain about; but its fault is its version.
#[must_use]
pub fn is_before_tls12(octets: &[u8]) -> bool {
    matches!(octets, [HANDSHAKE, 3, _, _, _, 1, _, _, _, 3, minor, ..] if *minor < 3)
}

/// Whether the ClientHello in `record` offers a ticket, or a session of TLS 1.2. A false offer gains nothing: rustls
/// finds no session and makes a full handshake, and the queue lets both kinds pass.
#[must_use]
pub fn offers_session(record: &[u8]) -> bool {
    let has_id = record.get(HEADER_OCTETS + FIXED_OCTETS).is_some_and(|octets| *octets > 0);
    extensions(record).is_some_and(|extensions| has_ticket(extensions) || (has_id && is_tls12(extensions)))
}

/// Whether the client's first suite uses ChaCha20: so it has no AES in hardware.
#[must_use]
pub fn prefers_chacha(record: &[u8]) -> bool {
    let suites = suites(record).map(|(suites, _)| suites).unwrap_or_default();
    let suites = suites.chunks_exact(2).filter_map(|suite| suite.try_into().ok().map(u16::from_be_bytes));
    let first = suites.into_iter().find(|suite| suite & 0x0f0f != GREASE);
    first.is_some_and(|first| CHACHA_SUITES.contains(&first))
}

/// The suites of a hello, and what follows them.
pub(super) fn suites(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = record.get(HEADER_OCTETS + FIXED_OCTETS..)?;
    let (session_id, rest) = rest.split_first()?;
    let rest = rest.get(usize::from(*session_id)..)?;
    let (octets, rest) = split_length(rest)?;
    rest.split_at_checked(usize::from(octets))
}

/// The extensions of a hello.
pub(super) fn extensions(record: &[u8]) -> Option<&[u8]> {
    let (_, rest) = suites(record)?;
    let (methods, rest) = rest.split_first()?;
    let rest = rest.get(usize::from(*methods)..)?;
    let (octets, rest) = split_length(rest)?;
    rest.get(..usize::from(octets))
}

fn has_ticket(extensions: &[u8]) -> bool {
    // An empty extension only says that the client supports tickets.
    kinds(extensions).any(|(kind, octets)| kind == PRE_SHARED_KEY || (kind == SESSION_TICKET && octets > 0))
}

fn is_tls12(extensions: &[u8]) -> bool {
    kinds(extensions).all(|(kind, _)| kind != SUPPORTED_VERSIONS)
}

/// Type and content of each extension.
fn kinds(mut extensions: &[u8]) -> impl Iterator<Item = (u16, u16)> {
    std::iter::from_fn(move || {
        let (kind, rest) = split_length(extensions)?;
        let (octets, rest) = split_length(rest)?;
        extensions = rest.get(usize::from(octets)..).unwrap_or_default();
        Some((kind, octets))
    })
}

pub(super) fn split_length(octets: &[u8]) -> Option<(u16, &[u8])> {
    octets.split_first_chunk::<2>().map(|(number, rest)| (u16::from_be_bytes(*number), rest))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record with a hello that has these cipher suites and extensions.
    pub fn hello_of(suites: &[u16], extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let length = |octets: &[u8]| u16::try_from(octets.len()).unwrap().to_be_bytes();
        let suites: Vec<_> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        let extensions: Vec<_> = extensions
            .iter()
            .flat_map(|(kind, octets)| [&kind.to_be_bytes()[..], &length(octets), octets].concat())
            .collect();
        let session_id_and_suites = [&[0], &length(&suites)[..], &suites].concat();
        let body =
            [&[3, 3][..], &[7; 32], &session_id_and_suites, &[1, 0], &length(&extensions), &extensions]
                .concat();
        let handshake = [&[1, 0][..], &length(&body), &body].concat();
        [&[22, 3, 1][..], &length(&handshake), &handshake].concat()
    }

    fn hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        hello_of(&[0x1301], extensions)
    }

    #[test]
    fn a_ticket_is_seen_in_either_version() {
        assert!(offers_session(&hello(&[(10, &[0, 2, 0, 29]), (PRE_SHARED_KEY, &[1, 2, 3])])));
        assert!(offers_session(&hello(&[(SESSION_TICKET, &[9; 40])])));
        assert!(
            !offers_session(&hello(&[(SESSION_TICKET, &[]), (43, &[2, 3, 4])])),
            "asks for one, has none"
        );
        assert!(!offers_session(&hello(&[])));
    }

    /// Goal: a session ID means a session in TLS 1.2; in TLS 1.3 every client sends one that means nothing. Method: an
    /// ID of 32 octets in a ClientHello, without and with `supported_versions`.
    #[test]
    fn a_session_id_is_seen_where_it_means_something() {
        let with_id = |extensions: &[(u16, &[u8])]| {
            let mut hello = hello(extensions);
            let id = HEADER_OCTETS + FIXED_OCTETS;
            hello.splice(id..=id, std::iter::once(32).chain([9; 32]));
            hello
        };
        assert!(offers_session(&with_id(&[(10, &[0, 2, 0, 29])])));
        assert!(!offers_session(&with_id(&[(10, &[0, 2, 0, 29]), (SUPPORTED_VERSIONS, &[2, 3, 4])])));
        assert!(!offers_session(&with_id(&[])[..60]), "cut off");
    }

    #[test]
    fn a_client_without_aes_says_so_with_its_first_suite() {
        let mut hello = hello(&[]);
        assert!(!prefers_chacha(&hello));
        let suite = HEADER_OCTETS + FIXED_OCTETS + 3;
        hello[suite..suite + 2].copy_from_slice(&[0x13, 0x03]);
        assert!(prefers_chacha(&hello));
        // A reserved value in front of the suites.
        hello.splice(suite..suite, [0x1a, 0x1a]);
        hello[suite - 1] = 4;
        assert!(prefers_chacha(&hello));
        assert!(!prefers_chacha(&hello[..suite + 1]));
    }

    #[test]
    fn old_clients_and_other_protocols_are_known_by_their_first_octets() {
        let mut old = hello(&[]);
        assert!(!is_before_tls12(&old));
        old[10] = 1;
        assert!(is_before_tls12(&old));
        assert!(is_no_record(b"GET / HTTP/1.1"));
        assert!(is_no_record(&[0, 29, 0x12]));
        assert!(is_no_record(&[22, 3, 1, 0xff, 0xff]));
        assert!(!is_no_record(&[22, 3, 1, 0x02]) && !is_no_record(&[]));
        assert!(is_overflow(&[22, 3, 1, 0x40, 1]) && is_overflow(&[21, 3, 3, 0xff, 0xff, 7]));
        assert!(!is_overflow(&[22, 3, 1, 0x40, 0]) && !is_overflow(&[22, 3, 1, 0x40]));
        assert!(!is_overflow(&[23, 3, 3, 0x40, 1]) && !is_overflow(b"DNS query"));
    }

    proptest! {
        #[test]
        fn any_octets_are_looked_at_without_a_fault(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (offers_session(&octets), prefers_chacha(&octets), is_no_record(&octets), is_before_tls12(&octets));
        }
    }
}
