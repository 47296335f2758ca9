//! Faults of a certificate or key file, each with its remedy, in one line.
//!
//! Before: `tls::certificate` found it. After: `start` or `cli` prints it. Never: shows key material.

use std::{io, path::Path, path::PathBuf};

/// Names the file, its fault, and what to do.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it is")]
pub enum CertificateError {
    #[error("{}: no such file: put it there or correct its name in the config", path.display())]
    Missing { path: PathBuf },
    #[error("{}: cannot be read ({source}): give the user that dotd runs as the right to read it", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: is not a regular file: name one", path.display())]
    NotAFile { path: PathBuf },
    #[error("{}: larger than {max} octets, too large for a PEM chain: name the right file", path.display())]
    TooLarge { path: PathBuf, max: u64 },
    #[error("{}: is empty: was a renewal interrupted? write it again", path.display())]
    Empty { path: PathBuf },
    #[error("{}: is not PEM: convert it with `openssl x509 -inform der` (key: `openssl pkey -inform der`)", path.display())]
    NotPem { path: PathBuf },
    #[error("{}: begins with a byte order mark, which hides its first line: save it as UTF-8 without one", path.display())]
    ByteOrderMark { path: PathBuf },
    #[error("{}: is PKCS#12: convert it with `openssl pkcs12 -in FILE -nodes -out FILE.pem`, and name that file for both `cert` and `key`", path.display())]
    Pkcs12 { path: PathBuf },
    #[error("{}: PEM block is cut off or damaged ({reason}): write the file again", path.display())]
    Truncated { path: PathBuf, reason: String },
    #[error("{}: holds no certificate{hint}", path.display())]
    NoCertificate { path: PathBuf, hint: &'static str },
    #[error("{}: holds no private key{hint}", path.display())]
    NoKey { path: PathBuf, hint: &'static str },
    #[error("{}: is encrypted, and dotd cannot ask for a passphrase: decrypt it with `openssl pkey -in FILE -out FILE`", path.display())]
    EncryptedKey { path: PathBuf },
    #[error("{}: not a key that dotd can use: use ECDSA P-256, P-384, Ed25519 or RSA of 2048 bits and more", path.display())]
    UnsupportedKey { path: PathBuf },
    #[error("{}: not a certificate that TLS can use ({reason}): issue it again as X.509 version 3", path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("{} is not the key of {}: name the key that the certificate was issued for", key.display(), cert.display())]
    KeyMismatch { cert: PathBuf, key: PathBuf },
    #[error("{} is the key of certificate {position} in {}: put the server's own certificate first", key.display(), cert.display())]
    LeafNotFirst { cert: PathBuf, key: PathBuf, position: usize },
    #[error("{}: expired on {not_after}: renew it", path.display())]
    Expired { path: PathBuf, not_after: String },
    #[error("{}: not valid before {not_before}: correct this machine's clock or the certificate", path.display())]
    NotYetValid { path: PathBuf, not_before: String },
    #[error("{}: too weak ({reason}): issue it again with ECDSA P-256 and SHA-256", path.display())]
    Weak { path: PathBuf, reason: String },
    #[error("{}: not an OCSP response to staple ({reason}): fetch it with `openssl ocsp -respout`, in DER, or remove `ocsp`", path.display())]
    Staple { path: PathBuf, reason: String },
    #[error("{}: the certificate is revoked: have another one issued", path.display())]
    Revoked { path: PathBuf },
    #[error("{}: cannot be written ({source}): make it writable or change `server.state_dir`", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("{}: cannot make a self-signed certificate ({reason}): name a certificate in `tls.certificates`", path.display())]
    NotMade { path: PathBuf, reason: String },
    #[error("{source}; or delete the file: dotd makes a new one, with a new pin")]
    SelfSigned { source: Box<CertificateError> },
}

impl CertificateError {
    pub(super) fn no_certificate(path: &Path) -> Self {
        Self::NoCertificate {
            path: path.into(),
            hint: ": name a PEM file with the server's certificate first",
        }
    }

    pub(super) fn unsupported_key(path: &Path) -> Self {
        Self::UnsupportedKey { path: path.into() }
    }
}
