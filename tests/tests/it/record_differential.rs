//! dotd's record layer compared with rustls's own: the same records to both must have the same outcome. No root, no
//! kernel.
//!
//! Before: records chosen by octets, lawful and not, in both versions. After: the same plaintext, the same end, the
//! same octets sent.

use dot_tests::harness::twins::assert_same_fate;
use proptest::prelude::*;

/// Goal: each kind of record alone has the same outcome as in rustls. Method: every kind with a few values, in both
/// versions. Covers: C-293
#[test]
fn each_record_has_the_fate_that_rustls_gives_it() {
    for version in 0..2 {
        for kind in 0..10 {
            for (first, second) in [(0, 0), (1, 1), (2, 3), (3, 200), (23, 90), (255, 255)] {
                assert_same_fate(&[version, kind, first, second]);
                assert_same_fate(&[version, 0, 7, 40, kind + 130, first, second, 0, 8, 40]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Goal: any eight records in a row have the same outcome as in rustls. Covers: C-293
    #[test]
    fn any_records_have_the_fate_that_rustls_gives_them(octets in prop::collection::vec(any::<u8>(), 4..25)) {
        assert_same_fate(&octets);
    }
}
