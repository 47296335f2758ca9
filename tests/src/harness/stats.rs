//! dotd's own counters: the JSON of `dotd stats --json`.
//!
//! Before: `harness::server` ran the command. After: a test reads counters by family and label.
//! Never: takes an absent counter for zero: a counter whose name has vanished is a fault.

use serde_json::Value;

/// One snapshot.
#[derive(Clone, Debug)]
pub struct Stats(pub Value);

impl Stats {
    /// A counter of the workers, for example `("handshakes", "failed_not_tls")`.
    ///
    /// # Panics
    /// When the snapshot has no such counter.
    #[must_use]
    pub fn counter(&self, family: &str, label: &str) -> u64 {
        let found = find(&self.0, family).and_then(|family| family.get(label)).and_then(Value::as_u64);
        found.unwrap_or_else(|| panic!("no counter {family}.{label} in {}", self.0))
    }

    /// The sum of a family's counters whose label starts with `prefix`.
    ///
    /// # Panics
    /// When the snapshot has no such family.
    #[must_use]
    pub fn sum(&self, family: &str, prefix: &str) -> u64 {
        let found = find(&self.0, family).and_then(Value::as_object);
        let labels = found.unwrap_or_else(|| panic!("no family {family} in {}", self.0));
        labels
            .iter()
            .filter(|(label, _)| label.starts_with(prefix))
            .filter_map(|(_, count)| count.as_u64())
            .sum()
    }

    /// Packets that the kernel half counted under a verdict and a reason; an empty reason means all of them.
    #[must_use]
    pub fn packets(&self, verdict: &str, reason: &str) -> u64 {
        let rows = find(&self.0, "packets").and_then(Value::as_array).map_or(&[][..], |rows| rows);
        let is_asked = |row: &&Value| {
            row["verdict"].as_str() == Some(verdict)
                && (reason.is_empty() || row["reason"].as_str() == Some(reason))
        };
        rows.iter().filter(is_asked).filter_map(|row| row["count"].as_u64()).sum()
    }

    /// The remainders of the equations of `ledger/snapshot.rs`: connections, queries, responses. All of them are zero
    /// when nothing is in progress.
    #[must_use]
    pub fn difference(&self) -> [i128; 3] {
        let count = |family, label| i128::from(self.counter(family, label));
        let sum = |family, prefix| i128::from(self.sum(family, prefix));
        let answered = ["forwarded", "responded", "cached", "joined"].map(|label| count("queries", label));
        let to_answer: i128 = answered.iter().sum();
        let again = count("policy", "asked_again");
        [
            count("connections", "accepted") + count("connections", "adopted")
                - sum("connections", "refused_")
                - sum("handshakes", "failed_")
                - sum("session_ends", "")
                - count("connections_open", "open"),
            count("queries", "received") + count("cache", "refreshes") + again
                - to_answer
                - sum("queries", "dropped_"),
            to_answer
                - sum("responses", "")
                - count("backend_outstanding", "outstanding")
                - count("cache_waiting", "waiting")
                - count("cache", "refreshed")
                - again,
        ]
    }
}

/// The value of a key at the top level or one level below.
fn find<'a>(snapshot: &'a Value, key: &str) -> Option<&'a Value> {
    snapshot.get(key).or_else(|| snapshot.as_object()?.values().find_map(|value| value.get(key)))
}
