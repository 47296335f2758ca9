//! Parses a name as an operator writes it into the form of the cache's keys.
//!
//! Before: a word on a command line. After: its labels in wire format, lower case, or an error.
//! Never: is used on the query path.
//!
//! Source: RFC 1035 §3.1 and §5.1 (escapes), RFC 4343.

use hickory_proto::{
    rr::{Name, RData, RecordType},
    serialize::binary::{BinDecoder, BinEncodable, Restrict},
};

/// The name `text` in wire format, in lower case; a dot at its end makes no difference.
///
/// # Errors
/// What is wrong with it.
pub fn wire_name(text: &str) -> Result<Box<[u8]>, String> {
    let name = Name::from_ascii(text).map_err(|error| {
        format!("{text}: not a domain name: {error}").trim_end_matches([':', ' ']).to_owned()
    })?;
    let octets = name.to_lowercase().to_bytes().map_err(|error| format!("{text}: {error}"))?;
    Ok(octets.into())
}

/// The qname of the first question of a message, in wire format. `None`: it is cut off, or compressed.
#[must_use]
pub fn asked_name(message: &[u8]) -> Option<&[u8]> {
    let question = message.get(super::HEADER_OCTETS..)?;
    let mut octets = 0;
    loop {
        let label = usize::from(*question.get(octets)?);
        octets += 1 + label;
        if label == 0 {
            return question.get(..octets);
        }
        if label > LABEL_OCTETS_MAX || octets >= NAME_OCTETS_MAX {
            return None;
        }
    }
}

/// A name in wire format as text; octets other than letters, digits, `-` and `_` are escaped.
#[must_use]
pub fn name_in_words(name: &[u8]) -> String {
    let (mut text, mut rest) = (String::new(), name);
    while let Some((label, behind)) = rest.split_first().filter(|(label, _)| **label > 0) {
        let (label, behind) = behind.split_at_checked(usize::from(*label)).unwrap_or((behind, &[]));
        for octet in label {
            match octet {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'*' | b'/' => {
                    text.push(char::from(*octet));
                }
                octet => text.push_str(&format!("\\{octet:03}")),
            }
        }
        text.push('.');
        rest = behind;
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

/// The longest label (RFC 1035 §2.3.4).
const LABEL_OCTETS_MAX: usize = 63;
/// The longest name in wire format, its root label included (RFC 1035 §2.3.4).
pub const NAME_OCTETS_MAX: usize = 255;

/// The number of the type `text`: a name such as "AAAA", or "TYPE65" (RFC 3597 §5).
///
/// # Errors
/// It is not a record type.
pub fn record_type(text: &str) -> Result<u16, String> {
    let text = text.to_ascii_uppercase();
    let number = text.strip_prefix("TYPE").and_then(|digits| digits.parse().ok());
    let named = || text.parse::<RecordType>().ok().map(u16::from);
    number
        .or_else(named)
        .ok_or_else(|| format!("{text}: no record type; write one such as \"AAAA\" or \"TYPE65\""))
}

/// The RDATA of a record of this type, from the words of a zone file.
///
/// # Errors
/// The mistake in it, or that this version cannot read the type.
pub fn rdata_of(rtype: u16, words: &str) -> Result<Vec<u8>, String> {
    let rdata = RData::try_from_str(RecordType::from(rtype), words).map_err(|error| error.to_string())?;
    rdata.to_bytes().map_err(|error| error.to_string())
}

/// Whether these octets are the data of a record of this type, as far as the type is known.
#[must_use]
pub fn is_rdata(rtype: u16, rdata: &[u8]) -> bool {
    let Ok(length) = u16::try_from(rdata.len()) else { return false };
    let mut decoder = BinDecoder::new(rdata);
    RData::read(&mut decoder, RecordType::from(rtype), Restrict::new(length)).is_ok() && decoder.is_empty()
}

/// A record's type and data in the form of a zone file.
#[must_use]
pub fn record_text(rtype: u16, rdata: &[u8]) -> String {
    let rtype = RecordType::from(rtype);
    let mut decoder = BinDecoder::new(rdata);
    let length = u16::try_from(rdata.len()).unwrap_or(u16::MAX);
    let read = RData::read(&mut decoder, rtype, Restrict::new(length));
    read.map_or_else(
        |_| format!("{rtype} (octets that are not a valid record)"),
        |rdata| {
            // Strings are copied as they are.
            let mut text = format!("{rtype} ");
            for letter in rdata.to_string().chars() {
                match letter.is_control() {
                    true => text.push_str(&format!("\\{:03}", u32::from(letter))),
                    false => text.push(letter),
                }
            }
            text
        },
    )
}

/// Whether `name` is `top` or below it. Both in wire format, lower case.
#[must_use]
pub fn is_below(name: &[u8], top: &[u8]) -> bool {
    let mut rest = name;
    loop {
        if rest == top {
            return true;
        }
        let behind = rest.split_first().and_then(|(octets, rest)| rest.get(usize::from(*octets)..));
        match behind.filter(|behind| behind.len() >= top.len()) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a suffix is whole labels: the name itself and names below it, not names that only end in the same letters.
    #[test]
    fn below_is_by_labels() {
        let of = |text| wire_name(text).unwrap();
        for (name, is_below_it) in [
            ("example.net", true),
            ("www.example.net", true),
            ("a.b.example.net", true),
            ("wwwexample.net", false),
            ("net", false),
            ("example.net.www", false),
            (".", false),
        ] {
            assert_eq!(is_below(&of(name), &of("example.net")), is_below_it, "{name}");
            assert!(is_below(&of(name), &of(".")));
        }
        // Octets within a label that look like the suffix do not count.
        assert!(!is_below(b"\x04\x03net\x00", b"\x03net\x00"));
    }

    /// Goal: the qname is found, whatever the octets are, and no control character of it reaches a terminal. Method:
    /// a question, the same cut at each octet, a pointer, an escape sequence.
    #[test]
    fn a_name_is_shown_without_its_octets() {
        let message = [&[0; 12][..], b"\x03wWw\x02\x1b[\x00\x00\x01\x00\x01"].concat();
        let name = asked_name(&message).unwrap();
        assert_eq!((name_in_words(name).as_str(), name_in_words(b"\x00").as_str()), ("wWw.\\027\\091.", "."));
        assert!((0..20).all(|octets| asked_name(&message[..octets]).is_none()));
        assert_eq!(asked_name(&[&[0; 12][..], b"\xc0\x0c\x00"].concat()), None);
        assert_eq!(name_in_words(b"\x09cut"), "cut.");
    }

    #[test]
    fn a_type_has_a_name_or_a_number() {
        assert_eq!(["aaaa", "A", "TYPE65", "type1"].map(record_type), [Ok(28), Ok(1), Ok(65), Ok(1)]);
        assert!(["", "TYPE", "TYPE65536", "WWW"].iter().all(|text| record_type(text).is_err()));
    }

    #[test]
    fn a_name_is_its_labels_in_lower_case() {
        let name = wire_name("WWW.Example.net").unwrap();
        assert_eq!(*name, *b"\x03www\x07example\x03net\x00");
        assert_eq!(wire_name("www.example.net."), Ok(name));
        assert_eq!(wire_name(".").as_deref(), Ok(&b"\x00"[..]));
        assert!(wire_name(&"a".repeat(64)).unwrap_err().contains("not a domain name"));
    }
}
