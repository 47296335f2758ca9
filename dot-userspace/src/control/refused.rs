//! The refusals, drops and ends by dotd's limits, by reason, with the key that would change each.
//!
//! Before: every counter at one moment. After: rows for `dotd top` and for the page.
//! Never: classifies a refusal by anything but the name of its counter; holds a counter.

use serde::Serialize;

use crate::{
    events::{key_of, key_of_packets},
    ledger::{Counter, Snapshot},
};

/// The number of refusals for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedTotal {
    /// "xdp" or "engine".
    pub by: &'static str,
    /// The verdict of the kernel half, or the family of the engine's counter.
    pub what: String,
    /// The reason, by the name of its counter.
    pub reason: String,
    /// The number so far.
    pub total: u64,
    /// The key that would change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'static str>,
}

/// Every reason with a refusal.
#[must_use]
pub fn refused(stats: &Snapshot) -> Vec<RefusedTotal> {
    let packets = stats.packets.iter().filter(|row| row.verdict != "pass" && row.count > 0);
    let packets = packets.map(|row| RefusedTotal {
        by: "xdp",
        what: row.verdict.clone(),
        reason: row.reason.clone(),
        total: row.count,
        key: key_of_packets(&row.reason),
    });
    let engine = Counter::ALL.iter().filter(|counter| is_refusal(**counter) && stats.count(**counter) > 0);
    let engine = engine.map(|counter| RefusedTotal {
        by: "engine",
        what: counter.family().to_owned(),
        reason: counter.label().to_owned(),
        total: stats.count(*counter),
        key: key_of(*counter),
    });
    packets.chain(engine).collect()
}

/// Whether a counter counts refusals, or ends by a limit.
fn is_refusal(counter: Counter) -> bool {
    let is_end = matches!(counter, Counter::EndIdle | Counter::EndDuration | Counter::EndQueries);
    let begins = ["refused_", "failed_", "dropped_"].iter().any(|word| counter.label().starts_with(word));
    (begins || key_of(counter).is_some()) && !is_end
}
