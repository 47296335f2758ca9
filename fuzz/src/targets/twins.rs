//! The record layer beside rustls's own: the same records of a client, the same fate.
//!
//! Before: an octet that chooses the version, then three for each record. After: same plaintext, same end, same words.
//! Never: has a secret; randoms and key shares are fixed.
//!
//! Source: RFC 8446 §5 and §6, RFC 5246 §6 and §7.2.

/// Runs the target.
///
/// # Panics
/// When the two servers differ.
pub fn run(octets: &[u8]) {
    dot_tests::harness::twins::assert_same_fate(octets);
}
