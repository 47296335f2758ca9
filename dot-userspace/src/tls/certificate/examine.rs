//! Reads an X.509 certificate, and decides what is refused or doubtful.
//!
//! Before: `pem` gave DER. After: `tls::certificate` puts the identity together.
//! Holds: the thresholds of C-69. Never: reads a file or a clock.
//!
//! Source: RFC 5280 §4, RFC 9325 §4.1 and §4.5 (key sizes, SHA-1), RFC 8310 §8.1 (names).

use std::{
    net::IpAddr,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _, public_key::PublicKey,
    time::ASN1Time,
};

use super::CertificateError;

/// The parts of a leaf that dotd uses.
pub(super) struct Leaf<'a> {
    /// DER SubjectPublicKeyInfo.
    pub(super) spki: &'a [u8],
    /// Beginning of validity, seconds since 1970.
    pub(super) not_before_unix: u64,
    /// End of validity, seconds since 1970.
    pub(super) not_after_unix: u64,
    /// DNS names of its subjectAltName.
    pub(super) dns_names: Vec<String>,
    /// Addresses of its subjectAltName.
    pub(super) addresses: Vec<IpAddr>,
    parsed: X509Certificate<'a>,
}

/// Parses a leaf.
pub(super) fn leaf<'a>(path: &Path, der: &'a CertificateDer<'_>) -> Result<Leaf<'a>, CertificateError> {
    let (_, parsed) = X509Certificate::from_der(der)
        .map_err(|error| CertificateError::Malformed { path: path.into(), reason: error.to_string() })?;
    let dns_names = names(&parsed)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect();
    let addresses = names(&parsed)
        .filter_map(|name| match name {
            GeneralName::IPAddress(octets) => {
                let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
                v4.or(<[u8; 16]>::try_from(*octets).map(IpAddr::from)).ok()
            }
            _ => None,
        })
        .collect();
    Ok(Leaf {
        spki: parsed.tbs_certificate.subject_pki.raw,
        not_before_unix: parsed.validity().not_before.timestamp().try_into().unwrap_or(0),
        not_after_unix: parsed.validity().not_after.timestamp().try_into().unwrap_or(0),
        dns_names,
        addresses,
        parsed,
    })
}

/// The names of a client's certificate, in lower case: DNS names, mail addresses and URIs of its subjectAltName; empty
/// if it cannot be parsed.
pub fn names_of(der: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(der) else { return Vec::new() };
    let shown = names(&parsed).filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some(name.to_ascii_lowercase())
        }
        _ => None,
    });
    shown.collect()
}

/// The common name of a certificate's subject, as it stands there.
#[must_use]
pub fn common_name_of(der: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    parsed.subject().iter_common_name().next()?.as_str().ok().map(str::to_owned)
}

impl Leaf<'_> {
    /// Refuses keys and signatures that clients do not trust today.
    pub(super) fn refuse_weak(&self, path: &Path) -> Result<(), CertificateError> {
        match weakness(&self.parsed) {
            Some(reason) => Err(CertificateError::Weak { path: path.into(), reason }),
            None => Ok(()),
        }
    }

    /// Doubts about the leaf itself.
    pub(super) fn warnings(&self, now: SystemTime) -> Vec<String> {
        let mut warnings = Vec::new();
        if names(&self.parsed).next().is_none() {
            warnings.push("no subjectAltName: clients that check the name will refuse it".to_owned());
        }
        if !serves(&self.parsed) {
            warnings.push("its extended key usage is not for servers: clients will refuse it".to_owned());
        }
        let validity = self.parsed.validity();
        let life = validity.not_after.timestamp() - validity.not_before.timestamp();
        let left = validity.not_after.timestamp() - unix(now);
        if (0..life / LIFE_PARTS).contains(&left) {
            warnings.push(format!("ends in {} hours: renew it now", left / 3600));
        }
        warnings
    }
}

/// Doubts about the certificates behind the leaf.
pub(super) fn chain_warnings(
    leaf: &Leaf<'_>,
    issuers: &[CertificateDer<'static>],
    now: SystemTime,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut issuer_wanted = leaf.parsed.issuer().as_raw().to_vec();
    if issuers.is_empty() && leaf.parsed.subject().as_raw() != issuer_wanted {
        warnings.push(format!(
            "holds no certificate but the server's own: clients that lack that of its issuer ({}) will refuse it; take the \
             full chain",
            leaf.parsed.issuer()
        ));
    }
    for (position, der) in (2..).zip(issuers) {
        let Ok((_, issuer)) = X509Certificate::from_der(der) else {
            warnings.push(format!("certificate {position} of the chain cannot be parsed"));
            break;
        };
        if issuer.subject().as_raw() != issuer_wanted {
            warnings.push(format!("certificate {position} of the chain did not issue the one before it"));
        }
        let validity = issuer.validity();
        if !(validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&unix(now)) {
            warnings.push(format!("certificate {position} of the chain is not valid now"));
        }
        let is_root = issuer.subject() == issuer.issuer();
        if let Some(reason) = weakness(&issuer).filter(|_| !is_root) {
            warnings.push(format!("certificate {position} of the chain is weak: {reason}"));
        }
        issuer_wanted = issuer.issuer().as_raw().to_vec();
    }
    warnings
}

/// Why a certificate is too weak, if it is.
fn weakness(certificate: &X509Certificate<'_>) -> Option<String> {
    if let Ok(PublicKey::RSA(rsa)) = certificate.public_key().parsed() {
        let bits = rsa.key_size();
        if bits < RSA_BITS_MIN {
            return Some(format!("RSA key of {bits} bits, at least {RSA_BITS_MIN}"));
        }
    }
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    WEAK_SIGNATURES.iter().find(|(oid, _)| *oid == algorithm).map(|(_, name)| format!("signed with {name}"))
}

/// The subjectAltName; empty if absent or broken.
fn names<'a>(certificate: &'a X509Certificate<'a>) -> impl Iterator<Item = &'a GeneralName<'a>> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    extension.into_iter().flat_map(|extension| extension.value.general_names.iter())
}

/// Whether the extended key usage, if present, allows TLS servers.
fn serves(certificate: &X509Certificate<'_>) -> bool {
    match certificate.extended_key_usage() {
        Ok(Some(usage)) => usage.value.server_auth || usage.value.any,
        _ => true,
    }
}

/// A time of a certificate, for people.
pub(super) fn date(time: SystemTime) -> String {
    ASN1Time::from_timestamp(unix(time))
        .map_or_else(|_| "a date out of range".to_owned(), |time| time.to_string())
}

/// Seconds since 1970, the unit in certificates.
fn unix(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// RFC 9325 §4.5: at least 2048 bits.
const RSA_BITS_MIN: usize = 2048;
/// A warning begins in the last tenth of a lifetime: 9 days of 90, 14 hours of 6 days.
const LIFE_PARTS: i64 = 10;
/// Signature algorithms by OID that no client should trust (RFC 9325 §4.4, RFC 9155).
const WEAK_SIGNATURES: &[(&str, &str)] = &[
    ("1.2.840.113549.1.1.2", "MD2"),
    ("1.2.840.113549.1.1.4", "MD5"),
    ("1.2.840.113549.1.1.5", "SHA-1"),
    ("1.2.840.10040.4.3", "DSA and SHA-1"),
    ("1.2.840.10045.4.1", "SHA-1"),
];
