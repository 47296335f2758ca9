//! TLS towards a server of the web: the directory of a certificate authority.
//!
//! Before: a TCP connection and the server's name. After: a stream to the verified server, or an error.
//! Holds: the roots. Never: accepts a certificate that they do not lead to; speaks TLS below 1.2.
//!
//! Source: RFC 8555 §6.1 (HTTPS), RFC 9325.

use std::{io, net::IpAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs as provider,
    version::{TLS12, TLS13},
};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::certificate::pem;

/// A connection within TLS.
pub type WebStream = TlsStream<TcpStream>;

/// Makes handshakes with servers of the web.
#[derive(Clone)]
pub struct WebTls(TlsConnector);

impl WebTls {
    /// By the authorities in a PEM text, or by the system's.
    ///
    /// # Errors
    /// The text has none, or this system has none.
    pub fn by(ca: Option<&str>) -> Result<Self, String> {
        let provider = Arc::new(provider::default_provider());
        let roots = Arc::new(roots(ca)?);
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]);
        let builder = builder.map_err(|error| error.to_string())?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Makes the handshake with `host`, a name or an address.
    ///
    /// # Errors
    /// The server does not speak TLS, or has another name or authority.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect(&self, host: &str, tcp: TcpStream) -> io::Result<WebStream> {
        let name = match host.parse::<IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        self.0.connect(name, tcp).await
    }
}

fn roots(ca: Option<&str>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(text) => {
            let chain =
                pem::chain(Path::new("acme.ca"), text.as_bytes()).map_err(|error| error.to_string())?;
            for authority in chain {
                roots
                    .add(authority)
                    .map_err(|error| format!("acme.ca: no authority for servers: {error}"))?;
            }
        }
        // One of the system's that cannot be used does not matter: there are some hundred.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if roots.is_empty() {
        return Err("acme.ca: this system has no certificate authorities; install ca-certificates, or name a PEM file".into());
    }
    Ok(roots)
}
