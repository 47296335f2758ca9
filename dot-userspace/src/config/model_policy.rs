//! The shape of `[policy]` in `dotd.toml`: zones whose rules change the answers for names and addresses.
//!
//! Before: `config::load` has the file's text. After: `config::consistency_policy`, then only the `policy` module.
//! Never: reads a zone.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::LimitMode;

/// `[policy]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policies {
    /// The zones. The first one with a rule for a query decides.
    pub zone: Vec<PolicyZone>,
}

/// One `[[policy.zone]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyZone {
    /// Its name: the origin of an RPZ file, and its name for clients and operators.
    pub name: String,
    /// The file with its rules; empty: they come from `primary`.
    #[serde(default)]
    pub file: PathBuf,
    /// The servers that it is transferred from; the first that has it is used.
    #[serde(default)]
    pub primary: Vec<PolicyPrimary>,
    /// The format of the file.
    #[serde(default)]
    pub format: PolicyFormat,
    /// The action of its rules.
    #[serde(default)]
    pub action: PolicyAction,
    /// Whether rules are applied, or only counted.
    #[serde(default = "PolicyZone::default_mode")]
    pub mode: LimitMode,
    /// Whether signed answers are replaced also for clients that ask for signatures (DO).
    #[serde(default = "PolicyZone::default_break_dnssec")]
    pub break_dnssec: bool,
    /// The extended error in the answer.
    #[serde(default)]
    pub ede: PolicyEde,
    /// The tenants whose clients it is for; empty: all clients.
    #[serde(default)]
    pub tenants: Vec<String>,
}

/// One `[[policy.zone.primary]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyPrimary {
    /// Its socket address.
    pub address: SocketAddr,
    /// The transport of transfers.
    #[serde(default)]
    pub transport: TransferTransport,
    /// Name in its certificate, `transport = "tls"`.
    #[serde(default)]
    pub server_name: String,
    /// PEM file of the authorities for `server_name`; empty: the system's.
    #[serde(default)]
    pub ca: PathBuf,
    /// Base64 SHA-256 of its public key, `transport = "tls"`.
    #[serde(default)]
    pub spki_pins: Vec<String>,
    /// File with the key that signs messages (TSIG); empty: none.
    #[serde(default)]
    pub tsig: PathBuf,
    /// Permit a transfer that neither TLS nor a key protects.
    #[serde(default)]
    pub allow_unsigned: bool,
}

/// `policy.zone.primary.transport`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferTransport {
    /// TCP.
    #[default]
    Tcp,
    /// TLS (RFC 9103).
    Tls,
}

impl TransferTransport {
    /// The word in the config and status.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// `policy.zone.format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyFormat {
    /// A response policy zone.
    #[default]
    Rpz,
    /// Lines of an address and names, as in /etc/hosts.
    Hosts,
    /// One domain on each line.
    Domains,
}

impl PolicyFormat {
    /// The word in the config and status.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Rpz => "rpz",
            Self::Hosts => "hosts",
            Self::Domains => "domains",
        }
    }
}

/// `policy.zone.action`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PolicyAction {
    /// The action in the rule.
    #[default]
    Given,
    /// NXDOMAIN.
    NxDomain,
    /// NODATA.
    NoData,
    /// No answer.
    Drop,
    /// The answer unchanged.
    Passthru,
    /// TC=1 over UDP; over connections the answer unchanged.
    TcpOnly,
    /// An alias for this name.
    Cname(String),
}

impl PolicyAction {
    /// The word in the config and status.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Given => "given".to_owned(),
            Self::NxDomain => "nxdomain".to_owned(),
            Self::NoData => "nodata".to_owned(),
            Self::Drop => "drop".to_owned(),
            Self::Passthru => "passthru".to_owned(),
            Self::TcpOnly => "tcp-only".to_owned(),
            Self::Cname(name) => format!("cname {name}"),
        }
    }
}

impl Serialize for PolicyAction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.label())
    }
}

impl<'de> Deserialize<'de> for PolicyAction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "given" => Self::Given,
            "nxdomain" => Self::NxDomain,
            "nodata" => Self::NoData,
            "drop" => Self::Drop,
            "passthru" => Self::Passthru,
            "tcp-only" => Self::TcpOnly,
            other => match other.strip_prefix("cname ").map(str::trim) {
                Some(name) if !name.is_empty() => Self::Cname(name.to_owned()),
                _ => {
                    return Err(D::Error::custom(format!(
                        "\"{text}\" is not an action; write \"given\", \"nxdomain\", \"nodata\", \"drop\", \"passthru\", \
                         \"tcp-only\" or \"cname NAME\""
                    )));
                }
            },
        })
    }
}

/// `policy.zone.ede`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyEde {
    /// 15: the operator of the resolver blocks it.
    #[default]
    Blocked,
    /// 16: an external party demands that it is blocked.
    Censored,
    /// 17: the client asked for it to be blocked.
    Filtered,
    /// None.
    None,
}

impl PolicyEde {
    /// INFO-CODE (RFC 8914 §4.16 to §4.18).
    #[must_use]
    pub const fn code(self) -> Option<u16> {
        match self {
            Self::Blocked => Some(15),
            Self::Censored => Some(16),
            Self::Filtered => Some(17),
            Self::None => None,
        }
    }
}

impl PolicyZone {
    /// Whether it comes from primary servers.
    #[must_use]
    pub fn is_transferred(&self) -> bool {
        !self.primary.is_empty()
    }

    pub(super) fn default_mode() -> LimitMode {
        LimitMode::Enforce
    }

    pub(super) fn default_break_dnssec() -> bool {
        true
    }
}
