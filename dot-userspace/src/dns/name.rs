//! A name as an operator writes it, in the form in which the cache knows it.
//!
//! Before: a word on a command line. After: its labels in wire format, lower case, or what is wrong with it.
//! Never: stands on the query path.
//!
//! Source: RFC 1035 §3.1 and §5.1 (escapes), RFC 4343.

use hickory_proto::{rr::Name, serialize::binary::BinEncodable};

/// The name `text` in wire format, in lower case; a dot at its end makes no difference.
///
/// # Errors
/// What is wrong with it.
pub fn wire_name(text: &str) -> Result<Box<[u8]>, String> {
    let name = Name::from_ascii(text).map_err(|error| {
        format!("{text}: no domain name: {error}").trim_end_matches([':', ' ']).to_owned()
    })?;
    let octets = name.to_lowercase().to_bytes().map_err(|error| format!("{text}: {error}"))?;
    Ok(octets.into())
}

#[cfg(test)]
mod tests {
    use super::wire_name;

    #[test]
    fn a_name_is_its_labels_in_lower_case() {
        let name = wire_name("WWW.Example.net").unwrap();
        assert_eq!(*name, *b"\x03www\x07example\x03net\x00");
        assert_eq!(wire_name("www.example.net."), Ok(name));
        assert_eq!(wire_name(".").as_deref(), Ok(&b"\x00"[..]));
        assert!(wire_name(&"a".repeat(64)).unwrap_err().contains("no domain name"));
    }
}
