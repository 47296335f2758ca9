//! Verifies a server's signatures by the provider, and its certificate by a rule of the caller.
//!
//! Before: `backend_tls` and `inquiry` have a rule. After: rustls asks it during a handshake.
//! Never: accepts a signature that is not by the certificate's key, whatever the rule says of the certificate.
//!
//! Source: RFC 8446 §4.4.3, RFC 5246 §7.4.3.

use std::{fmt::Debug, sync::Arc};

use rustls::{
    DigitallySignedStruct, Error as TlsError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Decides about a server's certificate.
pub(super) trait Rule: Debug + Send + Sync {
    /// `Err`: the handshake fails with this error.
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), TlsError>;
}

/// A verifier with such a rule.
#[derive(Debug)]
pub(super) struct ServerVerifier<R> {
    rule: R,
    provider: Arc<CryptoProvider>,
}

impl<R> ServerVerifier<R> {
    /// Verifies signatures by the algorithms of `provider`.
    pub(super) fn new(rule: R, provider: Arc<CryptoProvider>) -> Self {
        Self { rule, provider }
    }
}

impl<R: Rule> ServerCertVerifier for ServerVerifier<R> {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.rule.judge(leaf, chain, name, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
