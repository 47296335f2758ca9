//! Keys whose TOML form is not their Rust form: "auto" or a number, "embedded", an address or a name.
//!
//! Before: a TOML value. After: a typed one, and back. Never: checks ranges (`config::range` does).

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{BackendAddress, Host, Workers};

/// An address, or an empty string for none.
///
/// # Errors
/// Anything that is neither.
pub(super) fn optional_socket<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| D::Error::custom(format!("\"{text}\" is not an address:port; write \"127.0.0.1:8853\"")))
}

/// Writes an address, or an empty string if there is none.
#[expect(clippy::ref_option, reason = "serde passes it so")]
pub(super) fn socket_or_empty<S: Serializer>(
    socket: &Option<SocketAddr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&socket.map(|socket| socket.to_string()).unwrap_or_default())
}

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Count(count) => serializer.serialize_u16(*count),
        }
    }
}

impl Serialize for BackendAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Embedded => serializer.serialize_str("embedded"),
            Self::Socket(socket) => serializer.collect_str(socket),
            Self::Named(host) => serializer.collect_str(host),
        }
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u16),
            Word(String),
        }
        match Form::deserialize(deserializer) {
            Ok(Form::Number(count)) => Ok(Self::Count(count)),
            Ok(Form::Word(word)) if word == "auto" => Ok(Self::Auto),
            _ => Err(D::Error::custom("write \"auto\" or a number from 1 to 256")),
        }
    }
}

impl<'de> Deserialize<'de> for BackendAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Socket(address));
        }
        host(&text).map(Self::Named).ok_or_else(|| {
            D::Error::custom(format!(
                "\"{text}\" is neither an address:port, nor a name:port, nor \"embedded\"; write \"127.0.0.1:53\""
            ))
        })
    }
}

/// A name and a port; the last label of a name is no number, so that no mistyped address is one.
fn host(text: &str) -> Option<Host> {
    let (name, port) = text.rsplit_once(':')?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let is_sign = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        (1..=LABEL_OCTETS_MAX).contains(&label.len()) && label.bytes().all(is_sign)
    };
    let has_letter = name.rsplit('.').next()?.bytes().any(|octet| octet.is_ascii_alphabetic());
    // RFC 6761 §6.3: no resolver is asked for it.
    let is_local = name.rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case("localhost"));
    let is_name = !is_local && name.len() <= NAME_OCTETS_MAX && name.split('.').all(is_label) && has_letter;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    is_name.then(|| Host { name: name.to_ascii_lowercase(), port })
}

/// RFC 1035 §2.3.4, without the root's dot.
const NAME_OCTETS_MAX: usize = 253;
const LABEL_OCTETS_MAX: usize = 63;
