//! TLS towards a backend, or a zone's primary server: the identity that it must prove, and the handshake that checks
//! it.
//!
//! Before: a `[[backend]]` or a `[[policy.zone.primary]]` with `transport = "tls"`. After: a stream to the verified
//! server, or an error.
//! Holds: the roots, the name, the pins, and the tickets of earlier handshakes with it.
//! Never: accepts a certificate of a strict backend for any but the configured reasons, offers early data, or speaks
//! TLS below 1.2.
//!
//! Source: RFC 8310 §8 (name and pins: where both are set, both must hold), RFC 7858 §4.2, RFC 9103 §7 (TLS 1.3, ALPN `dot`).

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    CertificateError as Refused, ClientConfig, Error as TlsError, ProtocolVersion, RootCertStore,
    SupportedProtocolVersion,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs as provider},
    server::ParsedCertificate,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    certificate::{CertificateError, pem},
    server_verifier::{Rule, ServerVerifier},
    serving::ALPN_DOT,
};
use crate::config::{
    Backend, BackendAddress, Identity, PolicyPrimary, Profile, TlsVersion, TransferTransport,
};

/// The reason for refusing a key without a configured pin.
pub(super) const WRONG_PIN: &str = "the backend's key has none of the configured pins";

/// A pin: SHA-256 over a SubjectPublicKeyInfo.
pub(super) type Pin = [u8; 32];

/// A connection to a backend within TLS.
pub type BackendTlsStream = TlsStream<TcpStream>;

/// Everything that a handshake with one backend needs. Clones share tickets.
#[derive(Clone)]
pub struct BackendTls {
    connector: TlsConnector,
    name: ServerName<'static>,
    fingerprint: u64,
}

/// A server and its required identity.
struct Peer<'c> {
    /// Its table in the config.
    key: &'static str,
    address: SocketAddr,
    identity: Identity<'c>,
    is_opportunistic: bool,
}

impl BackendTls {
    /// Reads the identity that `backend` must prove. `Ok(None)`: it is not asked over TLS.
    ///
    /// # Errors
    /// The line for the operator: a file cannot be read, or the name is invalid.
    pub fn of(backend: &Backend) -> Result<Option<Self>, String> {
        let address = match backend.address {
            BackendAddress::Socket(address) => address,
            // What is wrong with its keys is said before it has an address.
            BackendAddress::Named(_) => SocketAddr::from(([0; 4], 0)),
            BackendAddress::Embedded => return Ok(None),
        };
        if backend.transport != crate::config::Transport::Tls {
            return Ok(None);
        }
        let is_opportunistic = backend.profile == Profile::Opportunistic;
        let peer = Peer { key: "backend", address, identity: backend.identity(), is_opportunistic };
        Self::to(&peer, &[&TLS13, &TLS12]).map(Some)
    }

    /// Reads the identity that a zone's primary server must prove. `Ok(None)`: it is not asked over TLS.
    ///
    /// # Errors
    /// As [`BackendTls::of`].
    pub fn of_primary(primary: &PolicyPrimary) -> Result<Option<Self>, String> {
        if primary.transport != TransferTransport::Tls {
            return Ok(None);
        }
        let (key, address) = ("policy.zone.primary", primary.address);
        let peer = Peer { key, address, identity: primary.identity(), is_opportunistic: false };
        Self::to(&peer, &[&TLS13]).map(Some)
    }

    fn to(peer: &Peer<'_>, versions: &[&'static SupportedProtocolVersion]) -> Result<Self, String> {
        let Peer { key, address, identity, is_opportunistic } = *peer;
        let Identity { server_name, ca, spki_pins } = identity;
        let provider = Arc::new(provider::default_provider());
        let mut believed = DefaultHasher::new();
        (server_name, spki_pins, is_opportunistic).hash(&mut believed);
        // For an opportunistic backend the name is only the SNI, and no authority is needed.
        let named = match server_name.is_empty() || is_opportunistic {
            true => None,
            false => Some(by_name(key, ca, Arc::clone(&provider), &mut believed)?),
        };
        let name = match server_name {
            // Without a name the address is used, which means no SNI.
            "" => ServerName::from(address.ip()),
            text => ServerName::try_from(text.to_owned())
                .map_err(|_| format!("{key} {address}: server_name \"{text}\" is not the name of a host"))?,
        };
        let pins = spki_pins.iter().filter_map(pin).collect();
        let conditions = Conditions { is_opportunistic, ..Conditions::new(named, pins) };
        let verifier = ServerVerifier::new(conditions, Arc::clone(&provider));
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let builder = builder.map_err(|error| format!("{key} {address}: {error}"))?;
        let mut config =
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
        config.alpn_protocols = vec![ALPN_DOT.to_vec()];
        config.require_ems = true;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { connector, name, fingerprint: believed.finish() })
    }

    /// Makes the handshake.
    ///
    /// # Errors
    /// An error of rustls inside of an `io::Error`: the server does not speak TLS, or has another name, key or
    /// validity.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect(&self, tcp: TcpStream) -> io::Result<BackendTlsStream> {
        self.connector.connect(self.name.clone(), tcp).await
    }

    /// A number that differs if another server would be accepted.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// The version of TLS on a connection, and the pin of the backend's key. `None`: its certificate cannot be parsed.
#[must_use]
pub fn shown_by(stream: &BackendTlsStream) -> (TlsVersion, Option<String>) {
    let connection = stream.get_ref().1;
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => TlsVersion::V1_2,
        _ => TlsVersion::V1_3,
    };
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    let parsed = leaf.and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
    (version, parsed.map(|parsed| STANDARD.encode(digest(&SHA256, &parsed.subject_public_key_info()))))
}

/// A pin as `dotd pin` prints it.
pub(super) fn pin(text: &String) -> Option<Pin> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// A verifier of chains up to the authorities in `ca`, or up to the system's, for callers that do not compare it.
pub(super) fn authorities(
    ca: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    by_name("backend", ca, provider, &mut DefaultHasher::new())
}

/// A verifier of chains up to the authorities in `ca`, or up to the system's.
fn by_name(
    key: &str,
    ca: &Path,
    provider: Arc<CryptoProvider>,
    believed: &mut DefaultHasher,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    let authorities = match ca.as_os_str().is_empty() {
        true => rustls_native_certs::load_native_certs().certs,
        false => {
            let read = pem::read(ca).and_then(|text| pem::chain(ca, &text));
            read.map_err(|error: CertificateError| format!("{key}.ca: {error}"))?
        }
    };
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        authority.as_ref().hash(believed);
        let result = roots.add(authority);
        // One of the system's authorities that webpki cannot use does not prevent a start: there are some hundred.
        if let (Err(error), false) = (result, ca.as_os_str().is_empty()) {
            return Err(format!("{key}.ca: {}: no authority for servers: {error}", ca.display()));
        }
    }
    if roots.is_empty() {
        return Err(format!(
            "{key}.ca: this system has no certificate authorities; install ca-certificates, or name a PEM file"
        ));
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|error| format!("{key}.ca: {error}"))
}

/// Accepts a certificate whose chain and name are right, and whose key has a pin: each condition only if it is
/// configured.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    named: Option<Arc<WebPkiServerVerifier>>,
    pins: Vec<Pin>,
    /// Any server is accepted (RFC 8310 §5): an attacker who only listens learns nothing.
    is_opportunistic: bool,
}

/// The verdict of one condition. `None`: it is not configured.
type Verdict = Option<Result<(), TlsError>>;

impl Conditions {
    /// By these conditions.
    pub(super) fn new(named: Option<Arc<WebPkiServerVerifier>>, pins: Vec<Pin>) -> Self {
        Self { named, pins, is_opportunistic: false }
    }

    /// Whether chain and name are right, and whether the key has a pin.
    pub(super) fn verdicts(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> (Verdict, Verdict) {
        let by_name =
            self.named.as_ref().map(|named| named.verify_server_cert(leaf, chain, name, &[], now).map(drop));
        (by_name, (!self.pins.is_empty()).then(|| self.has_pin(leaf)))
    }

    fn has_pin(&self, leaf: &CertificateDer<'_>) -> Result<(), TlsError> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let found = digest(&SHA256, &parsed.subject_public_key_info());
        match self.pins.iter().any(|pin| pin == found.as_ref()) {
            true => Ok(()),
            false => Err(TlsError::General(WRONG_PIN.into())),
        }
    }
}

impl Rule for Conditions {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), TlsError> {
        match self.verdicts(leaf, chain, name, now) {
            _ if self.is_opportunistic => Ok(()),
            // The config refuses that; to reject every certificate is the safe failure.
            (None, None) => Err(Refused::ApplicationVerificationFailure.into()),
            (by_name, by_pin) => {
                by_name.transpose()?;
                by_pin.transpose()?;
                Ok(())
            }
        }
    }
}
