//! The content of a certificate that a server presented, for people.
//!
//! Before: a handshake showed it. After: `dotd query` prints it. Never: judges it; a certificate that cannot be parsed
//! gets a line too.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::pin;

/// One certificate of a chain.
#[derive(Clone, Debug)]
pub struct CertificateFacts {
    /// Subject, as RFC 4514 writes it.
    pub subject: String,
    /// Issuer.
    pub issuer: String,
    /// DNS names and addresses of its subjectAltName.
    pub names: Vec<String>,
    /// Base64 SHA-256 of its SubjectPublicKeyInfo; empty if it cannot be parsed.
    pub pin: String,
    /// Beginning of its validity.
    pub not_before: SystemTime,
    /// End of its validity.
    pub not_after: SystemTime,
    /// Seconds until its end; negative: it has expired.
    pub ends_in_seconds: i64,
}

/// Reads `der` as of `now`.
#[must_use]
pub fn facts(der: &CertificateDer<'_>, now: SystemTime) -> CertificateFacts {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let Ok((_, parsed)) = X509Certificate::from_der(der) else {
        return CertificateFacts {
            subject: "a certificate that cannot be parsed".to_owned(),
            issuer: String::new(),
            names: Vec::new(),
            pin: String::new(),
            not_before: UNIX_EPOCH,
            not_after: UNIX_EPOCH,
            ends_in_seconds: 0,
        };
    };
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0));
    let validity = parsed.validity();
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let names = alternative.into_iter().flat_map(|extension| extension.value.general_names.iter());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    CertificateFacts {
        subject: named(parsed.subject().to_string()),
        issuer: named(parsed.issuer().to_string()),
        names: names.filter_map(name).collect(),
        pin: pin(parsed.tbs_certificate.subject_pki.raw),
        not_before: time(validity.not_before.timestamp()),
        not_after: time(validity.not_after.timestamp()),
        ends_in_seconds: validity.not_after.timestamp() - now,
    }
}

/// A subject without parts has only its alternative names.
fn named(text: String) -> String {
    if text.is_empty() { "no name".to_owned() } else { text }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(*octets).map(|octets| std::net::IpAddr::from(octets).to_string());
            let v6 = <[u8; 16]>::try_from(*octets).map(|octets| std::net::IpAddr::from(octets).to_string());
            v4.or(v6).ok()
        }
        _ => None,
    }
}
