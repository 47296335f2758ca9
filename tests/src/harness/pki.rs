//! A certificate authority for a test, and certificates from it: good, for another name, expired.
//!
//! Before: a test describes a certificate. After: PEM for files, pins, and the key material for rustls.
//! Never: writes anything to disk.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _, date_time_ymd,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate from the authority, and its key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate, PEM.
    pub cert: String,
    /// Its key, PEM.
    pub key: String,
    /// Base64 SHA-256 of its SubjectPublicKeyInfo.
    pub pin: String,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new authority.
    ///
    /// # Panics
    /// When rcgen cannot make a key.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `name`, valid now.
    #[must_use]
    pub fn issue(&self, name: &str) -> Issued {
        self.issue_until(name, 2040)
    }

    /// A certificate for `name`, valid until the beginning of this year.
    ///
    /// # Panics
    /// When rcgen refuses the name.
    #[must_use]
    pub fn issue_until(&self, name: &str, year: i32) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("issued").pem();
        let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
        let sha256 = suite.tls13().expect("a TLS 1.3 suite").common.hash_provider;
        let pin = STANDARD.encode(sha256.hash(&key.subject_public_key_info()));
        Issued { cert, key: key.serialize_pem(), pin }
    }
}

impl Issued {
    /// The certificate and key for a rustls server.
    ///
    /// # Panics
    /// When rustls refuses it.
    #[must_use]
    pub fn serving(&self) -> Arc<ServerConfig> {
        let chain = CertificateDer::pem_slice_iter(self.cert.as_bytes()).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key");
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        let mut config = builder.with_single_cert(chain.expect("PEM"), key).expect("its key");
        config.alpn_protocols = vec![b"dot".to_vec()];
        Arc::new(config)
    }
}
