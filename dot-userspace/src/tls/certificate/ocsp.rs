//! OCSP responses from files: what an authority says of a leaf, to be stapled to its handshakes.
//!
//! Before: `ocsp` of a certificate names a file in DER that somebody fetches. After: `serving` staples it.
//! Holds: what is refused (no response, "revoked") and what is only not stapled, with a warning, because the certificate is
//! good without it: no file, an authority that refuses to answer or does not know the certificate, a response about another
//! certificate (the one before a renewal, or the next one), or one whose time is over.
//! Never: fetches a response, or checks its signature: the client, who knows the authority, does.
//!
//! Source: RFC 6960 §4.2, RFC 6066 §8, RFC 9325 §7.5.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{self, Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};
use der::{Decode as _, oid::ObjectIdentifier};
use rustls_pki_types::CertificateDer;
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspResponse, OcspResponseStatus,
    SingleResponse,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{CertificateError, pem};

/// A response to staple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staple {
    /// As it is sent.
    pub der: Vec<u8>,
    /// From then on it is no longer true (`nextUpdate`); without it, it stays true.
    pub until: Option<SystemTime>,
}

/// Reads the response about the first certificate of `chain`. No staple comes with a warning that says why.
pub(super) fn load(
    path: &Path,
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(Option<Staple>, Option<String>), CertificateError> {
    let unstapled =
        |doubt: &str| Ok((None, Some(format!("{}: {doubt}; nothing is stapled", path.display()))));
    let octets = match pem::read(path) {
        Ok(octets) => octets,
        Err(CertificateError::Missing { .. }) => return unstapled("no such file"),
        Err(CertificateError::Empty { .. }) => return unstapled("is empty"),
        Err(error) => return Err(error),
    };
    let single = match find(&octets, chain) {
        Ok(single) => single,
        Err(Flaw::Doubt(doubt)) => return unstapled(&format!("the OCSP response is of no use: {doubt}")),
        Err(Flaw::Broken(reason)) => return Err(CertificateError::Staple { path: path.into(), reason }),
    };
    match single.cert_status {
        CertStatus::Good(_) => {}
        CertStatus::Revoked(_) => return Err(CertificateError::Revoked { path: path.into() }),
        CertStatus::Unknown(_) => {
            return unstapled("the OCSP response is of no use: its authority does not know the certificate");
        }
    }
    let until = single.next_update.map(time_of);
    let doubt = if time_of(single.this_update) > now + CLOCK_SKEW {
        Some("is not true yet: correct this machine's clock")
    } else if until.is_some_and(|until| until <= now) {
        Some("is no longer true: fetch it anew")
    } else {
        None
    };
    Ok(match doubt {
        Some(doubt) => {
            (None, Some(format!("{}: the OCSP response {doubt}; it is not stapled", path.display())))
        }
        None => (Some(Staple { der: octets, until }), None),
    })
}

/// Why a file says nothing of the leaf.
enum Flaw {
    /// It is no response.
    Broken(String),
    /// It is one, and does not help.
    Doubt(String),
}

/// What `octets` say of the leaf, or why they say nothing.
fn find(octets: &[u8], chain: &[CertificateDer<'_>]) -> Result<SingleResponse, Flaw> {
    if octets.len() > STAPLE_OCTETS_MAX {
        return Err(Flaw::Broken(format!("{} octets, more than {STAPLE_OCTETS_MAX}", octets.len())));
    }
    let broken = |error: der::Error| Flaw::Broken(format!("not DER of one: {error}"));
    let response = OcspResponse::from_der(octets).map_err(broken)?;
    let bytes = match (response.response_status, response.response_bytes) {
        (OcspResponseStatus::Successful, Some(bytes)) if bytes.response_type == BASIC => bytes.response,
        (OcspResponseStatus::Successful, _) => return Err(Flaw::Broken("not of the basic kind".into())),
        (status, _) => return Err(Flaw::Doubt(format!("the authority refused with {status:?}"))),
    };
    let basic = BasicOcspResponse::from_der(bytes.as_bytes()).map_err(broken)?;
    let mut responses = basic.tbs_response_data.responses.into_iter();
    let theirs = responses.find(|single| is_of(&single.cert_id, chain));
    theirs.ok_or_else(|| Flaw::Doubt("it is about another certificate".into()))
}

/// Whether `id` means the first certificate of `chain`: by serial number and issuer's name, and by the issuer's
/// key where the chain has the issuer.
fn is_of(id: &CertId, chain: &[CertificateDer<'_>]) -> bool {
    let [leaf, rest @ ..] = chain else { return false };
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return false };
    let Some(algorithm) = algorithm_of(&id.hash_algorithm.oid) else { return false };
    let is_digest = |of: &[u8], digest: &[u8]| digest::digest(algorithm, of).as_ref() == digest;
    let issuer = rest.first().and_then(|der| X509Certificate::from_der(der).ok());
    let is_issuers_key = |(_, issuer): (&[u8], X509Certificate<'_>)| {
        let key = &issuer.public_key().subject_public_key.data;
        issuer.subject().as_raw() != leaf.issuer().as_raw() || is_digest(key, id.issuer_key_hash.as_bytes())
    };
    // One library keeps the octet that says "positive", the other may not.
    let serial_of =
        |octets: &'_ [u8]| octets.iter().copied().skip_while(|octet| *octet == 0).collect::<Vec<_>>();
    serial_of(id.serial_number.as_bytes()) == serial_of(leaf.raw_serial())
        && is_digest(leaf.issuer().as_raw(), id.issuer_name_hash.as_bytes())
        && issuer.is_none_or(is_issuers_key)
}

fn algorithm_of(oid: &ObjectIdentifier) -> Option<&'static Algorithm> {
    HASHES.iter().find(|(known, _)| known == oid).map(|(_, algorithm)| *algorithm)
}

fn time_of(time: OcspGeneralizedTime) -> SystemTime {
    time.0.to_system_time()
}

/// id-pkix-ocsp-basic (RFC 6960 §4.2.1).
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
/// What names an issuer in a response. SHA-1 is what authorities use (RFC 5019 §2.1.1): it identifies here, and
/// protects nothing.
const HASHES: &[(ObjectIdentifier, &Algorithm)] = &[
    (ObjectIdentifier::new_unwrap("1.3.14.3.2.26"), &SHA1_FOR_LEGACY_USE_ONLY),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"), &SHA256),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"), &SHA384),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"), &SHA512),
];
/// 16 KiB: responses have 0.5 to 3 KiB, and each full handshake carries one.
const STAPLE_OCTETS_MAX: usize = 16 << 10;
/// Between an authority's clock and ours.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
