//! Tests of OCSP responses: which certificate they are about, when they are valid, and files that are not responses.

use std::{fs, path::PathBuf};

use aws_lc_rs::digest::digest;
use der::{
    Decode, Encode as _,
    asn1::{BitString, GeneralizedTime, OctetString},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use x509_ocsp::{OcspResponse, ResponderId, ResponseData, RevokedInfo, Version};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A leaf and its issuer.
fn chain() -> Vec<CertificateDer<'static>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let leaf = CertificateParams::new(["dns.example".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    vec![leaf.der().clone(), issuer.der().clone()]
}

/// The name that a response has for the leaf of `chain`, with this hash.
fn id_of(chain: &[CertificateDer<'_>], hash: usize) -> CertId {
    let (oid, algorithm) = HASHES[hash];
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let (_, issuer) = X509Certificate::from_der(&chain[1]).unwrap();
    let hashed = |of: &[u8]| OctetString::new(digest(algorithm, of).as_ref()).unwrap();
    // AlgorithmIdentifier without parameters.
    let hash_algorithm = x509_algorithm(oid);
    CertId {
        hash_algorithm,
        issuer_name_hash: hashed(leaf.issuer().as_raw()),
        issuer_key_hash: hashed(&issuer.public_key().subject_public_key.data),
        serial_number: Decode::from_der(&[&[2, leaf.raw_serial().len() as u8], leaf.raw_serial()].concat())
            .unwrap(),
    }
}

/// `SEQUENCE { OBJECT IDENTIFIER }`, whatever type the library has for it.
fn x509_algorithm<T: for<'a> Decode<'a>>(oid: ObjectIdentifier) -> T {
    let oid = oid.to_der().unwrap();
    T::from_der(&[&[0x30, oid.len() as u8], &oid[..]].concat()).unwrap()
}

fn at(time: SystemTime) -> OcspGeneralizedTime {
    OcspGeneralizedTime(GeneralizedTime::from_system_time(time).unwrap())
}

/// A response in DER with the status `status` for `id` from `from` until `until`, without a valid signature.
fn response(id: CertId, status: CertStatus, from: SystemTime, until: Option<SystemTime>) -> Vec<u8> {
    let single = SingleResponse {
        cert_id: id,
        cert_status: status,
        this_update: at(from),
        next_update: until.map(at),
        single_extensions: None,
    };
    let basic = BasicOcspResponse {
        tbs_response_data: ResponseData {
            version: Version::V1,
            responder_id: ResponderId::ByKey(OctetString::new([0; 20]).unwrap()),
            produced_at: at(from),
            responses: vec![single],
            response_extensions: None,
        },
        signature_algorithm: x509_algorithm(ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2")),
        signature: BitString::from_bytes(&[0; 64]).unwrap(),
        certs: None,
    };
    OcspResponse::successful(basic).unwrap().to_der().unwrap()
}

/// A file with these octets, and its folder.
fn file(octets: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("leaf.ocsp");
    fs::write(&path, octets).unwrap();
    (folder, path)
}

/// The result of [`load`] for these octets, without the folder.
fn said(octets: &[u8], chain: &[CertificateDer<'_>]) -> Result<(Option<Staple>, Option<String>), String> {
    let (folder, path) = file(octets);
    let folder = format!("{}/", folder.path().display());
    let (staple, warning) =
        load(&path, chain, SystemTime::now()).map_err(|error| error.to_string().replace(&folder, ""))?;
    Ok((staple, warning.map(|warning| warning.replace(&folder, ""))))
}

/// Goal: a valid response about the leaf is stapled octet for octet, whichever hash identifies it, with an end of
/// validity or without. Covers: C-68
#[test]
fn staples_what_is_true() {
    let (chain, now) = (chain(), SystemTime::now());
    for hash in 0..HASHES.len() {
        for until in [Some(now + HOUR), None] {
            let octets = response(id_of(&chain, hash), CertStatus::good(), now - HOUR, until);
            let (staple, warning) = said(&octets, &chain).unwrap();
            assert_eq!(warning, None);
            let staple = staple.unwrap();
            assert_eq!(staple.der, octets);
            let second = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            assert_eq!(staple.until.map(second), until.map(second));
        }
    }
    // If the file lacks the issuer, a leaf is identified by serial number and issuer's name.
    let octets = response(id_of(&chain, 0), CertStatus::good(), now - HOUR, None);
    assert!(said(&octets, &chain[..1]).unwrap().0.is_some());
}

/// Goal: a response that has expired, or is not valid yet, is not stapled, and the certificate is still served.
/// Covers: C-68
#[test]
fn does_not_staple_what_is_not_true_now() {
    let (chain, now) = (chain(), SystemTime::now());
    for (from, until, doubt) in [
        (now - 2 * HOUR, now - HOUR, "has expired: fetch it again"),
        (now + HOUR, now + 2 * HOUR, "is not valid yet: correct this machine's clock"),
    ] {
        let octets = response(id_of(&chain, 0), CertStatus::good(), from, Some(until));
        let (staple, warning) = said(&octets, &chain).unwrap();
        assert_eq!(staple, None);
        let expected = format!("leaf.ocsp: the OCSP response {doubt}; it is not stapled");
        assert_eq!(warning, Some(expected));
    }
}

/// Goal: a response that does not help is not stapled, with a warning, and the certificate is served: a renewal must
/// not fail because an authority was slower, or has ended OCSP. Method: a response for another certificate, one for
/// another issuer of the same name, "unknown", a refusal, an empty file, no file. Covers: C-300
#[test]
fn does_not_staple_what_does_not_help() {
    let (chain, other, now) = (chain(), self::chain(), SystemTime::now());
    let mut same_serial = id_of(&chain, 0);
    same_serial.issuer_key_hash = OctetString::new([7; 20]).unwrap();
    let of = |id: CertId, status: CertStatus| response(id, status, now - HOUR, None);
    let lines = [
        (of(id_of(&other, 0), CertStatus::good()), "it is about another certificate"),
        (of(same_serial, CertStatus::good()), "it is about another certificate"),
        (of(id_of(&chain, 0), CertStatus::unknown()), "its authority does not know the certificate"),
        (OcspResponse::try_later().to_der().unwrap(), "the authority refused with TryLater"),
        (Vec::new(), "is empty"),
    ];
    for (octets, doubt) in lines {
        let (staple, warning) = said(&octets, &chain).unwrap();
        assert_eq!(staple, None);
        let warning = warning.unwrap();
        assert!(warning.starts_with("leaf.ocsp: ") && warning.contains(doubt), "{warning}");
        assert!(warning.ends_with("; nothing is stapled"), "{warning}");
    }
    let (folder, path) = file(&[]);
    drop(folder);
    let (staple, warning) = load(&path, &chain, now).unwrap();
    assert!(staple.is_none() && warning.unwrap().ends_with("leaf.ocsp: no such file; nothing is stapled"));
}

/// Goal: a file that is not a response is refused with its name and the remedy, and so is a certificate that is
/// revoked.
/// Method: "revoked", PEM, an octet after a response, each prefix of a good one.
#[test]
fn refuses_what_is_no_response() {
    let (chain, now) = (chain(), SystemTime::now());
    let good = response(id_of(&chain, 0), CertStatus::good(), now - HOUR, None);
    let lines = [
        (b"-----BEGIN OCSP RESPONSE-----\n".to_vec(), "not a response in DER"),
        ([&good[..], &[0]].concat(), "not a response in DER"),
        (vec![0x30; STAPLE_OCTETS_MAX + 1], "octets, more than 16384"),
    ];
    for (octets, reason) in lines {
        let line = said(&octets, &chain).unwrap_err();
        assert!(
            line.starts_with("leaf.ocsp: not an OCSP response to staple (") && line.contains(reason),
            "{line}"
        );
    }
    let revoked = RevokedInfo { revocation_time: at(now - HOUR), revocation_reason: None };
    let line = said(&response(id_of(&chain, 0), CertStatus::revoked(revoked), now - HOUR, None), &chain);
    assert_eq!(line.unwrap_err(), "leaf.ocsp: the certificate is revoked: have another one issued");
    for end in 1..good.len() {
        assert!(said(&good[..end], &chain).is_err(), "{end} octets");
    }
}
