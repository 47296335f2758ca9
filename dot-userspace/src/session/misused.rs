//! Has messages, queries and answers of clients judged as misuse, and carries out the action in the config.
//!
//! Before: a message was read, the cache has no answer, or a response is written. After: the client gets its answer, or
//! waits, is sent to TCP, gets REFUSED, or its session ends; each verdict is counted by its kind and its action.
//! Holds: the counts of `policy::Misuse`, and the schedule of clients that have to wait.
//! Never: costs more than a branch while every kind is off; ends or bans anything for datagrams, whose address may be forged.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    time::Duration,
};

use dot_common::{prefix::ClientPrefix, rate::Rate};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{QueryRate, Rates, SessionEnd, WorkerShared, asker::Asker, disposition::Refusal, rates::Pace};
use crate::{
    config::{self, MisuseAction, QueriesOver},
    dns::{self, HEADER_OCTETS, Labels, Query, Rcode, Reply},
    events::What,
    ledger::{Counter, Disposal, turn_time},
    policy::{Misuse, MisuseKind, Suspect, Verdict},
};

/// Longest wait of a message, however many messages of its client wait.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Seconds between two log lines about a kind.
const LINE_SECONDS: u32 = 10;

/// The search of one worker for misuse.
pub(super) struct Watch {
    is_on: Cell<bool>,
    misuse: RefCell<Option<Box<Misuse>>>,
    began: Instant,
    delayed: Rates,
    /// By kind: the second of its next log line.
    next_lines: [Cell<u32>; MisuseKind::ALL.len()],
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            is_on: Cell::new(false),
            misuse: RefCell::default(),
            began: Instant::now(),
            delayed: Rates::default(),
            next_lines: Default::default(),
        }
    }
}

/// One misuse, as an operator sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MisuseRow {
    /// Its kind, by the key in `[misuse]`.
    pub kind: String,
    /// The action.
    pub action: String,
    /// The client; absent: many clients take part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The registered domain, if one is involved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The worker that found it.
    pub worker: usize,
    /// Seconds since it was found.
    pub found_seconds: u64,
    /// Seconds until it is forgotten, unless it continues.
    pub seconds_left: u64,
    /// Queries and messages since then.
    pub hits: u64,
}

/// The treatment of a query or a message.
#[derive(Clone, Copy, Default)]
pub(super) struct Misused {
    /// It is REFUSED.
    pub(super) refusal: Option<Refusal>,
    /// It is dropped, and its session ends.
    pub(super) end: Option<SessionEnd>,
    /// It gets TC=1, so that the client comes over TCP.
    pub(super) is_sent_to_tcp: bool,
}

impl WorkerShared {
    /// Looks for misuse by this config from now on. The counts stay if the config is the same.
    pub fn watch_misuse(&self, config: &config::Misuse) {
        let mut misuse = self.misuse.misuse.borrow_mut();
        if misuse.as_ref().is_none_or(|misuse| misuse.limits() != config) {
            *misuse = Misuse::new(config).map(Box::new);
            self.misuse.is_on.set(misuse.is_some());
        }
    }

    /// The misuses that are found now, all or those of the clients in `meant`.
    #[must_use]
    pub fn misuses(&self, worker: usize, meant: Option<IpNet>) -> Vec<MisuseRow> {
        let (second, bits) = (self.misuse.second(), self.limits().prefix_bits);
        let misuse = self.misuse.misuse.borrow();
        let Some(misuse) = misuse.as_deref() else { return Vec::new() };
        let is_meant = |client: Option<ClientPrefix>| match (meant, client) {
            (None, _) => true,
            (Some(meant), Some(client)) => meant.contains(&client.address()),
            (Some(_), None) => false,
        };
        let rows = misuse.found(second).filter(|found| is_meant(found.client)).map(|found| MisuseRow {
            kind: found.kind.label().to_owned(),
            action: misuse.action(found.kind).label().to_owned(),
            client: found
                .client
                .map(|client| format!("{client}/{}", if client.is_v6() { bits.1 } else { bits.0 })),
            domain: Some(dns::text_of(&found.domain)).filter(|_| !found.domain.is_empty()),
            worker,
            found_seconds: second.saturating_sub(found.since).into(),
            seconds_left: found.until.saturating_sub(second).into(),
            hits: found.hits,
        });
        rows.collect()
    }

    /// Judges a message of `client`; `tell` is called with the treatment, and the reason if it is refused.
    #[inline]
    pub(super) fn judge_message(
        &self,
        client: IpAddr,
        is_datagram: bool,
        tell: impl FnOnce(What, Option<Counter>),
    ) -> Option<Misused> {
        if !self.misuse.is_on.get() {
            return None;
        }
        let verdict =
            self.misuse.judge(|misuse, second| misuse.message(self.suspect(client, is_datagram), second))?;
        Some(self.act_on_misuse(verdict, is_datagram, tell))
    }

    /// Whether a message of `client` over a connection has to wait.
    #[inline]
    pub(super) fn slowed(&self, client: IpAddr, now: Instant) -> Pace {
        if !self.misuse.is_on.get() {
            return Pace::Within;
        }
        let prefix = self.prefix_of(client);
        let limit = self.misuse.judge(|misuse, second| {
            let per_second = misuse.limits().delayed_per_second;
            misuse.delays(prefix, second).then(|| Rate::new(per_second, per_second.div_ceil(10)))
        });
        let Some(rate) = limit else { return Pace::Within };
        let limit = QueryRate { rate, over: QueriesOver::Delay };
        let pace = self.misuse.delayed.take(client, self.limits().prefix_bits, limit, now);
        self.counters.add(Counter::MisuseDelayed, u64::from(pace != Pace::Within));
        if pace == Pace::Over { Pace::At(now + WAIT_MAX) } else { pace }
    }

    /// Notes a response to `client`.
    #[inline]
    pub(super) fn watch_answer(
        &self,
        client: IpAddr,
        is_datagram: bool,
        response: &[u8],
        disposal: Disposal,
    ) {
        if self.misuse.is_on.get() {
            self.count_answer(client, is_datagram, response, disposal);
        }
    }

    #[inline(never)]
    fn count_answer(&self, client: IpAddr, is_datagram: bool, response: &[u8], disposal: Disposal) {
        let suspect = self.suspect(client, is_datagram);
        let found = self.misuse.judge(|misuse, second| misuse.answered(suspect, response, disposal, second));
        found.into_iter().for_each(|verdict| self.note_found(verdict));
    }

    fn suspect(&self, client: IpAddr, is_datagram: bool) -> Suspect {
        Suspect { client: self.prefix_of(client), is_datagram }
    }

    fn prefix_of(&self, client: IpAddr) -> ClientPrefix {
        let (v4, v6) = self.limits().prefix_bits;
        ClientPrefix::of(client, v4, v6)
    }

    /// Counts a verdict and reports it. Returns the treatment.
    fn act_on_misuse(
        &self,
        verdict: Verdict,
        is_datagram: bool,
        tell: impl FnOnce(What, Option<Counter>),
    ) -> Misused {
        let Verdict { kind, action, is_new } = verdict;
        if is_new {
            self.note_found(verdict);
        }
        self.counters.add(kind.counter(), 1);
        let nothing = Misused::default();
        let (misused, counter) = match (action, is_datagram) {
            (MisuseAction::Off | MisuseAction::Count, _) | (MisuseAction::Truncate, false) => {
                (nothing, Some(Counter::MisuseOnlyCounted))
            }
            // The next ones wait.
            (MisuseAction::Delay, false) => (nothing, None),
            // `disposition` counts it.
            (MisuseAction::Refuse, _) => (Misused { refusal: Some(Refusal::MISUSE), ..nothing }, None),
            (
                MisuseAction::Delay | MisuseAction::Truncate | MisuseAction::Close | MisuseAction::Ban,
                true,
            ) => (Misused { is_sent_to_tcp: true, ..nothing }, Some(Counter::MisuseTruncated)),
            (MisuseAction::Close, false) => {
                (Misused { end: Some(SessionEnd::Misuse), ..nothing }, Some(Counter::MisuseClosed))
            }
            (MisuseAction::Ban, false) => {
                (Misused { end: Some(SessionEnd::MisuseBan), ..nothing }, Some(Counter::MisuseClosed))
            }
        };
        counter.into_iter().for_each(|counter| self.counters.add(counter, 1));
        let is_refused = misused.refusal.is_some() || misused.end.is_some();
        let what = What::Misuse { kind: kind.label().to_owned(), action: action.label().to_owned() };
        tell(what, is_refused.then(|| kind.counter()));
        misused
    }

    /// Counts a new misuse and writes a log line, without client and name: an operator must ask for these.
    fn note_found(&self, verdict: Verdict) {
        self.counters.add(Counter::MisuseFound, 1);
        let (second, kind) = (self.misuse.second(), verdict.kind);
        let Some(next) = self.misuse.next_lines.get(kind as usize) else { return };
        if next.get() <= second {
            next.set(second.saturating_add(LINE_SECONDS));
            let (kind, action) = (kind.label(), verdict.action.label());
            tracing::info!(kind, action, "misuse is found; `dotd misuse` shows whose");
        }
    }
}

impl Watch {
    fn second(&self) -> u32 {
        let seconds = turn_time::now().saturating_duration_since(self.began).as_secs();
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }

    fn judge<T>(&self, judge: impl FnOnce(&mut Misuse, u32) -> Option<T>) -> Option<T> {
        judge(self.misuse.borrow_mut().as_deref_mut()?, self.second())
    }
}

/// Whether misuse keeps a query that the cache does not answer from the backends; its client has a response then.
#[inline]
pub(super) fn is_held_back(shared: &WorkerShared, message: &[u8], query: &Query, asker: &impl Asker) -> bool {
    shared.misuse.is_on.get() && query.opcode == 0 && holds_back(shared, message, query, asker)
}

fn holds_back(shared: &WorkerShared, message: &[u8], query: &Query, asker: &impl Asker) -> bool {
    let (Some(suspect), Some(name)) = (asker.suspect(), Labels::read(message, HEADER_OCTETS)) else {
        return false;
    };
    let who = shared.suspect(asker.source(), asker.is_datagram());
    let Some(verdict) = shared.misuse.judge(|misuse, second| misuse.miss(who, &name, second)) else {
        return false;
    };
    let tell = |what, refused| suspect.tell(what, refused);
    let misused = shared.act_on_misuse(verdict, asker.is_datagram(), tell);
    if let Some(refusal) = misused.refusal {
        suspect.reply(message, &Reply::to(query, Rcode::REFUSED, Some(refusal.ede)));
        shared.counters.add(Counter::Responded, 1);
        shared.counters.add(refusal.counter, 1);
    } else if misused.is_sent_to_tcp {
        suspect.send_to_tcp(message, query);
    } else if let Some(end) = misused.end {
        shared.counters.add(Counter::DroppedMisuse, 1);
        suspect.end_by(end);
    } else {
        return false;
    }
    true
}
