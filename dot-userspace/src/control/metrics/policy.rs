//! Policy zones as OpenMetrics: how many rules each zone has, how old they are, and how often rules matched.
//!
//! Before: `registry` has a status and a snapshot. After: `dotd_misuse_…` and `dotd_policy_…`.
//! Never: puts a name that a client asked for into a label; the names of zones and tenants come from the config.

use prometheus_client::registry::Registry;

use super::{Status, counters, each_of, gauges};
use crate::{control::PolicyStatus, ledger::Snapshot};

pub(super) fn register(registry: &mut Registry, status: &Status, snapshot: &Snapshot) {
    each_of("misuse", registry, snapshot);
    let of_each = |value: fn(&PolicyStatus) -> u64| {
        let zones = status.policy.iter();
        zones.map(move |zone| {
            (vec![("zone", zone.name.clone())], i64::try_from(value(zone)).unwrap_or(i64::MAX))
        })
    };
    gauges(registry, "policy_rules", "Rules of each policy zone", of_each(|zone| zone.rules));
    gauges(registry, "policy_octets", "Memory of each policy zone", of_each(|zone| zone.octets));
    let help = "Serial number of each policy zone that has an SOA record";
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
    let help = "1 while the newer file of a policy zone cannot be used, or no primary server of it gives a usable answer";
    gauges(registry, "policy_stale", help, of_each(|zone| u64::from(is_stale(zone))));
    let help = "Matches of each policy zone's rules, including those of zones that only count";
    let hits = status.policy.iter().map(|zone| (vec![("zone", zone.name.clone())], zone.hits));
    counters(registry, "policy_hits", help, hits);
    transfers(registry, status);
    each_of("policy", registry, snapshot);
    each_of("tenants", registry, snapshot);
    let tenants = status.tenants.iter().map(|tenant| (vec![("tenant", tenant.name.clone())], tenant.queries));
    counters(registry, "tenant_queries", "Messages from the clients of each tenant", tenants);
}

fn is_stale(zone: &PolicyStatus) -> bool {
    zone.error.is_some() || zone.transfer.as_ref().is_some_and(|transfer| transfer.error.is_some())
}

/// The metrics of zones that are transferred.
fn transfers(registry: &mut Registry, status: &Status) {
    let transferred =
        || status.policy.iter().filter_map(|zone| Some((zone.name.clone(), zone.transfer.as_ref()?)));
    let labels = |name: String, result: &str| vec![("zone", name), ("result", result.to_owned())];
    let counts = transferred().flat_map(|(name, transfer)| {
        [
            (labels(name.clone(), "transferred"), transfer.transfers),
            (labels(name, "failed"), transfer.failures),
        ]
    });
    let help = "Transfers of newer versions of each policy zone, and attempts for which no primary server gave a usable answer";
    counters(registry, "policy_transfers", help, counts);
    let help = "Time since a primary server of each policy zone confirmed the present version";
    let ages = transferred().filter_map(|(name, transfer)| {
        let seconds = i64::try_from(transfer.confirmed_seconds?).unwrap_or(i64::MAX);
        Some((vec![("zone", name)], seconds))
    });
    gauges(registry, "policy_confirmed_age_seconds", help, ages);
    let help = "1 while a policy zone has expired and its rules do not apply";
    let expired =
        transferred().map(|(name, transfer)| (vec![("zone", name)], i64::from(transfer.state == "expired")));
    gauges(registry, "policy_expired", help, expired);
}
