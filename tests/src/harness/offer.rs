//! What a client offers in its handshake.
//!
//! Before: a test describes how its client differs from a usual one. After: a handshake of rustls, not yet started.
//! Never: touches a socket.

use std::{io::Write as _, net::IpAddr, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, NamedGroup,
    client::{Resumption, Tls12Resumption},
    crypto::aws_lc_rs,
    pki_types::ServerName,
};

use super::{any_certificate::AnyCertificate, sealer::Secrets};

/// What the client offers.
#[derive(Clone, Debug)]
pub struct Offer {
    /// ALPN names, in order; empty: no extension.
    pub alpn: Vec<Vec<u8>>,
    /// SNI.
    pub server_name: Option<&'static str>,
    /// Only TLS 1.2.
    pub is_tls12: bool,
    /// Octets that are sent in the same write as the end of the handshake.
    pub first: Vec<u8>,
    /// The one group to offer; `None`: all groups of rustls.
    pub group: Option<NamedGroup>,
    /// How connections that resume each other's sessions are configured; `None`: the connection has a configuration of
    /// its own.
    pub config: Option<Arc<ClientConfig>>,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            alpn: vec![b"dot".to_vec()],
            server_name: None,
            is_tls12: false,
            group: None,
            first: Vec::new(),
            config: None,
        }
    }
}

/// A handshake with this offer, not yet started, and the place where its secrets will appear.
///
/// # Panics
/// When rustls refuses the offer.
pub(super) fn connection(server: IpAddr, offer: &Offer) -> (ClientConnection, Arc<Secrets>) {
    let secrets = Arc::new(Secrets::default());
    let name = offer
        .server_name
        .map_or_else(|| ServerName::from(server), |name| ServerName::try_from(name).expect("a host name"));
    let of_its_own = || Arc::new(configured(offer, &secrets));
    let config = offer.config.clone().unwrap_or_else(of_its_own);
    let mut tls = ClientConnection::new(config, name).expect("an offer that rustls can make");
    tls.writer().write_all(&offer.first).expect("rustls keeps it until it may be sent");
    (tls, secrets)
}

/// A configuration for connections in TLS 1.2 that resume each other's sessions by their IDs, without tickets.
#[must_use]
pub fn resuming_by_id() -> Arc<ClientConfig> {
    let mut config = client_config(&Offer { is_tls12: true, ..Offer::default() });
    config.resumption = Resumption::in_memory_sessions(8).tls12_resumption(Tls12Resumption::SessionIdOnly);
    Arc::new(config)
}

fn configured(offer: &Offer, secrets: &Arc<Secrets>) -> ClientConfig {
    let mut config = client_config(offer);
    config.alpn_protocols.clone_from(&offer.alpn);
    config.enable_sni = offer.server_name.is_some();
    config.enable_secret_extraction = true;
    config.key_log = Arc::clone(secrets) as _;
    config
}

fn client_config(offer: &Offer) -> ClientConfig {
    let mut provider = aws_lc_rs::default_provider();
    if let Some(only) = offer.group {
        provider.kx_groups.retain(|group| group.name() == only);
    }
    let provider = Arc::new(provider);
    let versions: &[_] = if offer.is_tls12 { &[&rustls::version::TLS12] } else { rustls::ALL_VERSIONS };
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("versions that the provider has")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth()
}
