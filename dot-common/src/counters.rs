//! Which entry of the map COUNTERS belongs to a verdict.
//!
//! Before: a [`Verdict`]. After: the kernel adds one; `xdp::packets` reads all rows by name.
//! Holds: a dense table of action × reason; impossible pairs stay zero and are not shown.
//! Never: counts; the owner of the map does, once for each packet.

use crate::verdict::{Action, Reason, Verdict};

/// Entries of the map.
pub const COUNTERS: u32 = (Action::ALL.len() * Reason::ALL.len()) as u32;

/// The entry that counts a verdict.
#[must_use]
#[inline(always)]
pub const fn index(verdict: Verdict) -> u32 {
    verdict.reason as u32 * Action::ALL.len() as u32 + verdict.action as u32
}

/// Every possible verdict, in the order of the map.
pub fn rows() -> impl Iterator<Item = Verdict> {
    Reason::ALL
        .iter()
        .flat_map(|&reason| reason.actions().iter().map(move |&action| Verdict { action, reason }))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeSet;

    use super::*;

    /// Goal: every verdict has an entry of its own inside the map, and a name of its own.
    #[test]
    fn every_verdict_has_its_own_counter() {
        let entries: BTreeSet<u32> = rows().map(index).collect();
        let names: BTreeSet<_> = rows().map(|row| (row.action.name(), row.reason.name())).collect();
        assert_eq!(entries.len(), rows().count());
        assert_eq!(names.len(), rows().count());
        assert!(entries.iter().all(|entry| *entry < COUNTERS));
    }

    /// Goal: names are in snake case, as they are labels of metrics.
    #[test]
    fn names_are_snake_case() {
        for row in rows() {
            for name in [row.action.name(), row.reason.name()] {
                let is_snake = name
                    .bytes()
                    .all(|octet| octet.is_ascii_lowercase() || octet == b'_' || octet.is_ascii_digit());
                assert!(is_snake && !name.is_empty(), "{name}");
            }
        }
    }
}
