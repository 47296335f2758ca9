//! Module `misuse`: finds floods of random names, tunnels, and clients that ask, fail or get too much, by what they ask for.
//!
//! Before: a worker has a message, a query that the cache does not answer, or an answer. After: a verdict, which `session` acts on
//! and counts.
//! Holds: up to three tables of fixed size for each worker, only those that the config needs: domains (1.2 MiB), clients with
//! domains (0.7 MiB), clients (0.3 MiB).
//! Never: allocates for a query, except once for each misuse that is found; shares anything with another worker.

mod counts;
mod found;
mod registered;
mod table;

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
};

use dot_common::prefix::ClientPrefix;

use self::{
    counts::{Carried, Client, Domain, is_carrier},
    found::{Finding, Findings, Found},
    registered::{Split, split},
    table::{Now, Row, Table},
};
use crate::{
    config::{self, MisuseAction},
    dns::{self, HEADER_OCTETS, Labels, ResponseCode},
    ledger::{Counter, Disposal},
};

/// A kind of misuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A flood of random names below a domain.
    RandomNames,
    /// A client's tunnel through a domain.
    Tunnel,
    /// A client whose answers are failures.
    Failures,
    /// A client that asks too much.
    Queries,
    /// A client that gets too much.
    AnswerOctets,
}

impl Kind {
    /// Each.
    pub const ALL: [Self; 5] =
        [Self::RandomNames, Self::Tunnel, Self::Failures, Self::Queries, Self::AnswerOctets];

    /// Its key in the config.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::RandomNames => "random_names",
            Self::Tunnel => "tunnel",
            Self::Failures => "failures",
            Self::Queries => "queries",
            Self::AnswerOctets => "answer_octets",
        }
    }

    /// Its counter in the ledger.
    #[must_use]
    pub const fn counter(self) -> Counter {
        match self {
            Self::RandomNames => Counter::MisuseRandomNames,
            Self::Tunnel => Counter::MisuseTunnel,
            Self::Failures => Counter::MisuseFailures,
            Self::Queries => Counter::MisuseQueries,
            Self::AnswerOctets => Counter::MisuseAnswerOctets,
        }
    }
}

/// The action for a query or a message, and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The reason.
    pub kind: Kind,
    /// The action.
    pub action: MisuseAction,
    /// This query or message showed the misuse.
    pub is_new: bool,
}

/// A client, and its transport. The address of a datagram may be forged, so datagrams count against datagrams alone, and sessions
/// against both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The client.
    pub client: ClientPrefix,
    /// Whether its queries come in datagrams.
    pub is_datagram: bool,
}

impl Suspect {
    /// The same client as its sessions are counted, if this one is by datagrams.
    fn in_sessions(self) -> Option<Self> {
        self.is_datagram.then_some(Self { is_datagram: false, ..self })
    }
}

/// The counts of one worker.
pub struct Misuse {
    limits: config::Misuse,
    window_seconds: u32,
    hold_seconds: u32,
    hasher: RandomState,
    ignored: HashSet<Box<[u8]>>,
    domains: Option<Table<Domain>>,
    carried: Option<Table<Carried>>,
    clients: Option<Table<Client>>,
    findings: Findings,
}

impl Misuse {
    /// Counts by this config. `None`: every kind is off.
    #[must_use]
    pub fn new(limits: &config::Misuse) -> Option<Self> {
        let is_on = |action: MisuseAction| action != MisuseAction::Off;
        if !limits.actions().into_iter().any(|(_, action)| is_on(action)) {
            return None;
        }
        let of_clients = [limits.failures, limits.queries, limits.answer_octets].into_iter().any(is_on);
        let ignored = limits.ignore.iter().filter_map(|name| dns::wire_name(name).ok());
        Some(Self {
            window_seconds: seconds(limits.window),
            hold_seconds: seconds(limits.hold),
            hasher: RandomState::new(),
            ignored: ignored.collect(),
            domains: is_on(limits.random_names).then(Table::default),
            carried: is_on(limits.tunnel).then(Table::default),
            // That table also knows the delayed client of a tunnel.
            clients: (of_clients || limits.tunnel == MisuseAction::Delay).then(Table::default),
            findings: Findings::default(),
            limits: limits.clone(),
        })
    }

    /// The config by which it counts.
    #[must_use]
    pub fn limits(&self) -> &config::Misuse {
        &self.limits
    }

    /// Judges a message of a client.
    pub fn message(&mut self, suspect: Suspect, second: u32) -> Option<Verdict> {
        let (now, key, kind) = (self.now(second), self.key_of(suspect), Kind::Queries);
        let mut is_new = false;
        if let Some(row) = self.clients.as_mut()?.row(key, now)
            && row.counts.message(&self.limits)
            && self.limits.queries != MisuseAction::Off
        {
            is_new = hold_client(row, kind, now, self.hold_seconds);
            self.note(&Finding { kind, key, client: Some(suspect.client), domain: &[] }, second);
        }
        let (kind, key) = self.judged(suspect, now)?;
        self.findings.hit(kind, key);
        Some(Verdict { kind, action: self.action(kind), is_new })
    }

    /// The kind with the strictest action that applies to a client now, and the key of its row.
    fn judged(&mut self, suspect: Suspect, now: Now) -> Option<(Kind, u64)> {
        let mut judged = None;
        for suspect in [Some(suspect), suspect.in_sessions()].into_iter().flatten() {
            let key = self.key_of(suspect);
            let Some(row) = self.clients.as_mut().and_then(|clients| clients.known(key, now)) else {
                continue;
            };
            let held = Kind::ALL.into_iter().filter(|kind| row.counts.is_held(*kind, now.second));
            let most = held.map(|kind| (action_of(&self.limits, kind), kind, key));
            judged = most.chain(judged).max_by_key(|(action, ..)| *action);
        }
        judged.map(|(_, kind, key)| (kind, key))
    }

    /// Whether the messages of a client over connections have to wait.
    pub fn delays(&mut self, client: ClientPrefix, second: u32) -> bool {
        let kind = self.judged(Suspect { client, is_datagram: false }, self.now(second));
        kind.is_some_and(|(kind, _)| self.action(kind) == MisuseAction::Delay)
    }

    /// Judges a query for `name` that the cache does not answer.
    pub fn miss(&mut self, suspect: Suspect, name: &Labels, second: u32) -> Option<Verdict> {
        let parts = split(name).filter(|_| !self.is_ignored(name))?;
        let hash = self.hasher.hash_one(parts.labels);
        let by_tunnel = self.tunnel(suspect, parts, hash, second);
        let by_flood = self.flood(parts, hash, second);
        by_tunnel.filter(|verdict| verdict.action != MisuseAction::Count || by_flood.is_none()).or(by_flood)
    }

    fn tunnel(&mut self, suspect: Suspect, parts: Split<'_>, name: u64, second: u32) -> Option<Verdict> {
        let (now, hold) = (self.now(second), self.hold_seconds);
        let (kind, action, key) = (Kind::Tunnel, self.limits.tunnel, self.key_below(suspect, parts));
        let mut is_new = false;
        if let Some(row) = self.carried.as_mut()?.row(key, now)
            && row.counts.ask(name, parts.labels, &self.limits)
        {
            is_new = row.hold(now, hold);
            let client = Some(suspect.client);
            self.note(&Finding { kind, key, client, domain: parts.domain }, second);
        }
        let key = [Some(suspect), suspect.in_sessions()].into_iter().flatten().find_map(|suspect| {
            let key = self.key_below(suspect, parts);
            self.carried.as_mut()?.known(key, now).filter(|row| row.is_held(now)).map(|_| key)
        })?;
        self.findings.hit(kind, key);
        if action == MisuseAction::Delay {
            let key = self.key_of(suspect);
            if let Some(row) = self.clients.as_mut().and_then(|clients| clients.row(key, now)) {
                hold_client(row, kind, now, hold);
            }
        }
        Some(Verdict { kind, action, is_new })
    }

    fn flood(&mut self, parts: Split<'_>, name: u64, second: u32) -> Option<Verdict> {
        let now = self.now(second);
        let key = self.hasher.hash_one(parts.domain);
        let row = self.domains.as_mut()?.row(key, now)?;
        let (is_flooded, kind) = (row.counts.ask(name, &self.limits), Kind::RandomNames);
        let is_new = is_flooded && row.hold(now, self.hold_seconds);
        if !row.is_held(now) {
            return None;
        }
        let passes = row.counts.passes(name, &self.limits);
        if is_flooded {
            self.note(&Finding { kind, key, client: None, domain: parts.domain }, second);
        }
        if passes && !is_new {
            return None;
        }
        self.findings.hit(kind, key);
        // The query that shows the flood is within the budget.
        let action = if passes { MisuseAction::Count } else { self.limits.random_names };
        Some(Verdict { kind, action, is_new })
    }

    /// Notes an answer to a client. Returns the misuse that it shows.
    pub fn answered(
        &mut self,
        suspect: Suspect,
        response: &[u8],
        disposal: Disposal,
        second: u32,
    ) -> Option<Verdict> {
        let rcode = dns::rcode_of(response);
        let is_failure = matches!(rcode, ResponseCode::NXDomain | ResponseCode::ServFail);
        if matches!(disposal, Disposal::Forwarded | Disposal::Failed) {
            self.answered_by_backend(suspect, response, is_failure, second);
        }
        // dotd's own SERVFAIL means that backends fail, or that dotd is full.
        let is_own = matches!(disposal, Disposal::Failed | Disposal::Responded);
        if rcode == ResponseCode::Refused || is_own && rcode == ResponseCode::ServFail {
            return None;
        }
        let (now, key) = (self.now(second), self.key_of(suspect));
        let row = self.clients.as_mut()?.known(key, now)?;
        let (fails, gets_too_much) = row.counts.answer(response.len(), is_failure, &self.limits);
        let is_on = |action: MisuseAction| action != MisuseAction::Off;
        let kind =
            match (fails && is_on(self.limits.failures), gets_too_much && is_on(self.limits.answer_octets)) {
                (true, _) => Kind::Failures,
                (false, true) => Kind::AnswerOctets,
                (false, false) => return None,
            };
        let is_new = hold_client(row, kind, now, self.hold_seconds);
        self.note(&Finding { kind, key, client: Some(suspect.client), domain: &[] }, second);
        is_new.then(|| Verdict { kind, action: self.action(kind), is_new })
    }

    fn answered_by_backend(&mut self, suspect: Suspect, response: &[u8], is_failure: bool, second: u32) {
        if self.domains.is_none() && self.carried.is_none() {
            return;
        }
        let Some(name) = Labels::read(response, HEADER_OCTETS) else { return };
        let Some(parts) = split(&name) else { return };
        let now = self.now(second);
        if let Some(domains) = &mut self.domains
            && let Some(row) = domains.known(self.hasher.hash_one(parts.domain), now)
        {
            row.counts.answer(self.hasher.hash_one(parts.labels), is_failure);
        }
        let key = self.key_below(suspect, parts);
        let question_end = HEADER_OCTETS + name.octets().len() + 4;
        if let Some(carried) = &mut self.carried
            && is_carrier(dns::qtype_of(response, question_end))
            && let Some(row) = carried.known(key, now)
        {
            row.counts.answer(response.len().saturating_sub(question_end));
        }
    }

    /// The misuses that are found now.
    pub fn found(&self, second: u32) -> impl Iterator<Item = &Found> {
        self.findings.now(second)
    }

    /// The action for a kind.
    #[must_use]
    pub fn action(&self, kind: Kind) -> MisuseAction {
        action_of(&self.limits, kind)
    }

    fn note(&mut self, finding: &Finding<'_>, second: u32) {
        self.findings.note(finding, second, second.saturating_add(self.hold_seconds));
    }

    fn key_of(&self, Suspect { client, is_datagram }: Suspect) -> u64 {
        self.hasher.hash_one((client.key(), is_datagram))
    }

    fn key_below(&self, Suspect { client, is_datagram }: Suspect, parts: Split<'_>) -> u64 {
        self.hasher.hash_one((client.key(), is_datagram, parts.domain))
    }

    fn now(&self, second: u32) -> Now {
        Now { second, window: second / self.window_seconds }
    }

    fn is_ignored(&self, name: &Labels) -> bool {
        if self.ignored.is_empty() {
            return false;
        }
        let octets = name.octets();
        let mut start = octets.len().saturating_sub(1);
        name.labels().any(|label| {
            start = start.saturating_sub(label.len());
            octets.get(start..).is_some_and(|name| self.ignored.contains(name))
        })
    }
}

fn action_of(limits: &config::Misuse, kind: Kind) -> MisuseAction {
    match kind {
        Kind::RandomNames => limits.random_names,
        Kind::Tunnel => limits.tunnel,
        Kind::Failures => limits.failures,
        Kind::Queries => limits.queries,
        Kind::AnswerOctets => limits.answer_octets,
    }
}

/// An action for this reason applies to a client for `seconds` from now on. `true`: none did.
fn hold_client(row: &mut Row<Client>, kind: Kind, now: Now, seconds: u32) -> bool {
    row.hold(now, seconds);
    row.counts.hold(kind, now.second, now.second.saturating_add(seconds))
}

fn seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests;
