//! The shape of `[acme]` in `dotd.toml`: the authority that issues dotd's certificate by ACME (RFC 8555), for which names, and how
//! dotd proves them.
//!
//! Before: `config::load` has the file's text. After: `config::consistency_acme`, then `keeper` runs the ACME client by it.
//! Never: holds a key: those of the account and of the certificate are in `server.state_dir`, others in files that this names.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Certificate;

/// `[acme]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Acme {
    /// "letsencrypt", "letsencrypt-staging" or the https URL of another authority's directory; empty: off.
    pub directory: String,
    /// The operator has read and accepts the authority's terms.
    pub accept_terms: bool,
    /// Mail addresses to which the authority may write.
    pub contact: Vec<String>,
    /// The key identifier of an account at the authority's site to which a new ACME account is bound (RFC 8555 §7.3.4); empty: none.
    pub eab_kid: String,
    /// File with the MAC key that belongs to it.
    pub eab_key: PathBuf,
    /// Names and addresses of the certificate.
    pub names: Vec<String>,
    /// How dotd proves that they are its own.
    pub challenge: AcmeChallenge,
    /// Where the authority asks for `http-01`.
    pub http_listen: Vec<SocketAddr>,
    /// The kind of certificate, of those that the authority offers; empty: its default.
    pub profile: String,
    /// A renewal keeps the key, and so the pin.
    pub reuse_key: bool,
    /// PEM file of the authorities for the directory's own certificate; empty: the system's.
    pub ca: PathBuf,
    /// The server that takes the record of `dns-01` by UPDATE (RFC 2136); empty: dotd answers itself.
    #[serde(
        deserialize_with = "super::parse::optional_socket",
        serialize_with = "super::parse::socket_or_empty"
    )]
    pub update_server: Option<SocketAddr>,
    /// The zone there that has the record.
    pub update_zone: String,
    /// File with the TSIG key for it.
    pub update_tsig: PathBuf,
}

/// `acme.challenge`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum AcmeChallenge {
    /// A file over HTTP at port 80 of the name (RFC 8555 §8.3).
    #[default]
    #[serde(rename = "http-01")]
    Http,
    /// A TXT record below the name (RFC 8555 §8.4).
    #[serde(rename = "dns-01")]
    Dns,
}

impl AcmeChallenge {
    /// Its name in the config and in RFC 8555.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Http => "http-01",
            Self::Dns => "dns-01",
        }
    }
}

impl Default for Acme {
    fn default() -> Self {
        let any = |host: IpAddr| SocketAddr::new(host, HTTP_PORT);
        Self {
            directory: String::new(),
            accept_terms: false,
            contact: Vec::new(),
            eab_kid: String::new(),
            eab_key: PathBuf::new(),
            names: Vec::new(),
            challenge: AcmeChallenge::default(),
            http_listen: vec![any(Ipv4Addr::UNSPECIFIED.into()), any(Ipv6Addr::UNSPECIFIED.into())],
            profile: String::new(),
            reuse_key: false,
            ca: PathBuf::new(),
            update_server: None,
            update_zone: String::new(),
            update_tsig: PathBuf::new(),
        }
    }
}

impl Acme {
    /// Whether dotd gets a certificate by ACME.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.directory.is_empty()
    }

    /// The URL of the directory.
    #[must_use]
    pub fn directory_url(&self) -> &str {
        match self.directory.as_str() {
            "letsencrypt" => "https://acme-v02.api.letsencrypt.org/directory",
            "letsencrypt-staging" => "https://acme-staging-v02.api.letsencrypt.org/directory",
            url => url,
        }
    }

    /// The addresses that dotd must listen on for it.
    #[must_use]
    pub fn listens(&self) -> &[SocketAddr] {
        if self.is_on() && self.challenge == AcmeChallenge::Http { &self.http_listen } else { &[] }
    }

    /// Whether dotd itself answers questions for the record of `dns-01`.
    #[must_use]
    pub fn answers_dns(&self) -> bool {
        self.is_on() && self.challenge == AcmeChallenge::Dns && self.update_server.is_none()
    }

    /// Its folder.
    #[must_use]
    pub fn folder(state_dir: &Path) -> PathBuf {
        state_dir.join("acme")
    }

    /// The entry of its certificate.
    #[must_use]
    pub fn entry(&self, state_dir: &Path) -> Option<Certificate> {
        let file = Self::folder(state_dir).join(ACME_CERTIFICATE);
        self.is_on().then(|| Certificate { cert: file.clone(), key: file, ocsp: PathBuf::new() })
    }
}

/// The file with key and chain, in the folder.
pub const ACME_CERTIFICATE: &str = "certificate.pem";
/// RFC 8555 §8.3: the authority asks there, and at no other port.
const HTTP_PORT: u16 = 80;
