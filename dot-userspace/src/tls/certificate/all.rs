//! All certificates of a config together: one that cannot be used does not prevent the others from being served.
//!
//! Before: a config, and the identities that are served now. After: `start` serves the [`Loaded`] identities, and
//! reports each [`Fault`].
//! Holds: the replacement for an entry that cannot be used: its previous identity, or nothing.
//! Never: serves no certificate at all: if no entry can be used, the first fault is returned as the error.

use std::{fmt, fs, path::Path, time::SystemTime};

use super::{CertificateError, Identity, load_at, ocsp, self_signed};
use crate::{config, effective::as_either};

/// The usable certificates of a config.
#[derive(Debug, Default)]
pub struct Loaded {
    /// In the order of the config; at least one.
    pub identities: Vec<Identity>,
    /// Entries whose files cannot be used.
    pub faults: Vec<Fault>,
}

impl Loaded {
    /// Whether the files of at least one entry can be used.
    #[must_use]
    pub fn has_new(&self) -> bool {
        self.identities.len() > self.faults.iter().filter(|fault| fault.is_served).count()
    }
}

/// An entry whose files cannot be used.
#[derive(Debug)]
pub struct Fault {
    /// Path of the certificate, or "self-signed".
    pub name: String,
    /// The reason.
    pub error: CertificateError,
    /// Whether its previous identity is served.
    pub is_served: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instead = if self.is_served { "the previous certificate is served" } else { "it is not served" };
        write!(formatter, "{}; {instead}", self.error)
    }
}

/// Reads every configured certificate or, if none is configured, the self-signed one of `state_dir`. An entry that
/// cannot be used keeps its previous identity from `before`. With `tls.strict` each must be usable, and valid now.
///
/// # Errors
/// The first fault: with `tls.strict`, of any entry; otherwise if no certificate can be used and none kept its
/// identity.
pub fn load_all(
    tls: &config::Tls,
    state_dir: &Path,
    before: &[Identity],
) -> Result<Loaded, CertificateError> {
    let mut loaded = load_again(tls, state_dir, before)?;
    if tls.strict && !loaded.faults.is_empty() {
        return Err(loaded.faults.swap_remove(0).error);
    }
    let now = SystemTime::now();
    let outside = loaded.identities.iter().find_map(|identity| identity.outside_validity(now));
    match outside.filter(|_| tls.strict) {
        Some(error) => Err(error),
        None => Ok(loaded),
    }
}

/// As [`load_all`], for the config that is served, some of whose files have changed: then `tls.strict` has no effect.
///
/// # Errors
/// No certificate can be used, and there is none from before.
pub fn load_again(
    tls: &config::Tls,
    state_dir: &Path,
    before: &[Identity],
) -> Result<Loaded, CertificateError> {
    let now = SystemTime::now();
    let mut loaded = Loaded::default();
    let mut may_serve = false;
    for entry in entries(tls, before) {
        let read = match entry {
            Some(entry) => load_entry(entry, now),
            None => self_signed::load_or_create(state_dir, now),
        };
        let error = match read {
            Ok(identity) => {
                may_serve = true;
                loaded.identities.push(identity);
                continue;
            }
            Err(error) => error,
        };
        let name =
            entry.map_or_else(|| self_signed::NAME.to_owned(), |entry| entry.cert.display().to_string());
        let old = before.iter().find(|identity| identity.name == name);
        // If the entry itself has changed and cannot be used, the config has a mistake.
        may_serve |= old.is_some_and(|old| old.entry.as_ref() == entry);
        loaded.faults.push(Fault { name, error, is_served: old.is_some() });
        loaded.identities.extend(old.cloned());
    }
    if may_serve { Ok(loaded) } else { Err(loaded.faults.swap_remove(0).error) }
}

/// Reads the certificates as [`load_all`] would at a start, without writing. `None` stands for a self-signed
/// certificate that the next start makes.
///
/// # Errors
/// Each certificate has its own.
/// Each certificate has its own.
#[must_use]
pub fn preview_all(tls: &config::Tls, state_dir: &Path) -> Vec<Result<Option<Identity>, CertificateError>> {
    let now = SystemTime::now();
    let preview = |entry: Option<&config::Certificate>| match entry {
        Some(entry) => load_entry(entry, now).map(Some),
        None => self_signed::load_existing(state_dir, now),
    };
    entries(tls, &[]).into_iter().map(preview).collect()
}

/// What is served; `None` stands for the self-signed certificate, where there is no other. The certificate by ACME counts once it
/// has been issued.
fn entries<'c>(tls: &'c config::Tls, before: &[Identity]) -> Vec<Option<&'c config::Certificate>> {
    let is_there = |entry: &&config::Certificate| {
        let is_served = before.iter().any(|identity| identity.entry.as_ref() == Some(*entry));
        is_served || as_either(|| fs::symlink_metadata(&entry.cert)).is_ok()
    };
    let entries: Vec<_> =
        tls.certificates.iter().chain(tls.by_acme.iter().filter(is_there)).map(Some).collect();
    if entries.is_empty() { vec![None] } else { entries }
}

/// One entry of the config: a pair, and what is stapled to it.
fn load_entry(entry: &config::Certificate, now: SystemTime) -> Result<Identity, CertificateError> {
    let mut identity = load_at(&entry.cert, &entry.key, now)?;
    identity.entry = Some(entry.clone());
    if !entry.ocsp.as_os_str().is_empty() {
        let (staple, warning) = ocsp::load(&entry.ocsp, &identity.chain, now)?;
        identity.staple = staple;
        identity.warnings.extend(warning);
    }
    Ok(identity)
}
