//! PEM files into DER: a chain, a key, or the one line that says why not.
//!
//! Before: `config` named a path. After: `tls::certificate` checks what the DER says.
//! Holds: each file is opened once, and what is checked is what was opened.
//! Never: reads more than [`FILE_OCTETS_MAX`], waits on a pipe, or writes.
//!
//! Source: RFC 7468.

use std::{
    fs::File,
    io,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error as PemError, PemObject as _},
};

use super::CertificateError;
use crate::disk;

/// Reads a file that the config names, whole.
pub(in crate::tls) fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    read_open(path, disk::open_named(path)).map(|(text, _)| text)
}

/// The same for a key; says so when every user of the machine may read it.
pub(super) fn read_key(path: &Path) -> Result<(Vec<u8>, Option<String>), CertificateError> {
    let (text, mode) = read_open(path, disk::open_named(path))?;
    let is_loose = mode & EVERYBODY_READS != 0;
    let warning =
        || format!("{}: every user of this machine may read the key: `chmod o-rwx` it", path.display());
    Ok((text, is_loose.then(warning)))
}

/// Reads a file that dotd keeps under a name of its own, whole.
pub(in crate::tls) fn read_own(path: &Path) -> Result<Vec<u8>, CertificateError> {
    read_open(path, disk::open_own(path)).map(|(text, _)| text)
}

/// The octets, and the mode, of the file that was opened.
fn read_open(path: &Path, opened: io::Result<File>) -> Result<(Vec<u8>, u32), CertificateError> {
    let file = opened.map_err(|source| not_opened(path, source))?;
    let metadata = file.metadata().map_err(|source| not_opened(path, source))?;
    if !metadata.is_file() {
        return Err(CertificateError::NotAFile { path: path.into() });
    }
    let mut text = Vec::new();
    file.take(FILE_OCTETS_MAX + 1).read_to_end(&mut text).map_err(|source| not_opened(path, source))?;
    if text.len() as u64 > FILE_OCTETS_MAX {
        return Err(CertificateError::TooLarge { path: path.into(), max: FILE_OCTETS_MAX });
    }
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(CertificateError::Empty { path: path.into() });
    }
    Ok((text, metadata.permissions().mode()))
}

/// Every certificate of a PEM text, in its order; at least one.
pub(in crate::tls) fn chain(
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| damaged(path, &error))?;
    if !chain.is_empty() {
        return Ok(chain);
    }
    let path = PathBuf::from(path);
    Err(if contains(text, b"PRIVATE KEY-----") {
        CertificateError::NoCertificate { path, hint: " but a key: are `cert` and `key` swapped?" }
    } else if contains(text, b"-----BEGIN CERTIFICATE REQUEST") {
        CertificateError::NoCertificate { path, hint: " but a request for one: have it signed first" }
    } else if contains(text, b"-----BEGIN") {
        CertificateError::no_certificate(&path)
    } else {
        CertificateError::NotPem { path }
    })
}

/// The first private key of a PEM text.
pub(in crate::tls) fn key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let path = PathBuf::from(path);
    if contains(text, b"BEGIN ENCRYPTED PRIVATE KEY") || contains(text, b"Proc-Type: 4,ENCRYPTED") {
        return Err(CertificateError::EncryptedKey { path });
    }
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(key),
        Err(PemError::NoItemsFound) if contains(text, b"-----BEGIN CERTIFICATE-----") => {
            Err(CertificateError::NoKey { path, hint: " but a certificate: are `cert` and `key` swapped?" })
        }
        Err(PemError::NoItemsFound) if contains(text, b"-----BEGIN") => {
            Err(CertificateError::NoKey { path, hint: ": name the PEM file with the private key" })
        }
        Err(PemError::NoItemsFound) => Err(CertificateError::NotPem { path }),
        Err(error) => Err(damaged(&path, &error)),
    }
}

fn not_opened(path: &Path, source: io::Error) -> CertificateError {
    let path = path.into();
    match source.kind() {
        io::ErrorKind::NotFound => CertificateError::Missing { path },
        _ => CertificateError::Unreadable { path, source },
    }
}

fn damaged(path: &Path, error: &PemError) -> CertificateError {
    let reason = match error {
        PemError::MissingSectionEnd { .. } => "no END line".to_owned(),
        PemError::IllegalSectionStart { .. } => "broken BEGIN line".to_owned(),
        PemError::Base64Decode(_) => "not Base64".to_owned(),
        other => other.to_string(),
    };
    CertificateError::Truncated { path: path.into(), reason }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

/// 1 MiB: chains are a few KiB; more is a wrong file.
const FILE_OCTETS_MAX: u64 = 1 << 20;
/// The mode bit that lets others read.
const EVERYBODY_READS: u32 = 0o004;
