//! Policy zones as OpenMetrics: how many rules each zone has, how old they are, and how often rules matched.
//!
//! Before: `registry` has a status and a snapshot. After: `dotd_policy_…`.
//! Never: puts a name that a client asked for into a label; the name of a zone comes from the config.

use prometheus_client::registry::Registry;

use super::{Status, counters, each_of, gauges};
use crate::ledger::Snapshot;

pub(super) fn register(registry: &mut Registry, status: &Status, snapshot: &Snapshot) {
    let of_each = |value: fn(&crate::control::PolicyStatus) -> u64| {
        let zones = status.policy.iter();
        zones.map(move |zone| {
            (vec![("zone", zone.name.clone())], i64::try_from(value(zone)).unwrap_or(i64::MAX))
        })
    };
    gauges(registry, "policy_rules", "Rules of each policy zone", of_each(|zone| zone.rules));
    gauges(registry, "policy_octets", "Memory that each policy zone takes", of_each(|zone| zone.octets));
    let help = "Serial number of each policy zone that has one";
    let serials = status
        .policy
        .iter()
        .filter_map(|zone| zone.serial.map(|serial| (vec![("zone", zone.name.clone())], i64::from(serial))));
    gauges(registry, "policy_serial", help, serials);
    gauges(
        registry,
        "policy_age_seconds",
        "Time since each policy zone was read",
        of_each(|zone| zone.age_seconds),
    );
    let help = "1 while a newer file of a policy zone cannot be used";
    gauges(registry, "policy_stale", help, of_each(|zone| u64::from(zone.error.is_some())));
    let help = "Rules of each policy zone that held, or would have where they are only counted";
    let hits = status.policy.iter().map(|zone| (vec![("zone", zone.name.clone())], zone.hits));
    counters(registry, "policy_hits", help, hits);
    each_of("policy", registry, snapshot);
}
