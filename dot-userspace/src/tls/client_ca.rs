//! Mutual TLS: the authorities from which a client's certificate must come.
//!
//! Before: `tls.client_ca` names a PEM file. After: `serving` asks every client for a certificate.
//! Never: lets a client without a certificate through, or trusts an authority that the operator did not name.
//!
//! Source: RFC 8446 §4.3.2, RFC 9325 §5.1; for DNS over TLS, RFC 8310 §6.6.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::certificate::{CertificateError, pem};

/// The verifier of clients' certificates by the authorities in `path`.
///
/// # Errors
/// [`CertificateError`]: the file, or a certificate in it that is not an authority's.
pub fn client_verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let malformed = |reason: String| CertificateError::Malformed { path: path.into(), reason };
    let mut roots = RootCertStore::empty();
    for authority in pem::chain(path, &pem::read(path)?)? {
        roots.add(authority).map_err(|error| malformed(format!("as an authority for clients: {error}")))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|error| malformed(error.to_string()))
}
