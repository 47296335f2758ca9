//! Rule: a file begins with a module header (`//!`) that says what it is.
//!
//! Before: a file's text. After: a finding, or none. Never: judges the header's style beyond its presence.

use super::Finding;

/// A header of fewer words than this says nothing: "stub", "the parser".
const WORDS_MIN: usize = 3;

/// Checks the first line of a Rust file.
pub(super) fn check(path: &str, text: &str) -> Option<Finding> {
    let first = text.lines().next().unwrap_or_default();
    let Some(header) = first.strip_prefix("//!") else {
        return Some(Finding::new(
            path,
            1,
            "first line is no module header; begin with `//! What this file does.`, then Before, After, Never",
        ));
    };
    (header.split_whitespace().count() < WORDS_MIN).then(|| {
        Finding::new(path, 1, format!("header \"{}\" says nothing; write a sentence", header.trim()))
    })
}
