//! Certificates that clients cannot rely on: of which files dotd cannot use, and those that are not valid now.
//!
//! Before: `start` has loaded them. After: status, metrics, probes and verbs are loud about each.
//! Never: counts a doubt: a certificate that works is not here.

use serde::{Deserialize, Serialize};

/// One certificate that is not as the config means it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusableCertificate {
    /// Its file, or "self-signed".
    pub name: String,
    /// Why, and what to do.
    pub reason: String,
    /// Clients still get it, or the one that the same file had before.
    pub is_served: bool,
}

/// As probes say it: a line for each.
pub(super) fn lines(unusable: &[UnusableCertificate]) -> Vec<&str> {
    unusable.iter().map(|certificate| certificate.reason.as_str()).collect()
}
