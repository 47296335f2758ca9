//! What `GET /status` says: the whole of dotd as an operator wants to see it first.
//!
//! Before: `start` fills it from what runs. After: JSON on the control socket, text in `dotd status`.
//! Never: holds a counter (`ledger::Snapshot` does) or a secret.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{tls::certificate::Identity, xdp};

/// The running process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of dotd.
    pub version: String,
    /// Its main process, the keeper: signals are for it.
    pub pid: u32,
    /// The process that serves.
    #[serde(default)]
    pub engine_pid: u32,
    /// Whether it takes new connections.
    pub state: State,
    /// Seconds since it was ready.
    pub uptime_seconds: u64,
    /// Worker threads.
    pub workers: usize,
    /// Where it listens.
    pub listeners: Vec<ListenerStatus>,
    /// Where queries go.
    pub backends: Vec<BackendStatus>,
    /// SERVFAIL in a hundred responses to clients, in the last ten seconds; absent where few were written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servfail_percent: Option<u8>,
    /// What it presents to clients.
    pub certificates: Vec<CertificateStatus>,
    /// Who may ask, in a line; absent: every client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
    /// Policy zones, in the order in which they are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<PolicyStatus>,
    /// The kernel half.
    pub xdp: xdp::Report,
}

/// One policy zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// "rpz", "hosts" or "domains".
    pub format: String,
    /// What its rules do: "given", or what the config says.
    pub action: String,
    /// "enforce" or "count".
    pub mode: String,
    /// How many rules it has.
    pub rules: u64,
    /// Lines that a front end cannot hold, such as rules about name servers.
    pub left_out: u32,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_left_out: Option<String>,
    /// Serial number of its SOA record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<u32>,
    /// Since when it is as it is.
    pub age_seconds: u64,
    /// How long it took to read.
    pub read_milliseconds: u64,
    /// Memory that it takes.
    pub octets: u64,
    /// Why its newer file cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Whether dotd takes new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does.
    Serving,
    /// It finishes its sessions, then stops.
    Draining,
}

/// One listening address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Where.
    pub address: SocketAddr,
    /// "dot" or "do53".
    pub transport: String,
    /// TCP Fast Open: "on", or "off" and why; absent where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_open: Option<String>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// What the config calls it; its address where it has no name.
    #[serde(default)]
    pub name: String,
    /// "embedded" or its address.
    pub address: String,
    /// "embedded", "udp", "tcp" or "tls".
    pub transport: String,
    /// "up", "down", or "unchecked" until the first result; "failing" where it is up, and half of its answers or more are
    /// SERVFAIL.
    pub state: String,
    /// Why the last check was missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many of a hundred queries it answered between its last two checks; absent where few were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_percent: Option<u8>,
    /// SERVFAIL in a hundred of its answers, in the last ten seconds; absent where few came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servfail_percent: Option<u8>,
    /// Messages of it that matched no query or check; absent where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmatched: Option<UnmatchedStatus>,
}

/// What a backend sent that nobody could use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmatchedStatus {
    /// How many messages.
    pub count: u64,
    /// What was wrong with the last one.
    pub last: String,
}

/// One certificate that clients may get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Its file, or "self-signed".
    pub name: String,
    /// Base64 of SHA-256 over its SubjectPublicKeyInfo.
    pub spki_pin: String,
    /// End of its validity, seconds since 1970.
    pub not_after_unix: u64,
    /// Whether an OCSP response goes with it to clients that ask for one.
    pub is_stapled: bool,
    /// Names it is good for.
    pub dns_names: Vec<String>,
    /// What is doubtful about it.
    pub warnings: Vec<String>,
}

impl CertificateStatus {
    /// Seconds until its end, negative once that is past.
    #[must_use]
    pub fn expires_in_seconds(&self, now: SystemTime) -> i64 {
        let signed = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        signed(self.not_after_unix) - signed(unix_seconds(now))
    }
}

impl From<&Identity> for CertificateStatus {
    fn from(identity: &Identity) -> Self {
        Self {
            name: identity.name.clone(),
            spki_pin: identity.spki_pin.clone(),
            not_after_unix: unix_seconds(identity.not_after),
            is_stapled: identity.staple.is_some(),
            dns_names: identity.dns_names.clone(),
            warnings: identity.warnings.clone(),
        }
    }
}

/// Seconds since 1970; 0 for anything before.
fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
