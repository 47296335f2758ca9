//! The open sessions of a client, on an operator's request.
//!
//! Before: an operator names a client's prefix. After: a report of its sessions on this worker.
//! Holds: nothing. Never: shows queries; costs a session anything without such a request.

use std::time::Instant;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Inbox, WorkerShared};
use crate::{ledger::Counter, moment::Moment};

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// Worker and number, such as "0.17". It names the session until the session ends.
    pub session: String,
    /// The client's address and port.
    pub client: String,
    /// "TLS 1.3", "TLS 1.2" or "cleartext".
    pub security: String,
    /// Time since it began.
    pub open_seconds: u64,
    /// Queries that wait for an answer.
    pub in_flight: usize,
    /// Octets of responses that its client has not taken.
    pub waiting_octets: usize,
    /// The tenant of its client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The reason why each of its queries is REFUSED, by the name of its counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl WorkerShared {
    /// How many sessions clients of `meant` have here, and the first `most` of them by number.
    #[must_use]
    pub fn sessions_of(&self, meant: IpNet, worker: usize, most: usize) -> (usize, Vec<SessionReport>) {
        let sessions = self.sessions.borrow();
        let is_meant = |inbox: &Inbox| meant.contains(&inbox.client.source.ip().to_canonical());
        let mut numbers: Vec<u64> =
            sessions.iter().filter(|(_, inbox)| is_meant(inbox)).map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        let shown = numbers.iter().take(most).filter_map(|number| sessions.get(number));
        (numbers.len(), shown.map(|inbox| inbox.report(worker)).collect())
    }
}

impl Inbox {
    fn report(&self, worker: usize) -> SessionReport {
        let security = match self.client.tls {
            Some(tls) if tls.is_tls13 => "TLS 1.3",
            Some(_) => "TLS 1.2",
            None => "cleartext",
        };
        let by_tenant = self.member.get().is_refused.then_some(Counter::TenantNotAllowed);
        SessionReport {
            session: format!("{worker}.{}", self.number.get()),
            client: self.client.source.to_string(),
            security: security.to_owned(),
            open_seconds: Moment::of(Instant::now()).since(self.began).as_secs(),
            in_flight: self.in_flight.get(),
            waiting_octets: self.waiting(),
            tenant: self.shared.tenant_name(self.member.get().tenant),
            refused: self.standing.reason().or(by_tenant).map(|reason| reason.label().to_owned()),
        }
    }
}
