//! OCSP responses from files: an authority's statement about a leaf, to staple in its handshakes.
//!
//! Before: `ocsp` of a certificate names a DER file that another program fetches. After: `serving` staples it.
//! Holds: the rule which files are refused (not a response, "revoked"), and which are not stapled, with a warning,
//! because the certificate is good without them: no file, an authority that refuses to answer or does not know the
//! certificate, a response about another certificate (before or after a renewal), or an expired one.
//! Never: fetches a response, or checks its signature: the client, which knows the authority, does.
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
    /// The octets to send.
    pub der: Vec<u8>,
    /// The end of its validity (`nextUpdate`). `None`: it has none.
    pub until: Option<SystemTime>,
}

/// Reads the response about the first certificate of `chain`. Without a staple there is a warning that says why.
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
        Err(Flaw::Doubt(doubt)) => return unstapled(&format!("the OCSP response is unusable: {doubt}")),
        Err(Flaw::Broken(reason)) => return Err(CertificateError::Staple { path: path.into(), reason }),
    };
    match single.cert_status {
        CertStatus::Good(_) => {}
        CertStatus::Revoked(_) => return Err(CertificateError::Revoked { path: path.into() }),
        CertStatus::Unknown(_) => {
            return unstapled("the OCSP response is unusable: its authority does not know the certificate");
        }
    }
    let until = single.next_update.map(time_of);
    let doubt = if time_of(single.this_update) > now + CLOCK_SKEW {
        Some("is not valid yet: correct this machine's clock")
    } else if until.is_some_and(|until| until <= now) {
        Some("has expired: fetch it again")
    } else {
        None
    };
    Ok(match doubt {
        Some(doubt) => {
            (None, Some(format!("{}: the OCSP response {doubt}; it is not stapled", path.display())))
        }
        None => (Some(Staple { der: octets.to_vec(), until }), None),
    })
}

/// Why a file has no response about the leaf.
enum Flaw {
    /// It is not a response.
    Broken(String),
    /// It is a response of no use.
    Doubt(String),
}

/// Finds the response about the leaf in `octets`, or says why there is none.
fn find(octets: &[u8], chain: &[CertificateDer<'_>]) -> Result<SingleResponse, Flaw> {
    if octets.len() > STAPLE_OCTETS_MAX {
        return Err(Flaw::Broken(format!("{} octets, more than {STAPLE_OCTETS_MAX}", octets.len())));
    }
    let broken = |error: der::Error| Flaw::Broken(format!("not a response in DER: {error}"));
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

/// Whether `id` means the first certificate of `chain`: by serial number and issuer's name, and by the issuer's key if
/// the chain has the issuer.
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
    // One library keeps the leading zero octet of a positive number, the other may not.
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
/// Digests that identify an issuer in a response. Authorities use SHA-1 (RFC 5019 §2.1.1): here it identifies, and
/// protects nothing.
const HASHES: &[(ObjectIdentifier, &Algorithm)] = &[
    (ObjectIdentifier::new_unwrap("1.3.14.3.2.26"), &SHA1_FOR_LEGACY_USE_ONLY),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"), &SHA256),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"), &SHA384),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"), &SHA512),
];
/// 16 KiB: responses have 0.5 to 3 KiB, and each full handshake carries one.
const STAPLE_OCTETS_MAX: usize = 16 << 10;
/// Allowed difference between an authority's clock and ours.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
