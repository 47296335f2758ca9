//! Metrics of certificates: whether clients can rely on them.
//!
//! Before: a status. After: a row for each certificate. Never: has a pin or a name of a client.

use std::collections::BTreeMap;

use prometheus_client::registry::Registry;

use super::gauges;
use crate::control::Status;

/// Which certificates clients can rely on.
pub(super) fn register(registry: &mut Registry, status: &Status) {
    let all = status.certificates.iter().map(|certificate| (certificate.name.as_str(), 1));
    let unusable = status.unusable_certificates.iter().map(|certificate| (certificate.name.as_str(), 0));
    // A name that is in both is unusable.
    let usable: BTreeMap<_, i64> = all.chain(unusable).collect();
    let rows = usable.into_iter().map(|(name, usable)| (vec![("name", name.to_owned())], usable));
    let help = "1 while a certificate can be used; 0 while its files cannot be used or it is not valid";
    gauges(registry, "certificate_usable", help, rows);
    let rows = status.certificates.iter().map(|certificate| {
        (vec![("name", certificate.name.clone())], i64::from(certificate.other_key().is_some()))
    });
    let help =
        "1 while a certificate has another key, and so another pin, than at the start: a renewal changed it";
    gauges(registry, "certificate_other_key", help, rows);
}
