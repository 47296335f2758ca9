//! TLS with backends as OpenMetrics: when it last worked, how it fails, and whether an attacker may be stripping it.
//!
//! Before: `registry` has a status. After: `dotd_backend_tls_…`, `dotd_backend_downgrade…`.
//! Never: uses a key or an address as a label, unless it is a name from the config.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::registry::{Registry, Unit};

use super::{Labels, Status, counters, gauges, gauges_of};
use crate::control::TlsRow;

pub(super) fn register(registry: &mut Registry, status: &Status) {
    let rows = || status.backends.iter().filter_map(|backend| backend.tls.as_ref());
    let name = |row: &TlsRow| -> Labels { vec![("backend", row.name.clone())] };
    let help = "1 while TLS with a backend that recently spoke TLS fails as an attacker who strips TLS would make it fail";
    let suspected = rows().map(|row| (name(row), i64::from(row.remembered.suspected_since > 0)));
    gauges(registry, "backend_downgrade_suspected", help, suspected);
    let help = "Times that a downgrade of a backend's TLS was suspected";
    counters(registry, "backend_downgrades", help, rows().map(|row| (name(row), row.suspicions)));
    let help =
        "1 while queries may go to a backend in clear, because its TLS fails and the config permits that";
    let in_clear = rows().map(|row| (name(row), i64::from(row.is_in_clear)));
    gauges(registry, "backend_falls_back", help, in_clear);
    let help = "Changes of the key in a backend's certificate";
    counters(registry, "backend_key_changes", help, rows().map(|row| (name(row), row.pin_changes)));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let spoke = rows().filter(|row| row.remembered.last_success > 0);
    let ages = spoke.map(|row| {
        (name(row), i64::try_from(now.saturating_sub(row.remembered.last_success)).unwrap_or(i64::MAX))
    });
    let help = "Time since the last handshake with a backend";
    gauges_of(registry, "backend_tls_age", help, Some(Unit::Seconds), ages);
    let failures = rows().flat_map(|row| {
        let kinds = row.remembered.failures.iter();
        kinds.map(|(kind, count)| {
            (vec![("backend", row.name.clone()), ("fault", kind.clone())], i64::from(*count))
        })
    });
    let help = "Failures of TLS with a backend since its last handshake, by kind";
    gauges(registry, "backend_tls_failures", help, failures);
}
