//! Keys whose TOML form is not their Rust form: "auto" or a number, "embedded" or an address.
//!
//! Before: a TOML value. After: a typed one, and back. Never: checks ranges (`config::range` does).

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{BackendAddress, Workers};

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

/// The other way.
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
        text.parse().map(Self::Socket).map_err(|_| {
            D::Error::custom(format!(
                "\"{text}\" is neither an address:port nor \"embedded\"; write \"127.0.0.1:53\""
            ))
        })
    }
}
