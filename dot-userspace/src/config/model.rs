//! The shape of `dotd.toml`: every key with its unit, without its checks.
//!
//! Before: `config::load` has the file's text. After: `config::range` and `config::consistency` check it.
//! Holds: the names of keys, which are the contract with operators; a name here is a name in the file.
//! Never: reads a file, opens a socket, or knows how a module uses its part.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    Access, Acme, BackendAddress, Discovery, Dnstap, Log, Misuse, Otlp, Policies, Sandbox, Session, Tenant,
    Xdp, duration,
};

/// The whole file. Modules get their own part, never the whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Process: workers, user, folders.
    pub server: Server,
    /// Addresses that dotd listens on.
    pub listen: Listen,
    /// Certificates, versions, tickets.
    pub tls: Tls,
    /// A certificate by ACME.
    pub acme: Acme,
    /// Which clients may ask.
    pub access: Access,
    /// Policy zones, which change answers.
    pub policy: Policies,
    /// Misuse by many queries, each of them valid.
    pub misuse: Misuse,
    /// Discovery of this resolver by clients.
    pub discovery: Discovery,
    /// Deadlines and caps of a DoT session.
    pub session: Session,
    /// Where queries go; empty means one embedded backend.
    pub backend: Vec<Backend>,
    /// Groups of clients with backends, a cache and a rate of their own.
    pub tenant: Vec<Tenant>,
    /// Choice among several backends.
    pub balance: Balance,
    /// Additions to messages, and the cache.
    pub dns: Dns,
    /// The kernel half.
    pub xdp: Xdp,
    /// Metrics and health over HTTP.
    pub control: Control,
    /// Copies of DNS messages for a dnstap reader.
    pub dnstap: Dnstap,
    /// Spans of traced clients for an OpenTelemetry collector.
    pub otlp: Otlp,
    /// Log level, form and privacy.
    pub log: Log,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Number of pinned worker threads: "auto" is one per usable core.
    pub workers: Workers,
    /// User to become after start; empty: dotd keeps its user.
    pub user: String,
    /// Self-signed certificate and ticket secret.
    pub state_dir: PathBuf,
    /// Holds `control.sock`.
    pub run_dir: PathBuf,
    /// What the kernel refuses to the engine.
    pub sandbox: Sandbox,
}

/// `server.workers`: "auto" or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One per core this process may use.
    Auto,
    /// This many.
    Count(u16),
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// DNS-over-TLS listeners.
    pub dot: Vec<SocketAddr>,
    /// Cleartext DNS listeners, UDP and TCP.
    pub do53: Vec<SocketAddr>,
    /// Accept octets with a SYN (TCP Fast Open).
    pub fast_open: bool,
    /// Prefixes whose hosts may send PROXY v2 headers.
    pub proxy_protocol_from: Vec<IpNet>,
}

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Chains and keys in PEM; empty: self-signed in `server.state_dir`.
    pub certificates: Vec<Certificate>,
    /// Each certificate must be usable, and valid now: at a start, at a reload, and to be ready for clients.
    pub strict: bool,
    /// Oldest version that dotd speaks.
    pub min_version: TlsVersion,
    /// TLS 1.2 only with the extended master secret.
    pub require_ems: bool,
    /// PEM file of authorities for mutual TLS; empty: off.
    pub client_ca: PathBuf,
    /// File with the ticket secret that nodes share; empty: a random key of this process.
    pub ticket_secret: PathBuf,
    /// Age at which the ticket key is replaced.
    #[serde(with = "duration")]
    pub ticket_rotation: Duration,
    /// The certificate by ACME, if `[acme]` is on.
    #[serde(skip)]
    pub by_acme: Option<Certificate>,
}

impl Tls {
    /// Every certificate: those of the file, and the one by ACME.
    pub fn entries(&self) -> impl Iterator<Item = &Certificate> {
        self.certificates.iter().chain(&self.by_acme)
    }
}

/// One entry of `tls.certificates`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM chain, leaf first.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
    /// OCSP response in DER, stapled; empty: none.
    #[serde(default)]
    pub ocsp: PathBuf,
}

/// `tls.min_version`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246) and newer.
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 (RFC 8446) only.
    #[serde(rename = "1.3")]
    V1_3,
}

/// One `[[backend]]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Socket address, a name and a port, or "embedded".
    pub address: BackendAddress,
    /// Its name in status, metrics and log lines; empty: its address.
    #[serde(default)]
    pub name: String,
    /// Transport of queries.
    #[serde(default)]
    pub transport: Transport,
    /// Tell it the client's address (PROXY protocol version 2).
    #[serde(default)]
    pub proxy_v2: bool,
    /// Name in its certificate, `transport = "tls"`.
    #[serde(default)]
    pub server_name: String,
    /// PEM file of the authorities for `server_name`; empty: the system's.
    #[serde(default)]
    pub ca: PathBuf,
    /// Base64 SHA-256 of its public key, `transport = "tls"`.
    #[serde(default)]
    pub spki_pins: Vec<String>,
    /// The identity that it must prove over TLS.
    #[serde(default)]
    pub profile: Profile,
    /// The treatment of queries when its TLS fails.
    #[serde(default)]
    pub on_tls_failure: OnTlsFailure,
    /// Address for cleartext if its TLS fails; empty: port 53 of the same host.
    #[serde(
        default,
        deserialize_with = "super::parse::optional_socket",
        serialize_with = "super::parse::socket_or_empty"
    )]
    pub cleartext_address: Option<SocketAddr>,
    /// Ask it which TLS server it designates, and use that one once it is verified.
    #[serde(default)]
    pub discover: bool,
    /// Time to wait for a response.
    #[serde(default = "Backend::default_timeout", with = "duration")]
    pub timeout: Duration,
    /// Most unanswered queries of one worker; 0: no cap of its own.
    #[serde(default)]
    pub outstanding_max: u16,
    /// Share among the backends.
    #[serde(default = "Backend::default_weight")]
    pub weight: u16,
    /// Permit cleartext to an address that is not loopback.
    #[serde(default)]
    pub allow_cleartext: bool,
}

impl Backend {
    /// The suffix of a backend's name that replaces another one in clear. No other name has it, because a name has no
    /// colon, and a port is a number.
    pub const IN_CLEAR: &str = ":clear";

    /// Address for cleartext if its TLS fails and the file permits that.
    #[must_use]
    pub fn in_clear(&self) -> Option<SocketAddr> {
        let BackendAddress::Socket(address) = self.address else { return None };
        // One that was discovered is configured to be asked in clear.
        let is_permitted = self.transport == Transport::Tls
            && self.on_tls_failure == OnTlsFailure::Cleartext
            && (self.discover || self.profile == Profile::Opportunistic && self.allow_cleartext);
        is_permitted.then(|| self.cleartext_address.unwrap_or(SocketAddr::new(address.ip(), 53)))
    }

    /// The name that its certificate must be valid for; that of its addresses, where nothing else proves it.
    #[must_use]
    pub fn proved_name(&self) -> &str {
        let is_proved = !self.server_name.is_empty() || !self.spki_pins.is_empty();
        match &self.address {
            BackendAddress::Named(host) if self.transport == Transport::Tls && !is_proved => &host.name,
            _ => &self.server_name,
        }
    }

    /// Its name in status, metrics and log lines.
    #[must_use]
    pub fn called(&self) -> String {
        match (self.name.as_str(), &self.address) {
            ("", BackendAddress::Embedded) => "embedded".to_owned(),
            ("", BackendAddress::Socket(address)) => address.to_string(),
            ("", BackendAddress::Named(host)) => host.to_string(),
            (name, _) => name.to_owned(),
        }
    }
}

/// `backend.transport`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// UDP; a response with TC=1 is asked for again over TCP.
    #[default]
    Udp,
    /// TCP.
    Tcp,
    /// DNS over TLS.
    Tls,
}

impl Transport {
    /// The word in the config, status and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// `backend.profile` (RFC 8310 §5)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Its name, its pins, or both are verified before a query is sent.
    #[default]
    Strict,
    /// TLS with any server at the address, if TLS works.
    Opportunistic,
}

/// `backend.on_tls_failure`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnTlsFailure {
    /// Try the next backend.
    #[default]
    Next,
    /// Try this one without TLS.
    Cleartext,
    /// Respond SERVFAIL.
    Refuse,
}

/// `[balance]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Balance {
    /// Which backend gets the next query.
    pub policy: Policy,
    /// How often each backend is checked, and how long it rests after it could not be reached.
    #[serde(with = "duration")]
    pub health_interval: Duration,
    /// Most second tries of late queries, in a hundred queries; 0: none.
    pub hedge_percent: u8,
    /// Resolvers that know the addresses of backends that have names.
    pub bootstrap: Vec<SocketAddr>,
    /// For this long after its last TLS a backend is not asked in clear.
    #[serde(with = "duration")]
    pub downgrade_window: Duration,
}

/// `balance.policy`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The one with the fewest unanswered queries per weight.
    LeastOutstanding,
    /// Each in turn.
    RoundRobin,
    /// By qname, so that each name stays with one backend.
    Hash,
    /// The first that is up.
    First,
}

/// `[dns]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Pad responses to padded queries (RFC 8467).
    pub padding: bool,
    /// Answer edns-tcp-keepalive (RFC 7828).
    pub keepalive: bool,
    /// The part of a client's subnet that backends learn (ECS, RFC 7871).
    pub client_subnet: ClientSubnet,
    /// Relay AXFR and IXFR; else they are refused.
    pub transfers: bool,
    /// Forward NOTIFY; else it is refused.
    pub notify: bool,
    /// Forward UPDATE; else it is refused.
    pub update: bool,
    /// Cached responses per worker; 0: no cache.
    pub cache_entries: u32,
    /// Shortest time for which an answer is cached.
    #[serde(with = "duration")]
    pub cache_ttl_min: Duration,
    /// Longest time for which an answer is cached.
    #[serde(with = "duration")]
    pub cache_ttl_max: Duration,
    /// Longest time for which a negative answer is cached.
    #[serde(with = "duration")]
    pub cache_negative_ttl_max: Duration,
    /// How long after the end of its lifetime an answer is used while no backend gives a newer one.
    #[serde(with = "duration")]
    pub cache_stale: Duration,
}

/// `dns.client_subnet`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientSubnet {
    /// The option of the client's query, and none if it has none.
    #[default]
    Pass,
    /// No option.
    Strip,
    /// The client's /24 or /56, unless its query has an option.
    Add,
}

/// `[control]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Address for metrics, health and the page; absent or empty: none.
    #[serde(
        deserialize_with = "super::parse::optional_socket",
        serialize_with = "super::parse::socket_or_empty"
    )]
    pub http: Option<SocketAddr>,
    /// Rights to read the page there.
    pub page: Page,
    /// Host names with which browsers may ask for the page, beside addresses and "localhost".
    pub page_hosts: Vec<String>,
}

/// `control.page`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Page {
    /// There is no page.
    Off,
    /// For requests with the token.
    #[default]
    Token,
    /// For every client that reaches `control.http`; actions need the token.
    Open,
}
