//! The TLS configuration of the workers: versions, certificates by name, tickets. Immutable; a reload makes a new
//! one.
//!
//! Before: `certificate` loaded and checked the identities. After: `handshake::accept` uses it.
//! Holds: which certificate is chosen for which SNI.
//! Never: offers early data (RFC 9210 §4.4), renegotiation, or a version below 1.2.

use std::{cell::Cell, fmt, sync::Arc};

use rustls::{
    CipherSuite, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use thiserror::Error;

use super::{
    Certified, Tickets,
    certificate::{CertificateError, Identity},
    client_ca::client_verifier,
    extended::Extended,
    secrets::Logged,
    sessions::Sessions,
    tickets::NoTickets,
};
use crate::config::{self, TlsVersion};

/// The ALPN protocol of DNS over TLS (RFC 7858 as registered by RFC 9250's registry entry `dot`).
pub(super) const ALPN_DOT: &[u8] = b"dot";
/// Tickets after a TLS 1.3 handshake. One: a stub resolver resumes one connection at a time, and each ticket costs
/// about 2.5 µs.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// Why the identities cannot be served.
#[derive(Debug, Error)]
pub enum ServingError {
    /// There is no certificate.
    #[error("no certificate to serve")]
    Empty,
    /// `tls.client_ca` has no authority.
    #[error("tls.client_ca: {0}")]
    ClientCa(#[from] CertificateError),
    /// The versions do not suit the provider.
    #[error("TLS cannot be set up: {0}")]
    Protocol(rustls::Error),
}

/// A TLS configuration in use. Clones share it.
#[derive(Clone)]
pub struct Serving {
    /// For most clients, suites in our order: the cheapest first, all of them strong.
    pub(super) ours: Arc<ServerConfig>,
    /// For clients that put ChaCha20 first because they have no AES in hardware, suites in their order.
    pub(super) theirs: Arc<ServerConfig>,
    /// Clients must show a certificate, which dotd verifies.
    pub(super) checks_clients: bool,
    /// Sessions of clients without tickets.
    pub(super) sessions: Arc<Sessions>,
    /// The names and addresses of each certificate that an authority issued.
    pub certified: Arc<[Certified]>,
}

/// Builds the TLS configuration.
///
/// # Errors
/// [`ServingError`]; the configuration in use stays.
pub fn serving(
    identities: &[Identity],
    tls: &config::Tls,
    tickets: &Tickets,
) -> Result<Serving, ServingError> {
    let certificates = Certificates::new(identities)?;
    let versions: &[&rustls::SupportedProtocolVersion] = match tls.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(provider()));
    let builder = builder.with_protocol_versions(versions).map_err(ServingError::Protocol)?;
    let builder = match tls.client_ca.as_path() {
        path if path.as_os_str().is_empty() => builder.with_no_client_auth(),
        path => builder.with_client_cert_verifier(client_verifier(path)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![ALPN_DOT.to_vec()];
    config.ticketer = Arc::clone(&tickets.keys) as _;
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    config.session_storage = Arc::clone(&tickets.sessions) as _;
    if !tls.require_ems {
        config.ticketer = Arc::new(Extended(Arc::clone(&tickets.keys)));
        config.session_storage = Arc::new(Extended(Arc::clone(&tickets.sessions)));
    }
    if !tls.client_ca.as_os_str().is_empty() {
        // A resumed handshake checks no certificate. So a ticket or a session from before `client_ca` was set, from a
        // client with an expired certificate, or of an authority removed since, would be accepted.
        config.ticketer = Arc::new(NoTickets);
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    config.max_early_data_size = 0;
    // Without the extended master secret an attacker can make two TLS 1.2 sessions have the same keys (RFC 7627 §1).
    config.require_ems = tls.require_ems;
    // `records` opens and seals with separate keys; see docs/internals/tls.md, "The record layer".
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(Logged);
    let theirs = Arc::new(config.clone());
    config.ignore_client_order = true;
    Ok(Serving {
        ours: Arc::new(config),
        theirs,
        checks_clients: !tls.client_ca.as_os_str().is_empty(),
        sessions: Arc::clone(&tickets.sessions),
        certified: Certified::all(identities).into(),
    })
}

/// rustls's suites, with AES-128 and SHA-256 first: CPUs have instructions for SHA-256 and not for SHA-384, which saves
/// an eighth of a full handshake, and both are secure.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_AES_256_GCM_SHA384 | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => 1,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 2,
        _ => 3,
    });
    provider
}

/// Certificates in the order of the config; the first is the default.
struct Certificates(Vec<(Vec<String>, Arc<CertifiedKey>)>);

impl Certificates {
    fn new(identities: &[Identity]) -> Result<Self, ServingError> {
        let certified = identities.iter().map(|identity| {
            let names = identity.dns_names.iter().map(|name| name.to_ascii_lowercase()).collect();
            let mut certified = CertifiedKey::new(identity.chain.clone(), Arc::clone(&identity.key));
            certified.ocsp = identity.staple.as_ref().map(|staple| staple.der.clone());
            (names, Arc::new(certified))
        });
        let certified: Vec<_> = certified.collect();
        if certified.is_empty() { Err(ServingError::Empty) } else { Ok(Self(certified)) }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(|(names, _)| names)).finish()
    }
}

impl ResolvesServerCert for Certificates {
    /// The first certificate for the name whose key the client can verify; without a name or for an unknown one, the
    /// first that it can verify; otherwise the default, so that the alert is about signatures.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wanted = hello.server_name().map(str::to_ascii_lowercase);
        let fits = |key: &CertifiedKey| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = |names: &[String]| {
            wanted.as_deref().is_some_and(|wanted| names.iter().any(|name| name_matches(name, wanted)))
        };
        let by_name = self.0.iter().find(|(names, key)| named(names) && fits(key));
        let by_key = || self.0.iter().find(|(_, key)| fits(key));
        let chosen = by_name.or_else(by_key).or_else(|| self.0.first()).map(|(_, key)| Arc::clone(key));
        ASKED_NAME.set(Some(wanted.map(String::into_boxed_str)));
        chosen
    }
}

thread_local! {
    /// The server name for which this thread has last chosen a certificate, until its handshake takes it. rustls gives
    /// the name to nothing else.
    static ASKED_NAME: Cell<Option<Option<Box<str>>>> = const { Cell::new(None) };
}

/// The server name in the ClientHello that rustls has just seen on this thread. Outer `None`: it has seen none.
pub(super) fn take_asked_name() -> Option<Option<Box<str>>> {
    ASKED_NAME.take()
}

/// Whether a certificate's name covers `wanted`; a leading `*` stands for one label (RFC 6125 §6.4.3).
fn name_matches(name: &str, wanted: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => {
            wanted.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
        }
        None => name == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::name_matches;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(name_matches("*.example.net", "dns.example.net"));
        assert!(!name_matches("*.example.net", "example.net"));
        assert!(!name_matches("*.example.net", "a.dns.example.net"));
        assert!(name_matches("dns.example.net", "dns.example.net"));
    }
}
