//! Which entry of the map COUNTERS belongs to a verdict.
//!
//! Before: a [`Verdict`]. After: the kernel adds one; `xdp::packets` reads all rows by name.
//! Holds: a dense table of action × reason; pairs that cannot be stay zero and are not shown.

use crate::verdict::{Action, Reason, Verdict};

/// Entries of the map.
pub const COUNTERS: u32 = (Action::ALL.len() * Reason::ALL.len()) as u32;

/// The entry that counts a verdict.
#[must_use]
#[inline(always)]
pub const fn index(verdict: Verdict) -> u32 {
    verdict.reason as u32 * Action::ALL.len() as u32 + verdict.action as u32
}

/// Every verdict there can be, in the order of the map.
pub fn rows() -> impl Iterator<Item = Verdict> {
    Reason::ALL
        .iter()
        .flat_map(|&reason| reason.actions().iter().map(move |&action| Verdict { action, reason }))
}
