//! A handshake with a server for diagnosis: records everything that the server shows, and whether its identity is
//! proved.
//!
//! Before: `cli::query` has a TCP connection, or `cli::check` one to a backend whose handshake failed.
//! After: a stream, and facts for an operator: version, suite, group, ALPN, tickets, chain, verdicts.
//! Why not `backend_tls`: a handshake that fails at a wrong certificate does not show that certificate. Here it is
//! judged after the handshake, and a caller with a strict profile sends nothing if [`Shown::is_authentic`] is false.
//! Never: carries a client's query, offers early data, or accepts TLS below 1.2.
//!
//! Source: RFC 8310 §5 and §8 (profiles, names and pins), RFC 7858 §4.2, RFC 8446 §4.6.1 (tickets).

use std::{
    io,
    net::{IpAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    ClientConfig, ClientConnection, Error as TlsError, HandshakeKind, ProtocolVersion, StreamOwned,
    SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs as provider},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::{
    backend_tls::{Conditions, authorities, pin},
    certificate::{CertificateFacts, facts, pem},
    server_verifier::{Rule, ServerVerifier},
};
use crate::config::TlsVersion;

/// The required identity of a server, and the client's parameters.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The address of the server, used as its name if it has none.
    pub address: IpAddr,
    /// Name that its certificate must be valid for.
    pub name: Option<String>,
    /// Base64 SHA-256 of the public key that it must have; one of them must match.
    pub pins: Vec<String>,
    /// PEM file of the authorities for the name; empty: the system's.
    pub ca: PathBuf,
    /// Name in the ClientHello, if it is another; empty: no SNI is sent.
    pub sni: Option<String>,
    /// ALPN names, the preferred one first; empty: the extension is not sent.
    pub alpn: Vec<String>,
    /// The only version that is offered; `None`: both.
    pub version: Option<TlsVersion>,
    /// PEM files of the client's own certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Makes handshakes with one server; tickets of one are offered by the next.
pub struct Inquiry {
    config: Arc<ClientConfig>,
    sni: ServerName<'static>,
    conditions: Conditions,
    name: ServerName<'static>,
}

/// A connection over TLS, for blocking reads and writes.
pub type InquiryStream = StreamOwned<ClientConnection, TcpStream>;

/// The parameters and identity that a handshake showed.
#[derive(Clone, Debug)]
pub struct Shown {
    /// "TLS 1.3" or "TLS 1.2".
    pub version: &'static str,
    /// Cipher suite by its IANA name.
    pub suite: String,
    /// Key exchange group. `None`: a TLS 1.2 session was resumed.
    pub group: Option<String>,
    /// The ALPN name that the server chose.
    pub alpn: Option<String>,
    /// "full", "full after HelloRetryRequest" or "resumed".
    pub handshake: &'static str,
    /// Leaf first; after a resumption, those of the full handshake.
    pub chain: Vec<CertificateFacts>,
    /// Whether its chain and name are right. `None`: no name was required.
    pub by_name: Option<Result<(), String>>,
    /// Whether its key has a pin. `None`: no pin was required.
    pub by_pin: Option<Result<(), String>>,
}

impl Shown {
    /// Whether every requirement is met, and there was one.
    #[must_use]
    pub fn is_authentic(&self) -> bool {
        let verdicts = [&self.by_name, &self.by_pin];
        verdicts.iter().any(|verdict| verdict.is_some())
            && verdicts.iter().all(|verdict| verdict.as_ref().is_none_or(Result::is_ok))
    }
}

impl Inquiry {
    /// Reads the files that `wanted` names.
    ///
    /// # Errors
    /// One line: a file cannot be read, or a name or a pin is invalid.
    pub fn new(wanted: &Wanted) -> Result<Self, String> {
        let provider = Arc::new(provider::default_provider());
        let named = wanted.name.as_ref().map(|_| authorities(&wanted.ca, Arc::clone(&provider)));
        let pins = wanted.pins.iter().map(|text| {
            pin(text).ok_or_else(|| {
                format!("\"{text}\" is not a pin: use Base64 of 32 octets, as `dotd pin` prints")
            })
        });
        let pins = pins.collect::<Result<_, _>>()?;
        let conditions = Conditions::new(named.transpose()?, pins);
        let host = |text: &str| {
            ServerName::try_from(text.to_owned()).map_err(|_| format!("\"{text}\" is not the name of a host"))
        };
        let own = ServerName::from(wanted.address);
        let name = wanted.name.as_deref().map_or_else(|| Ok(own.clone()), host)?;
        let sni = match wanted.sni.as_deref() {
            None => name.clone(),
            // An address as a name means no SNI.
            Some("") => own,
            Some(text) => host(text)?,
        };
        let config = client_config(wanted, provider)?;
        Ok(Self { config: Arc::new(config), sni, conditions, name })
    }

    /// Makes the handshake over a connection whose timeouts the caller has set.
    ///
    /// # Errors
    /// No TLS, an alert, a signature that is wrong, or the connection's end.
    pub fn connect(&self, mut tcp: TcpStream) -> io::Result<(InquiryStream, Shown)> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.sni.clone());
        let mut connection = connection.map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        let shown = self.shown(&connection);
        Ok((StreamOwned::new(connection, tcp), shown))
    }

    fn shown(&self, connection: &ClientConnection) -> Shown {
        let chain = connection.peer_certificates().unwrap_or_default();
        let (by_name, by_pin) = match chain.split_first() {
            Some((leaf, rest)) => self.conditions.verdicts(leaf, rest, &self.name, UnixTime::now()),
            None => (None, None),
        };
        Shown {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
                _ => "TLS 1.3",
            },
            suite: connection.negotiated_cipher_suite().map_or_else(String::new, |suite| {
                suite.suite().as_str().map_or_else(|| format!("{:?}", suite.suite()), str::to_owned)
            }),
            group: connection.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name())),
            alpn: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            handshake: match connection.handshake_kind() {
                Some(HandshakeKind::Resumed) => "resumed",
                Some(HandshakeKind::FullWithHelloRetryRequest) => "full after HelloRetryRequest",
                _ => "full",
            },
            chain: chain.iter().map(|der| facts(der, SystemTime::now())).collect(),
            by_name: by_name.map(|verdict| verdict.map_err(|error| in_words(&error))),
            by_pin: by_pin.map(|verdict| verdict.map_err(|error| in_words(&error))),
        }
    }
}

/// The reason of rustls, without the words that every reason begins with.
fn in_words(error: &TlsError) -> String {
    let text = error.to_string();
    let begins = ["invalid peer certificate: ", "unexpected error: "];
    begins.iter().find_map(|begin| text.strip_prefix(begin)).unwrap_or(&text).to_owned()
}

fn client_config(wanted: &Wanted, provider: Arc<CryptoProvider>) -> Result<ClientConfig, String> {
    const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    let versions = match wanted.version {
        None => BOTH,
        Some(TlsVersion::V1_3) => &BOTH[..1],
        Some(TlsVersion::V1_2) => &BOTH[1..],
    };
    let looks_later = ServerVerifier::new(LooksLater, Arc::clone(&provider));
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(looks_later));
    let mut config = match &wanted.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let (chain, key) = identity(cert, key).map_err(|error| error.to_string())?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("{}: {error}", cert.display()))?
        }
    };
    config.alpn_protocols = wanted.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    Ok(config)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(cert: &Path, key: &Path) -> Result<Identity, super::certificate::CertificateError> {
    let chain = pem::chain(cert, &pem::read(cert)?)?;
    let key = pem::key(key, &pem::read(key)?)?;
    Ok((chain, key))
}

/// Accepts every certificate: [`Inquiry::shown`] judges it after the handshake.
#[derive(Debug)]
struct LooksLater;

impl Rule for LooksLater {
    fn judge(
        &self,
        _leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _now: UnixTime,
    ) -> Result<(), TlsError> {
        Ok(())
    }
}
