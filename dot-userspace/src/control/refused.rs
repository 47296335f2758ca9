//! What dotd refused, dropped or ended, by reason, with the key that would change it.
//!
//! Before: every counter at one moment. After: rows for `dotd top` and for the page.
//! Never: decides what a refusal is beyond the names of counters; holds a counter.

use serde::Serialize;

use crate::{
    events::{key_of, key_of_packets},
    ledger::{Counter, Snapshot},
};

/// How often something was refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedTotal {
    /// "xdp" or "engine".
    pub by: &'static str,
    /// What the kernel half did, or the family of the engine's counter.
    pub what: String,
    /// As it is counted.
    pub reason: String,
    /// So far.
    pub total: u64,
    /// The key that would change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'static str>,
}

/// Every reason that there was.
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

/// A counter of what was not done for a client, or was ended.
fn is_refusal(counter: Counter) -> bool {
    let is_end = matches!(counter, Counter::EndIdle | Counter::EndDuration | Counter::EndQueries);
    let begins = ["refused_", "failed_", "dropped_"].iter().any(|word| counter.label().starts_with(word));
    (begins || key_of(counter).is_some()) && !is_end
}
