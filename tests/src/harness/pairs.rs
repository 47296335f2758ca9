//! Certificates that a test makes, each with its key, in files.
//!
//! Before: a name. After: PEM files that `tls.certificates` names, and the certificate in DER.

use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

use super::scratch::Scratch;

/// A certificate and its key.
pub struct Pair {
    /// The certificate's file.
    pub cert: PathBuf,
    /// The key's file.
    pub key: PathBuf,
    /// The certificate in DER.
    pub der: Vec<u8>,
}

impl Pair {
    /// Makes a certificate for `name`, with a key for `algorithm`.
    ///
    /// # Panics
    /// The name is not one that a certificate can have.
    #[must_use]
    pub fn new(scratch: &Scratch, name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let cert =
            CertificateParams::new([name.to_owned()]).expect("a name").self_signed(&key).expect("signed");
        Self {
            cert: scratch.write(&format!("{name}.crt"), cert.pem()),
            key: scratch.write(&format!("{name}.key"), key.serialize_pem()),
            der: cert.der().to_vec(),
        }
    }

    /// Its entry in `tls.certificates`.
    #[must_use]
    pub fn entry(&self) -> String {
        format!(r#"{{ cert = "{}", key = "{}" }}"#, self.cert.display(), self.key.display())
    }
}
