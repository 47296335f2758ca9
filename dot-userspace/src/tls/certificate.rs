//! Certificates and keys from files: read, checked, and with the pin that clients verify.
//!
//! Before: `config` names PEM files, or none. After: `tls` serves each [`Identity`]; `cli` and `control` show
//! it.
//! Holds: which certificates are refused (a key that is not the leaf's, RSA below 2048 bits, SHA-1 or MD5), which are
//! served although clients refuse them (a leaf that is not valid now), and which only cause a warning (C-69).
//! Never: opens a socket, keeps state, or returns an incomplete identity: after an error the old one stays in use.
//!
//! Source: RFC 7468 (PEM), RFC 5280, RFC 7858 §4.2 and RFC 7469 §2.4 (pins), RFC 9325 §4.

mod all;
mod error;
mod examine;
mod facts;
mod ocsp;
pub(in crate::tls) mod pem;
pub(in crate::tls) mod self_signed;

use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    sign::{CertifiedKey, SigningKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use all::{Fault, Loaded, load_again, load_all, preview_all};
pub use error::CertificateError;
use examine::Leaf;
pub(in crate::tls) use examine::{common_name_of, names_of};
pub use facts::{CertificateFacts, facts};
pub use ocsp::Staple;

use zeroize::Zeroize as _;

use crate::config;

/// A certificate chain with its key, ready to serve.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Path of the certificate, or "self-signed".
    pub name: String,
    /// Its entry in the config. `None`: it is self-signed.
    pub entry: Option<config::Certificate>,
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Signs with the leaf's private key.
    pub key: Arc<dyn SigningKey>,
    /// Base64 of SHA-256 over the leaf's SubjectPublicKeyInfo: survives renewal with the same key (C-67).
    pub spki_pin: String,
    /// Beginning of the leaf's validity.
    pub not_before: SystemTime,
    /// End of the leaf's validity.
    pub not_after: SystemTime,
    /// DNS names of the leaf.
    pub dns_names: Vec<String>,
    /// Addresses of the leaf.
    pub addresses: Vec<IpAddr>,
    /// A certificate authority's response about the leaf, to staple.
    pub staple: Option<Staple>,
    /// Warnings, a line each; shown at start and by `dotd check`.
    pub warnings: Vec<String>,
}

impl Identity {
    /// Why a client that looks at the leaf's dates refuses it at this time.
    #[must_use]
    pub fn outside_validity(&self, now: SystemTime) -> Option<CertificateError> {
        let path = || self.name.clone().into();
        if now >= self.not_after + Duration::from_secs(1) {
            return Some(CertificateError::Expired {
                path: path(),
                not_after: examine::date(self.not_after),
            });
        }
        let not_before = || examine::date(self.not_before);
        (now < self.not_before)
            .then(|| CertificateError::NotYetValid { path: path(), not_before: not_before() })
    }
}

/// Reads one chain and its key, and checks that they are one pair and strong enough. Validity does not matter here.
///
/// # Errors
/// [`CertificateError`] names the file and what to do.
pub fn load(cert: &Path, key: &Path) -> Result<Identity, CertificateError> {
    load_at(cert, key, SystemTime::now())
}

/// The pin of a PEM file: of its first certificate, or of its private key if it has no certificate (a backup pin, RFC
/// 7858 §4.2, belongs to a key without a certificate). Validity does not matter here.
///
/// # Errors
/// The file cannot be read or has neither.
pub fn pin_of_file(path: &Path) -> Result<String, CertificateError> {
    let text = pem::read(path)?;
    let refused = match pem::chain(path, &text) {
        Ok(chain) => {
            let first = chain.first().ok_or_else(|| CertificateError::no_certificate(path))?;
            return Ok(pin(examine::leaf(path, first)?.spki));
        }
        Err(error) => error,
    };
    let key = match pem::key(path, &text) {
        Ok(key) => key,
        Err(encrypted @ CertificateError::EncryptedKey { .. }) => return Err(encrypted),
        Err(_) => return Err(refused),
    };
    let signing = any_supported_type(&key).map_err(|_| CertificateError::unsupported_key(path))?;
    let spki = signing.public_key().ok_or_else(|| CertificateError::unsupported_key(path))?;
    Ok(pin(&spki))
}

/// The pin of the first certificate of a PEM file that is `cert` in the config. Validity does not matter here.
///
/// # Errors
/// The file cannot be read or has no certificate; a key is reported as such.
pub fn pin_of_certificate(path: &Path) -> Result<String, CertificateError> {
    let chain = pem::chain(path, &pem::read(path)?)?;
    let first = chain.first().ok_or_else(|| CertificateError::no_certificate(path))?;
    Ok(pin(examine::leaf(path, first)?.spki))
}

/// [`load`] at a given time.
fn load_at(cert: &Path, key: &Path, now: SystemTime) -> Result<Identity, CertificateError> {
    let chain = pem::chain(cert, &pem::read(cert)?)?;
    let (text, warning) = pem::read_secret(key, "key")?;
    let secret = pem::key(key, &text)?;
    let mut identity = assemble(cert, key, chain, secret, now)?;
    identity.warnings.extend(warning);
    Ok(identity)
}

/// Checks chain and key together. The key's DER is wiped: what signs has its own form of it.
pub(super) fn assemble(
    cert: &Path,
    key: &Path,
    chain: Vec<CertificateDer<'static>>,
    mut secret: PrivateKeyDer<'static>,
    now: SystemTime,
) -> Result<Identity, CertificateError> {
    let signing = any_supported_type(&secret).map_err(|_| CertificateError::unsupported_key(key));
    secret.zeroize();
    let signing = signing?;
    let (first, issuers) = chain.split_first().ok_or_else(|| CertificateError::no_certificate(cert))?;
    let leaf = examine::leaf(cert, first)?;
    leaf.refuse_weak(cert)?;
    check_pair(cert, key, &chain, &signing)?;
    let mut warnings = leaf.warnings(now);
    warnings.extend(examine::chain_warnings(&leaf, issuers, now));
    let warnings = warnings.into_iter().map(|warning| format!("{}: {warning}", cert.display())).collect();
    let Leaf { spki, not_before_unix, not_after_unix, dns_names, addresses, .. } = leaf;
    Ok(Identity {
        name: cert.display().to_string(),
        entry: None,
        spki_pin: pin(spki),
        not_before: UNIX_EPOCH + Duration::from_secs(not_before_unix),
        not_after: UNIX_EPOCH + Duration::from_secs(not_after_unix),
        dns_names,
        addresses,
        staple: None,
        warnings,
        chain,
        key: signing,
    })
}

/// Refuses a key that is not the leaf's, and says if it belongs to another certificate of the file.
fn check_pair(
    cert: &Path,
    key: &Path,
    chain: &[CertificateDer<'static>],
    signing: &Arc<dyn SigningKey>,
) -> Result<(), CertificateError> {
    let matches = |candidate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![candidate.clone()], Arc::clone(signing)).keys_match()
    };
    let mut verdicts = chain.iter().map(matches);
    match verdicts.next() {
        Some(Ok(())) => Ok(()),
        Some(Err(rustls::Error::InvalidCertificate(reason))) => {
            Err(CertificateError::Malformed { path: cert.into(), reason: format!("{reason:?}") })
        }
        _ => {
            let (cert, key) = (cert.into(), key.into());
            Err(match verdicts.position(|verdict| verdict.is_ok()) {
                Some(position) => CertificateError::LeafNotFirst { cert, key, position: position + 2 },
                None => CertificateError::KeyMismatch { cert, key },
            })
        }
    }
}

/// Base64 of SHA-256 over a DER SubjectPublicKeyInfo (RFC 7469 §2.4).
fn pin(spki: &[u8]) -> String {
    STANDARD.encode(digest::digest(&digest::SHA256, spki))
}

#[cfg(test)]
mod tests;
