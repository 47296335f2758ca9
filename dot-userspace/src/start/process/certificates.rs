//! The certificates that are served, and the faults of the others.
//!
//! Before: a start, a reload or a renewal has loaded them. After: status and log report which certificates clients
//! get, and which they do not.
//! Never: reads a file: loaded certificates are compared with the clock only.

use std::time::SystemTime;

use super::{Process, lock};
use crate::{
    control::{CertificateStatus, UnusableCertificate},
    tls::certificate::{Identity, Loaded},
};

impl Process {
    /// The identities that clients get now.
    pub(in crate::start) fn identities(&self) -> Vec<Identity> {
        lock(&self.loaded).identities.clone()
    }

    /// Certificates whose files cannot be used, or that are not valid now.
    pub(in crate::start) fn unusable_certificates(&self) -> Vec<UnusableCertificate> {
        unusable(&lock(&self.loaded), SystemTime::now())
    }

    /// Serves these certificates from now on; logs a key that clients may not know, and each unusable certificate.
    pub(in crate::start) fn certify(&self, loaded: Loaded) {
        let mut certificates = lock(&self.certificates);
        let new = CertificateStatus::after(&loaded.identities, &certificates);
        for (certificate, old) in new.iter().filter_map(|new| {
            let old = certificates.iter().find(|old| old.name == new.name)?;
            Some((new, old))
        }) {
            if let Some(warning) = certificate.other_key().filter(|warning| old.other_key() != Some(warning))
            {
                tracing::warn!("{warning}");
            }
        }
        *certificates = new;
        *lock(&self.loaded) = loaded;
        drop(certificates);
        self.say_unusable_certificates();
    }

    /// Logs a line for each.
    pub(in crate::start) fn say_unusable_certificates(&self) {
        for certificate in self.unusable_certificates() {
            tracing::error!("certificate cannot be used: {}", certificate.reason);
        }
    }
}

/// A fault of the files takes precedence over the dates of their replacement.
fn unusable(loaded: &Loaded, now: SystemTime) -> Vec<UnusableCertificate> {
    let faults = loaded.faults.iter().map(|fault| UnusableCertificate {
        name: fault.name.clone(),
        reason: fault.to_string(),
        is_served: fault.is_served,
    });
    let has_fault = |name: &str| loaded.faults.iter().any(|fault| fault.name == name);
    let outside = loaded.identities.iter().filter(|identity| !has_fault(&identity.name));
    let outside = outside.filter_map(|identity| {
        let error = identity.outside_validity(now)?;
        let reason = format!("{error}; it is served, and clients that look at its dates refuse it");
        Some(UnusableCertificate { name: identity.name.clone(), reason, is_served: true })
    });
    faults.chain(outside).collect()
}
