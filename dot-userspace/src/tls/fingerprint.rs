//! The parameters that a ClientHello offers, for traces: its versions, and a fingerprint that distinguishes kinds of
//! clients.
//!
//! Before: `dialogue` has the first record, and an operator traces clients. After: the trace shows them.
//! Never: runs while there is no trace, or decides anything.
//!
//! Source: JA4, "JA4: TLS Client Fingerprinting" (FoxIO, 2023); RFC 8446 §4.2; RFC 8701 for the values that mean nothing.

use aws_lc_rs::digest::{SHA256, digest};

use super::hello::{GREASE, SUPPORTED_VERSIONS, extensions, split_length, suites};

/// The parameters that a client offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Versions of TLS, the newest first, such as "1.3 1.2".
    pub versions: String,
    /// JA4.
    pub fingerprint: String,
}

const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
/// Hexadecimal digits of a hash in a fingerprint.
const DIGITS: usize = 12;
/// The version of a hello without `supported_versions`, after the headers of record and handshake.
const VERSION_AT: usize = super::record::HEADER_OCTETS + 4;

/// The parameters of the ClientHello in `record`. `None`: it is not a complete ClientHello.
#[must_use]
pub fn of(record: &[u8]) -> Option<Offer> {
    let ciphers = numbers(suites(record)?.0);
    let listed = listed(extensions(record).unwrap_or_default());
    let content = |wanted: u16| listed.iter().find(|(kind, _)| *kind == wanted).map(|(_, content)| *content);
    let legacy = record.get(VERSION_AT..).and_then(|rest| rest.first_chunk::<2>());
    let mut versions = content(SUPPORTED_VERSIONS).map(|list| numbers(list.get(1..).unwrap_or_default()));
    versions.iter_mut().for_each(|versions| versions.sort_unstable_by(|one, other| other.cmp(one)));
    let versions = versions.filter(|versions| !versions.is_empty());
    let versions = versions.or_else(|| Some(vec![u16::from_be_bytes(*legacy?)]))?;
    let alpn = content(ALPN).and_then(|list| {
        let (length, rest) = list.get(2..)?.split_first()?;
        rest.get(..usize::from(*length))
    });
    let kinds: Vec<u16> = listed.iter().map(|(kind, _)| *kind).collect();
    let first = format!(
        "t{}{}{:02}{:02}{}",
        versions.first().map_or("00", |version| digits_of(*version)),
        if kinds.contains(&SERVER_NAME) { 'd' } else { 'i' },
        ciphers.len().min(99),
        kinds.len().min(99),
        ends_of(alpn.unwrap_or_default()),
    );
    let others = kinds.iter().copied().filter(|kind| ![SERVER_NAME, ALPN].contains(kind)).collect();
    let mut second = joined(sorted(others));
    let algorithms = content(SIGNATURE_ALGORITHMS).map(|list| numbers(list.get(2..).unwrap_or_default()));
    if let Some(algorithms) = algorithms.filter(|algorithms| !algorithms.is_empty()) {
        second = format!("{second}_{}", joined(algorithms));
    }
    let names = versions.iter().map(|version| match digits_of(*version) {
        "00" => format!("{version:04x}"),
        digits => format!("{}.{}", digits.get(..1).unwrap_or_default(), digits.get(1..).unwrap_or_default()),
    });
    Some(Offer {
        versions: names.collect::<Vec<_>>().join(" "),
        fingerprint: format!("{first}_{}_{}", hash(&joined(sorted(ciphers))), hash(&second)),
    })
}

/// The numbers of a list, without reserved ones.
fn numbers(list: &[u8]) -> Vec<u16> {
    let numbers = list.chunks_exact(2).filter_map(|pair| pair.first_chunk::<2>().copied());
    numbers.map(u16::from_be_bytes).filter(|number| !is_reserved(*number)).collect()
}

/// Type and content of each extension, without reserved ones.
fn listed(mut extensions: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some((kind, rest)) = split_length(extensions)
        && let Some((octets, rest)) = split_length(rest)
        && let Some((content, rest)) = rest.split_at_checked(usize::from(octets))
    {
        if !is_reserved(kind) {
            found.push((kind, content));
        }
        extensions = rest;
    }
    found
}

fn is_reserved(number: u16) -> bool {
    let [high, low] = number.to_be_bytes();
    number & 0x0f0f == GREASE && high == low
}

fn digits_of(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        _ => "00",
    }
}

/// The first and the last character of a protocol's name; if these are not letters or digits, of its hexadecimal
/// form.
fn ends_of(name: &[u8]) -> String {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return "00".to_owned() };
    match first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        true => [char::from(*first), char::from(*last)].iter().collect(),
        false => format!("{:x}{:x}", first >> 4, last & 0x0f),
    }
}

fn sorted(mut numbers: Vec<u16>) -> Vec<u16> {
    numbers.sort_unstable();
    numbers
}

fn joined(numbers: Vec<u16>) -> String {
    numbers.iter().map(|number| format!("{number:04x}")).collect::<Vec<_>>().join(",")
}

fn hash(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(DIGITS);
    }
    let octets = digest(&SHA256, text.as_bytes());
    octets.as_ref().iter().take(DIGITS / 2).map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::hello::tests::hello_of as record, *};

    /// Goal: a fingerprint equals that of other implementations, whatever the order of a hello and its reserved
    /// values; versions are named; octets that are not a hello have none. Method: the example of the JA4
    /// specification, in two orders; a hello of TLS 1.2 without extensions; each prefix of one. Covers: C-584
    #[test]
    fn a_fingerprint_is_that_of_the_specification() {
        let ciphers = [
            0x0a0a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
            0x009c, 0x009d, 0x002f, 0x0035,
        ];
        let algorithms = [0, 16, 4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 5, 1, 8, 6, 6, 1];
        let alpn = [0, 12, 2, b'h', b'2', 8, b'h', b't', b't', b'p', b'/', b'1', b'.', b'1'];
        let mut extensions: Vec<(u16, &[u8])> = vec![
            (0x1a1a, &[]),
            (0x001b, &[]),
            (0x0000, &[]),
            (0x0033, &[]),
            (0x0010, &alpn),
            (0x4469, &[]),
            (0x0017, &[]),
            (0x002d, &[]),
            (0x000d, &algorithms),
            (0x0005, &[]),
            (0x0023, &[]),
            (0x0012, &[]),
            (0x002b, &[6, 0x0a, 0x0a, 3, 4, 3, 3]),
            (0xff01, &[]),
            (0x000b, &[]),
            (0x000a, &[]),
            (0x0015, &[]),
        ];
        let whole = record(&ciphers, &extensions);
        let offer = of(&whole).unwrap();
        assert_eq!(offer.fingerprint, "t13d1516h2_8daaf6152771_e5627efa2ab1");
        assert_eq!(offer.versions, "1.3 1.2");
        extensions.reverse();
        let mut others = ciphers;
        others.reverse();
        assert_eq!(of(&record(&others, &extensions)), Some(offer));
        let plain = of(&record(&[0xc02f], &[])).unwrap();
        assert!(plain.fingerprint.starts_with("t12i010000_") && plain.fingerprint.ends_with("_000000000000"));
        assert_eq!(plain.versions, "1.2");
        assert_eq!(ends_of(b"dot"), "dt");
        (0..whole.len()).for_each(|length| drop(of(&whole[..length])));
        assert_eq!(of(&whole[..40]), None);
    }
}
