//! A request for a certificate (PKCS #10), with a key that never leaves this machine.
//!
//! Before: names, and the key of the last certificate if it is kept. After: an authority signs, and the key is written beside its
//! chain.
//! Never: opens a file.
//!
//! Source: RFC 2986, RFC 8555 §7.4.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use zeroize::Zeroizing;

/// A request, and the key that it is for.
pub struct Requested {
    /// The private key in PEM.
    pub key: Zeroizing<String>,
    /// The request in DER.
    pub request: Vec<u8>,
}

/// Makes a request for `names`, which may be addresses. `kept`: a PEM text that begins with the key to use.
///
/// # Errors
/// A name cannot be in a certificate, or the kept key cannot be used.
pub fn request(names: &[String], kept: Option<&str>) -> Result<Requested, String> {
    let key = match kept {
        Some(text) => KeyPair::from_pem(text),
        None => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
    };
    let key = key.map_err(|error| error.to_string())?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(|error| error.to_string())?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(|error| error.to_string())?;
    Ok(Requested { key: Zeroizing::new(key.serialize_pem()), request: request.der().to_vec() })
}
