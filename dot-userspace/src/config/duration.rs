//! Durations as operators write them: "5s", "250ms", "6h".
//!
//! Before: a TOML string. After: a `Duration`, and back. Never: takes a bare number, whose unit is unknown.

use std::{fmt, time::Duration};

use serde::{
    Deserializer, Serializer,
    de::{Error, Visitor},
};

/// Reads a duration with its unit.
///
/// # Errors
/// A string without a unit, or with one that is not known; a bare number.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(WithUnit)
}

/// Writes a duration with its unit.
pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

struct WithUnit;

impl Visitor<'_> for WithUnit {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as \"5s\" or \"250ms\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).map_err(E::custom)
    }
}

/// Reads a duration with its unit, also for the command line.
///
/// # Errors
/// A line that says what to write.
pub fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("\"{text}\" is not a duration; write one such as \"5s\" or \"250ms\""))
}
