//! Opens TLS sessions the way real stub resolvers do: one ticket cache for each client.
//!
//! Before: options. After: `connection` has a stream, and knows whether its handshake was resumed.
//! Never: retries; the caller counts errors.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use dot_tests::harness::any_certificate::AnyCertificate;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::options::{Options, TlsVersion};

/// Source addresses begin here: beside other programs on 127.0.0.x.
const SOURCE_BASE: u32 = u32::from_be_bytes([127, 0, 1, 0]);
/// Tickets a client keeps: rustls servers send two at a time, others up to four.
const TICKETS_MAX: usize = 8;

/// Makes clients.
#[derive(Clone, Debug)]
pub struct Clients {
    config: ClientConfig,
    name: ServerName<'static>,
    server: SocketAddr,
    sources: u32,
    source_base: u32,
    is_resuming: bool,
}

/// One client: its ticket cache and its address outlive its connections.
pub struct Client {
    connector: TlsConnector,
    name: ServerName<'static>,
    server: SocketAddr,
    source: Option<Ipv4Addr>,
}

impl Clients {
    /// Checks and keeps the configuration that all clients share.
    ///
    /// # Errors
    /// A certificate file that cannot be read, or options that contradict each other.
    pub fn new(options: &Options) -> Result<Self> {
        if options.sources > 0 && options.source_base.is_none() && !is_v4_loopback(options.server.ip()) {
            bail!(
                "--sources needs a server in 127.0.0.0/8, or --source-base; {} is elsewhere",
                options.server.ip()
            );
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions: &[&rustls::SupportedProtocolVersion] = match options.tls {
            TlsVersion::V1_2 => &[&rustls::version::TLS12],
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
            TlsVersion::Any => rustls::ALL_VERSIONS,
        };
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let mut config = match &options.ca {
            Some(path) => builder.with_root_certificates(authorities(path)?).with_no_client_auth(),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth(),
        };
        config.alpn_protocols = if options.no_alpn { Vec::new() } else { vec![b"dot".to_vec()] };
        config.enable_sni = !options.no_sni;
        config.resumption = Resumption::disabled();
        let source_base = options.source_base.map_or(SOURCE_BASE, u32::from);
        let is_resuming = !options.no_resumption;
        let name = ServerName::try_from(options.server_name.clone())
            .with_context(|| format!("--server-name {} is no host name", options.server_name))?;
        Ok(Self { config, name, server: options.server, sources: options.sources, source_base, is_resuming })
    }

    /// The client with this number.
    #[must_use]
    pub fn client(&self, number: u32) -> Client {
        let mut config = self.config.clone();
        if self.is_resuming {
            // A store of its own: clones share theirs.
            config.resumption = Resumption::in_memory_sessions(TICKETS_MAX);
        }
        Client {
            connector: TlsConnector::from(Arc::new(config)),
            name: self.name.clone(),
            server: self.server,
            source: number
                .checked_rem(self.sources)
                .map(|offset| Ipv4Addr::from(self.source_base.wrapping_add(offset))),
        }
    }
}

impl Client {
    /// Connects and completes the handshake.
    ///
    /// # Errors
    /// The error of the network or of TLS.
    pub async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = if self.server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source.into(), 0))?;
        }
        socket.set_nodelay(true)?;
        let stream = socket.connect(self.server).await?;
        self.connector.connect(self.name.clone(), stream).await
    }
}

fn is_v4_loopback(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_loopback())
}

fn authorities(path: &std::path::Path) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).with_context(|| format!("cannot read {}", path.display()))?;
    for certificate in certificates {
        store.add(certificate.with_context(|| format!("{} is no PEM", path.display()))?)?;
    }
    if store.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(store)
}
