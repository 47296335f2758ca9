//! Converts PEM files to DER: a chain, a key, or one line that says why not.
//!
//! Before: `config` named a path. After: `tls::certificate` checks what the DER says.
//! Holds: each file is opened once, so the checked file is the one that is used.
//! Never: reads more than [`FILE_OCTETS_MAX`], blocks on a pipe, or writes.
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

use zeroize::Zeroizing;

use super::CertificateError;
use crate::disk;

/// The content of a file; wiped when it is dropped, because it may be a key.
type Text = Zeroizing<Vec<u8>>;

/// Reads a file that the config names, whole.
pub(in crate::tls) fn read(path: &Path) -> Result<Text, CertificateError> {
    read_open(path, disk::open_named(path)).map(|(text, _)| text)
}

/// The same for a key or a secret; returns a warning if every user of the machine may read it.
pub(in crate::tls) fn read_secret(
    path: &Path,
    what: &str,
) -> Result<(Text, Option<String>), CertificateError> {
    let (text, mode) = read_open(path, disk::open_named(path))?;
    let is_loose = mode & EVERYBODY_READS != 0;
    let warning =
        || format!("{}: every user of this machine may read the {what}: `chmod o-rwx` it", path.display());
    Ok((text, is_loose.then(warning)))
}

/// Reads a file that dotd itself wrote, whole.
pub(in crate::tls) fn read_own(path: &Path) -> Result<Text, CertificateError> {
    read_open(path, disk::open_own(path)).map(|(text, _)| text)
}

/// The content and the mode of the opened file.
fn read_open(path: &Path, opened: io::Result<File>) -> Result<(Text, u32), CertificateError> {
    let file = opened.map_err(|source| not_opened(path, source))?;
    let metadata = file.metadata().map_err(|source| not_opened(path, source))?;
    if !metadata.is_file() {
        return Err(CertificateError::NotAFile { path: path.into() });
    }
    // Large enough at once: a buffer that grows leaves copies of a key behind.
    let octets = metadata.len().min(FILE_OCTETS_MAX) + 2;
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(octets).unwrap_or_default()));
    file.take(FILE_OCTETS_MAX + 1).read_to_end(&mut text).map_err(|source| not_opened(path, source))?;
    if text.len() as u64 > FILE_OCTETS_MAX {
        return Err(CertificateError::TooLarge { path: path.into(), max: FILE_OCTETS_MAX });
    }
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(CertificateError::Empty { path: path.into() });
    }
    Ok((text, metadata.permissions().mode()))
}

/// Every certificate of a PEM text, in order; at least one.
pub(in crate::tls) fn chain(
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    refuse_other_form(path, text)?;
    let chain = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| damaged(path, &error))?;
    let begun = text.windows(BEGIN_CERTIFICATE.len()).filter(|window| *window == BEGIN_CERTIFICATE).count();
    if begun != chain.len() {
        // The library skips such a block silently.
        return Err(CertificateError::Truncated { path: path.into(), reason: JOINED.to_owned() });
    }
    if !chain.is_empty() {
        return Ok(chain);
    }
    let path = PathBuf::from(path);
    Err(if is_encrypted(text) {
        CertificateError::NoCertificate { path, hint: " but an encrypted key: are `cert` and `key` swapped?" }
    } else if contains(text, b"PRIVATE KEY-----") {
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
    refuse_other_form(path, text)?;
    let path = PathBuf::from(path);
    if is_encrypted(text) {
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

/// Refuses a text that is not PEM, and one whose first line is hidden, and names its format.
fn refuse_other_form(path: &Path, text: &[u8]) -> Result<(), CertificateError> {
    let path = || PathBuf::from(path);
    if [UTF8_MARK, UTF16_LE_MARK, UTF16_BE_MARK].iter().any(|mark| text.starts_with(mark)) {
        return Err(CertificateError::ByteOrderMark { path: path() });
    }
    // A SEQUENCE that begins with version 3, and has content of PKCS#7 (RFC 7292 §4).
    let front = text.get(..PKCS12_FRONT_OCTETS.min(text.len())).unwrap_or_default();
    if text.first() == Some(&0x30) && contains(front, &PKCS12_VERSION) && contains(front, &PKCS7_CONTENT) {
        return Err(CertificateError::Pkcs12 { path: path() });
    }
    Ok(())
}

fn is_encrypted(text: &[u8]) -> bool {
    contains(text, b"BEGIN ENCRYPTED PRIVATE KEY") || contains(text, b"Proc-Type: 4,ENCRYPTED")
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

const BEGIN_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";
const JOINED: &str =
    "a BEGIN line does not start on a line of its own: were two files joined without a newline?";
/// A mark that some editors write in front of a text.
const UTF8_MARK: &[u8] = &[0xef, 0xbb, 0xbf];
const UTF16_LE_MARK: &[u8] = &[0xff, 0xfe];
const UTF16_BE_MARK: &[u8] = &[0xfe, 0xff];
/// PKCS#12's version, and the object identifier of its content, 1.2.840.113549.1.7.1.
const PKCS12_VERSION: [u8; 3] = [2, 1, 3];
const PKCS7_CONTENT: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const PKCS12_FRONT_OCTETS: usize = 40;
/// 1 MiB: chains have a few KiB; a larger file is the wrong one.
const FILE_OCTETS_MAX: u64 = 1 << 20;
/// The mode bit that lets other users read.
const EVERYBODY_READS: u32 = 0o004;
