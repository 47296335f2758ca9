//! The names of header fields and EDNS options in the output.
//!
//! Before: hickory-proto has parsed a message. After: `text` and `json` print these words. Never: prints.
//!
//! Source: IANA's DNS parameters; RFC 8914 (extended errors), RFC 7828, RFC 7871, RFC 7873, RFC 5001.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::rdata::opt::EdnsCode,
};

use super::{
    compose::{COOKIE, KEEPALIVE, NSID, PADDING, SUBNET},
    zone_form::{escaped, hexadecimal},
};

/// EDNS EXPIRE (RFC 7314).
const EXPIRE: u16 = 9;
/// Extended errors.
const EDE: u16 = 15;

/// INFO-CODEs of RFC 8914 and later, in their order.
const EXTENDED_ERRORS: &[&str] = &[
    "Other",
    "Unsupported DNSKEY Algorithm",
    "Unsupported DS Digest Type",
    "Stale Answer",
    "Forged Answer",
    "DNSSEC Indeterminate",
    "DNSSEC Bogus",
    "Signature Expired",
    "Signature Not Yet Valid",
    "DNSKEY Missing",
    "RRSIGs Missing",
    "No Zone Key Bit Set",
    "NSEC Missing",
    "Cached Error",
    "Not Ready",
    "Blocked",
    "Censored",
    "Filtered",
    "Prohibited",
    "Stale NXDOMAIN Answer",
    "Not Authoritative",
    "Not Supported",
    "No Reachable Authority",
    "Network Error",
    "Invalid Data",
    "Signature Expired before Valid",
    "Too Early",
    "Unsupported NSEC3 Iterations Value",
    "Unable to conform to policy",
    "Synthesized",
];

pub(super) fn status(code: ResponseCode) -> String {
    match code {
        ResponseCode::Unknown(number) => format!("RCODE{number}"),
        known => format!("{known:?}").to_ascii_uppercase(),
    }
}

pub(super) fn opcode(code: OpCode) -> String {
    match code {
        OpCode::Unknown(number) => format!("OPCODE{number}"),
        known => format!("{known:?}").to_ascii_uppercase(),
    }
}

pub(super) fn flags(message: &Message) -> Vec<&'static str> {
    let head = &message.metadata;
    let all = [
        ("qr", head.message_type == MessageType::Response),
        ("aa", head.authoritative),
        ("tc", head.truncation),
        ("rd", head.recursion_desired),
        ("ra", head.recursion_available),
        ("ad", head.authentic_data),
        ("cd", head.checking_disabled),
    ];
    all.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
}

/// The name of each option, and its content.
pub(super) fn lines(edns: &Edns, cookie: Option<[u8; 8]>) -> Vec<(String, String)> {
    let options = edns.options().as_ref().iter();
    options
        .map(|(code, option)| {
            let octets = Vec::try_from(option).unwrap_or_default();
            line(u16::from(*code), &octets, cookie)
        })
        .collect()
}

fn line(code: u16, octets: &[u8], cookie: Option<[u8; 8]>) -> (String, String) {
    let (name, value) = match code {
        NSID => ("NSID", format!("{} (\"{}\")", hexadecimal(octets), escaped(octets))),
        SUBNET => ("CLIENT-SUBNET", subnet(octets)),
        EXPIRE => {
            ("EXPIRE", octets.first_chunk().map_or(String::new(), |n| u32::from_be_bytes(*n).to_string()))
        }
        COOKIE => ("COOKIE", self::cookie(octets, cookie)),
        KEEPALIVE => ("TCP KEEPALIVE", keepalive(octets)),
        PADDING => ("PADDING", format!("{} octets", octets.len())),
        EDE => ("EDE", extended_error(octets)),
        _ => return (format!("OPT={}", u16::from(EdnsCode::from(code))), hexadecimal(octets)),
    };
    (name.to_owned(), value)
}

/// In tenths of a second on the wire.
fn keepalive(octets: &[u8]) -> String {
    match octets.first_chunk() {
        Some(tenths) => {
            let tenths = u16::from_be_bytes(*tenths);
            format!("{}.{} s", tenths / 10, tenths % 10)
        }
        None => "no time".to_owned(),
    }
}

fn extended_error(octets: &[u8]) -> String {
    let Some((code, text)) = octets.split_first_chunk() else { return "cut off".to_owned() };
    let code = u16::from_be_bytes(*code);
    let name = EXTENDED_ERRORS.get(usize::from(code)).map(|name| format!(" ({name})")).unwrap_or_default();
    // Text for people: RFC 8914 says UTF-8, and the printer escapes control characters.
    let text = String::from_utf8_lossy(text);
    let text = if text.is_empty() { String::new() } else { format!(": ({text})") };
    format!("{code}{name}{text}")
}

fn cookie(octets: &[u8], sent: Option<[u8; 8]>) -> String {
    let is_ours = sent.is_some_and(|sent| octets.starts_with(&sent));
    let verdict = match (sent, is_ours, octets.len()) {
        (None, ..) => "",
        (Some(_), false, _) => " (BAD: not the cookie that was sent)",
        (Some(_), true, 8) => " (echoed)",
        (Some(_), true, _) => " (good)",
    };
    hexadecimal(octets).to_ascii_lowercase() + verdict
}

fn subnet(octets: &[u8]) -> String {
    let Some((&[_, family, source, scope], address)) = octets.split_first_chunk() else {
        return "cut off".to_owned();
    };
    let mut whole = [0; 16];
    for (to, from) in whole.iter_mut().zip(address) {
        *to = *from;
    }
    let address = match (family, whole.first_chunk::<4>()) {
        (1, Some(four)) => std::net::Ipv4Addr::from(*four).to_string(),
        _ => std::net::Ipv6Addr::from(whole).to_string(),
    };
    format!("{address}/{source}/{scope}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: options are decoded as their RFCs define them, and truncated ones cause no error. Covers: C-471
    #[test]
    fn options_are_read() {
        let said = |code, octets: &[u8]| line(code, octets, Some([1; 8])).1;
        assert_eq!(said(SUBNET, &[0, 1, 24, 16, 192, 0, 2]), "192.0.2.0/24/16");
        assert_eq!(said(SUBNET, &[0, 1]), "cut off");
        assert_eq!(said(KEEPALIVE, &[0, 125]), "12.5 s");
        assert_eq!(said(KEEPALIVE, &[]), "no time");
        assert_eq!(said(EDE, &[0, 22, b'x']), "22 (No Reachable Authority): (x)");
        assert_eq!(said(EDE, &[0]), "cut off");
        assert_eq!(said(COOKIE, &[1; 16]), format!("{} (good)", "01".repeat(16)));
        assert!(said(COOKIE, &[2; 16]).contains("BAD"));
        assert_eq!(said(PADDING, &[0; 9]), "9 octets");
        assert_eq!(line(65_001, &[1], None), ("OPT=65001".to_owned(), "01".to_owned()));
    }
}
