//! Certificates that clients cannot rely on: dotd cannot use their files, or they are not valid now.
//!
//! Before: `start` has loaded the certificates. After: status, metrics, probes and verbs report each one.
//! Never: contains a certificate that works, even with a warning.

use serde::{Deserialize, Serialize};

/// A certificate that cannot be served as the config says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusableCertificate {
    /// Its file, or "self-signed".
    pub name: String,
    /// The reason, and the remedy.
    pub reason: String,
    /// Clients still get this certificate, or the previous one of the same file.
    pub is_served: bool,
}

/// The lines for probes, one for each certificate.
pub(super) fn lines(unusable: &[UnusableCertificate]) -> Vec<&str> {
    unusable.iter().map(|certificate| certificate.reason.as_str()).collect()
}
