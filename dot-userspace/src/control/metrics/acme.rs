//! The certificate by ACME as OpenMetrics.
//!
//! Before: `registry` has a status. After: `dotd_acme_…`. Never: has a name of the certificate as a label.

use prometheus_client::registry::{Registry, Unit};

use super::{Status, counter, gauge};

pub(super) fn register(registry: &mut Registry, status: &Status) {
    let standing = status.acme.clone().unwrap_or_default();
    let time = |at: Option<u64>| i64::try_from(at.unwrap_or_default()).unwrap_or(i64::MAX);
    gauge(registry, "acme_enabled", "1 if certificates come by ACME", None, status.acme.is_some().into());
    let help = "Unix time of the last certificate by ACME; 0: never so far";
    gauge(registry, "acme_last_success_timestamp", help, Some(Unit::Seconds), time(standing.last_success));
    let help = "Unix time of the last failure to get a certificate by ACME; 0: never so far";
    gauge(registry, "acme_last_failure_timestamp", help, Some(Unit::Seconds), time(standing.last_failure));
    let help = "Unix time of the next attempt to get a certificate by ACME; 0: none is planned";
    gauge(registry, "acme_next_attempt_timestamp", help, Some(Unit::Seconds), time(standing.next));
    gauge(
        registry,
        "acme_failing",
        "Failures to get a certificate by ACME since the last success",
        None,
        standing.failures.into(),
    );
    counter(registry, "acme_issued", "Certificates that were issued by ACME", standing.issued);
    counter(registry, "acme_failed", "Attempts to get a certificate by ACME that failed", standing.failed);
}
