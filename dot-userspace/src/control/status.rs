//! The content of `GET /status`: dotd as a whole, in the form that an operator needs first.
//!
//! Before: `start` fills it from the running process. After: JSON on the control socket, text in `dotd status`.
//! Never: holds a counter (`ledger::Snapshot` does) or a secret.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{DrainStatus, OffStatus, TlsRow, UnusableCertificate};
use crate::{acme::Standing, tls::certificate::Identity, xdp};

/// The running process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of dotd.
    pub version: String,
    /// Its main process, the keeper: signals are for it.
    pub pid: u32,
    /// The process that serves clients.
    #[serde(default)]
    pub engine_pid: u32,
    /// Whether dotd takes new connections.
    pub state: State,
    /// Set while an operator has told load balancers to send no new clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStatus>,
    /// Set while an operator has switched DNS over TLS off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off: Option<OffStatus>,
    /// Seconds since dotd was ready.
    pub uptime_seconds: u64,
    /// Worker threads.
    pub workers: usize,
    /// The listen addresses.
    pub listeners: Vec<ListenerStatus>,
    /// The backends.
    pub backends: Vec<BackendStatus>,
    /// Percentage of SERVFAIL in responses to clients of the last ten seconds; absent if there were few responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servfail_percent: Option<u8>,
    /// The certificates for clients.
    pub certificates: Vec<CertificateStatus>,
    /// Certificates whose files cannot be used, or that are not valid now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unusable_certificates: Vec<UnusableCertificate>,
    /// `tls.strict`: with one of these, dotd is not ready for clients.
    #[serde(default)]
    pub is_strict: bool,
    /// The certificate by ACME; absent: `[acme]` is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme: Option<Standing>,
    /// The clients that may ask, in a line; absent: every client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
    /// Groups of clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<TenantStatus>,
    /// Policy zones, in the order in which they are applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<PolicyStatus>,
    /// The reader of message copies; absent: there is none configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dnstap: Option<DnstapStatus>,
    /// Where spans of traced clients go; absent: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otlp: Option<OtlpStatus>,
    /// The kernel half.
    pub xdp: xdp::Report,
}

/// A dnstap reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnstapStatus {
    /// Its socket or address.
    pub reader: String,
    /// Whether it is connected.
    pub is_connected: bool,
    /// Messages written to readers since dotd started.
    pub written: u64,
    /// Messages that reached no reader.
    pub lost: u64,
}

/// A group of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantStatus {
    /// Its name.
    pub name: String,
    /// Messages of its clients since the list of tenants last changed.
    pub queries: u64,
    /// Its own backends; empty: it asks those that no tenant names.
    pub backends: Vec<String>,
}

/// A collector of spans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtlpStatus {
    /// Its endpoint.
    pub collector: String,
    /// Spans that collectors took since dotd started.
    pub written: u64,
    /// Spans that reached none.
    pub lost: u64,
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
    /// The action of its rules: "given", or the action from the config.
    pub action: String,
    /// "enforce" or "count".
    pub mode: String,
    /// The number of its rules.
    pub rules: u64,
    /// How often they matched since dotd started.
    #[serde(default)]
    pub hits: u64,
    /// Lines that a front end cannot apply, such as rules about name servers.
    pub left_out: u32,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_left_out: Option<String>,
    /// Serial number of its SOA record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<u32>,
    /// The time since which this content is in use.
    pub age_seconds: u64,
    /// How long it took to read.
    pub read_milliseconds: u64,
    /// The memory that it uses.
    pub octets: u64,
    /// State of its transfers; absent: it is read from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferStatus>,
    /// The reason why its newer file cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The state of a policy zone's transfers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferStatus {
    /// "current"; "waiting" until the first answer; "failing"; "expired": none of its rules applies.
    pub state: String,
    /// Seconds since a primary server confirmed the present version; absent: none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_seconds: Option<u64>,
    /// Seconds until the next question to a primary server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_seconds: Option<u64>,
    /// Transfers of newer versions since dotd started.
    pub transfers: u64,
    /// Attempts for which no server gave a usable answer.
    pub failures: u64,
    /// The server of the last transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// "axfr" or "ixfr".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Records of the zone at the last transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// Octets of the saved copy at the last transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets: Option<u64>,
    /// The reasons why the last attempt had no usable answer, for each server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Whether dotd takes new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// dotd accepts new connections.
    Serving,
    /// dotd finishes its sessions, then stops.
    Draining,
}

/// One listening address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// The address.
    pub address: SocketAddr,
    /// "dot" or "do53".
    pub transport: String,
    /// TCP Fast Open: "on", or "off" with the reason; absent if the config does not ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_open: Option<String>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its name from the config; its address if it has no name.
    #[serde(default)]
    pub name: String,
    /// "embedded" or its address.
    pub address: String,
    /// "embedded", "udp", "tcp" or "tls".
    pub transport: String,
    /// "up", "down", or "unchecked" until the first result; "failing" if it is up and half of its answers or more are
    /// SERVFAIL; "downgrade_suspected" if an attacker may be stripping its TLS; "spare" if it replaces another
    /// backend in clear, and the TLS of that one does not permit it now; "unresolved" while its name has no address.
    pub state: String,
    /// The reason why the last check failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether an operator drains it.
    #[serde(default)]
    pub is_drained: bool,
    /// Its weight, if an operator has set another one than the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Percentage of queries that it answered between its last two checks; absent if there were few queries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_percent: Option<u8>,
    /// Percentage of SERVFAIL in its answers of the last ten seconds; absent if there were few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servfail_percent: Option<u8>,
    /// Its messages that matched no query or check; absent if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmatched: Option<UnmatchedStatus>,
    /// The history of its TLS; absent without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsRow>,
}

/// Messages of a backend that matched no query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmatchedStatus {
    /// The number of messages.
    pub count: u64,
    /// The fault of the last one.
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
    /// The names that it covers.
    pub dns_names: Vec<String>,
    /// Warnings about it.
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

/// The beginning of a warning about another key.
const OTHER_KEY: &str = "its key is another one since it was renewed";

impl CertificateStatus {
    /// The status of certificates that replace others. If the certificate of a file has another key than before, a
    /// warning says so until dotd is restarted, because clients that verify the old pin refuse the new key.
    #[must_use]
    pub fn after(identities: &[Identity], before: &[Self]) -> Vec<Self> {
        identities.iter().map(Self::from).map(|new| new.beside(before)).collect()
    }

    /// The earlier status of the same file, and the new one.
    fn beside(mut self, before: &[Self]) -> Self {
        let Some(old) = before.iter().find(|old| old.name == self.name) else { return self };
        if old.spki_pin == self.spki_pin {
            self.warnings.extend(old.warnings.iter().filter(|said| said.contains(OTHER_KEY)).cloned());
        } else {
            let Self { name, spki_pin, .. } = &self;
            let warning = format!(
                "{name}: {OTHER_KEY}: clients that verify pin-sha256=\"{}\" refuse it; give them pin-sha256=\"{spki_pin}\"",
                old.spki_pin
            );
            self.warnings.push(warning);
        }
        self
    }

    /// The warning about another key, if there is one.
    #[must_use]
    pub fn other_key(&self) -> Option<&str> {
        self.warnings.iter().map(String::as_str).find(|said| said.contains(OTHER_KEY))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str, pin: &str) -> CertificateStatus {
        CertificateStatus {
            name: name.into(),
            spki_pin: pin.into(),
            not_after_unix: 0,
            is_stapled: false,
            dns_names: vec![],
            warnings: vec![],
        }
    }

    /// Goal: a renewal with another key causes a warning that stays; one with the same key does not. Method: one file
    /// through four renewals, and a new file.
    #[test]
    fn another_key_is_said_until_a_restart() {
        let first = [status("a", "ONE")];
        assert_eq!(status("a", "ONE").beside(&first).other_key(), None);
        assert_eq!(status("b", "TWO").beside(&first).other_key(), None);
        let second = status("a", "TWO").beside(&first);
        assert!(second.other_key().is_some_and(|said| said.contains("\"ONE\"") && said.contains("\"TWO\"")));
        let third = status("a", "TWO").beside(std::slice::from_ref(&second));
        assert_eq!(third.other_key(), second.other_key());
        let fourth = status("a", "THREE").beside(&[third]);
        assert_eq!(fourth.warnings.len(), 1, "{:?}", fourth.warnings);
    }
}
