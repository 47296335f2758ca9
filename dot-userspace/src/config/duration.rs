//! Durations as operators write them: "5s", "250ms", "6h".
//!
//! Before: a TOML string. After: a `Duration`. Never: takes a bare number, whose unit nobody knows.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

/// Reads a duration with its unit.
///
/// # Errors
/// A string without a unit, or with one that is not known.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| {
        D::Error::custom(format!("\"{text}\" is no duration ({error}); write \"5s\" or \"250ms\""))
    })
}
