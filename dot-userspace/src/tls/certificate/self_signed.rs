//! The self-signed certificate of a dotd without configured ones: made once, kept in `state_dir`, renewed with the same
//! key.
//!
//! Before: `tls.certificates` is empty. After: clients trust its pin (RFC 7858 §4.2), so the key stays.
//! Holds: one PEM file with key and certificate, mode 0600, written atomically.
//! Never: replaces an existing key, even in a damaged file: that would break every pinned client.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};

use super::{CertificateError, Identity, assemble, pem};
use crate::{
    disk::{self, Arrival, write_whole},
    effective::as_either,
};

/// The identity in `state_dir`; makes it if it is absent, renews it if it ends soon.
pub(super) fn load_or_create(state_dir: &Path, now: SystemTime) -> Result<Identity, CertificateError> {
    let path = state_dir.join(FILE_NAME);
    match as_either(|| fs::symlink_metadata(&path)) {
        Ok(_) => load_or_renew(&path, now),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            create(&path, now)
        }
        Err(source) => Err(CertificateError::Unreadable { path, source }),
    }
}

/// The identity in `state_dir`, unchanged. `None`: it is absent, or the next start renews it.
pub(super) fn load_existing(state_dir: &Path, now: SystemTime) -> Result<Option<Identity>, CertificateError> {
    let path = state_dir.join(FILE_NAME);
    match load_kept(&path, now) {
        Ok(identity) => Ok(Some(identity)),
        Err(
            CertificateError::Missing { .. }
            | CertificateError::Expired { .. }
            | CertificateError::NotYetValid { .. },
        ) => Ok(None),
        Err(error) => Err(or_delete(error)),
    }
}

fn load_or_renew(path: &Path, now: SystemTime) -> Result<Identity, CertificateError> {
    match load_kept(path, now) {
        Ok(identity) if identity.not_after >= now + RENEW_BEFORE => Ok(identity),
        Ok(_) | Err(CertificateError::Expired { .. } | CertificateError::NotYetValid { .. }) => {
            let text = pem::read_own(path)?;
            let key = pem::key(path, &text).map_err(or_delete)?;
            let key = KeyPair::try_from(&key).map_err(|error| not_made(path, &error))?;
            write_whole(path, &issue(path, &key, now)?, Arrival::Replace)
                .map_err(|source| CertificateError::Unwritable { path: path.into(), source })?;
            load_kept(path, now)
        }
        Err(error) => Err(or_delete(error)),
    }
}

/// Makes key and certificate. If another dotd was faster, its file is used.
fn create(path: &Path, now: SystemTime) -> Result<Identity, CertificateError> {
    let unwritable = |source| CertificateError::Unwritable { path: path.into(), source };
    if let Some(folder) = path.parent() {
        disk::make_folder(folder, 0o700).map_err(unwritable)?;
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| not_made(path, &error))?;
    match write_whole(path, &issue(path, &key, now)?, Arrival::OnlyIfAbsent) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(unwritable(source)),
    }
    load_kept(path, now).map_err(or_delete)
}

fn load_kept(path: &Path, now: SystemTime) -> Result<Identity, CertificateError> {
    let text = pem::read_own(path)?;
    let (chain, key) = (pem::chain(path, &text)?, pem::key(path, &text)?);
    let mut identity = assemble(path, path, chain, key, now)?;
    if let Some(outside) = identity.outside_validity(now) {
        return Err(outside);
    }
    identity.name = NAME.to_owned();
    Ok(identity)
}

/// The PEM text of `key` and a new certificate for it.
fn issue(path: &Path, key: &KeyPair, now: SystemTime) -> Result<String, CertificateError> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into_iter().chain(hostname());
    let names: Vec<String> = names.collect();
    let mut params = CertificateParams::new(names).map_err(|error| not_made(path, &error))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "dotd self-signed");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let today = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + today.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + today + LIFE;
    let certificate = params.self_signed(key).map_err(|error| not_made(path, &error))?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

/// This machine's name, if a certificate can hold it.
fn hostname() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let is_name = !name.is_empty()
        && name != "localhost"
        && name.len() <= DNS_NAME_OCTETS_MAX
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.'));
    is_name.then(|| name.to_owned())
}

fn not_made(path: &Path, error: &rcgen::Error) -> CertificateError {
    CertificateError::NotMade { path: path.into(), reason: error.to_string() }
}

fn or_delete(source: CertificateError) -> CertificateError {
    CertificateError::SelfSigned { source: Box::new(source) }
}

/// Its [`Identity::name`].
pub(in crate::tls) const NAME: &str = "self-signed";
/// Its file in `state_dir`.
pub const FILE_NAME: &str = "self-signed.pem";
/// 825 days: the longest lifetime that Apple's clients accept; clients with a pin ignore it.
const LIFE: Duration = Duration::from_secs(825 * 86_400);
/// Renewed in the last third of its lifetime: a dotd that restarts once a year never serves an expired one.
const RENEW_BEFORE: Duration = Duration::from_secs(275 * 86_400);
/// Clients whose clock is behind by up to a day still accept a new one.
const CLOCK_SKEW: Duration = Duration::from_secs(86_400);
/// RFC 1035 §2.3.4, without the root's dot.
const DNS_NAME_OCTETS_MAX: usize = 253;

#[cfg(test)]
mod tests;
