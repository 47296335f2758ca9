//! The shape of `[otlp]` in `dotd.toml`: whose connections and queries become spans of an OpenTelemetry collector.
//!
//! Before: `config::load` has the file's text. After: `start::otlp` exports by it.
//! Never: holds a default (`config::defaults` does).

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// `[otlp]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// The collector; empty: none.
    #[serde(deserialize_with = "optional_endpoint", serialize_with = "endpoint_or_empty")]
    pub endpoint: Option<OtlpEndpoint>,
    /// Permit an endpoint that is not loopback: spans leave in clear.
    pub allow_cleartext: bool,
    /// The clients whose connections and queries become spans.
    pub clients: Vec<IpNet>,
    /// One of so many connections.
    pub sample: u32,
    /// Whether spans hold the names that are asked for.
    pub names: bool,
    /// The name of this dotd (`service.name`).
    pub service_name: String,
    /// The EDNS option that gives backends trace and span; 0: none.
    pub traceparent_option: u16,
    /// Whether histograms of queries in `/metrics` name the trace of a query in each bucket.
    pub exemplars: bool,
}

/// Where spans go: OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpEndpoint {
    /// The collector's address.
    pub address: SocketAddr,
    /// The path, such as "/v1/traces".
    pub path: String,
}

impl OtlpEndpoint {
    /// Reads "http://ADDRESS:PORT/PATH".
    fn parse(text: &str) -> Option<Self> {
        let (address, path) = text.strip_prefix("http://")?.split_once('/')?;
        let is_plain = |octet: u8| octet.is_ascii_graphic();
        path.bytes().all(is_plain).then_some(())?;
        Some(Self { address: address.parse().ok()?, path: format!("/{path}") })
    }
}

impl std::fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

/// The inverse of [`optional_endpoint`].
///
/// # Errors
/// The serializer's.
fn endpoint_or_empty<S: Serializer>(
    endpoint: &Option<OtlpEndpoint>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&endpoint.as_ref().map(ToString::to_string).unwrap_or_default())
}

/// An endpoint, or an empty string for none.
///
/// # Errors
/// Anything that is neither.
fn optional_endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OtlpEndpoint>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || format!("\"{text}\" is no endpoint; write \"http://127.0.0.1:4318/v1/traces\"");
    OtlpEndpoint::parse(&text).map(Some).ok_or_else(|| D::Error::custom(wrong()))
}
