//! dotd's record layer compared with rustls's own: the same records of a client, the same outcome.
//!
//! Before: an octet that chooses the version, then three for each record. After: the same plaintext, the same end, the
//! same octets sent.
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
