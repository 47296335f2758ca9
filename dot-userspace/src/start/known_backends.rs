//! The backends for an operator: name, health, counts, and the recent share of SERVFAIL.
//!
//! Before: the config names them, and workers and checks report about them. After: status, stats and metrics show
//! them.
//! Holds: for each backend, and for the clients, sums of the last ten seconds.
//! Never: changes a worker's behaviour: SERVFAIL of a backend is an answer.

use std::collections::{BTreeMap, VecDeque};

use super::{
    plan::{self, UNRESOLVED},
    tls_history::TlsHistory,
};
use crate::{
    backend::{
        BackendConfig, TlsMemory,
        health::{Health, HealthState},
    },
    config::Config,
    control::{BackendStatus, TlsRow, UnmatchedStatus},
    ledger::{BackendLines, Measured, Traffic, latency},
};

/// Seconds over which shares are computed.
const SECONDS: usize = 10;
/// Answers that are needed for a share.
const ANSWERS_MIN: u64 = 16;
/// Percentage of SERVFAIL in a backend's answers from which on it is "failing".
const FAILING_PERCENT: u8 = 50;

/// One backend.
struct Known {
    status: BackendStatus,
    health: Health,
    /// The memory of its TLS.
    memory: Option<TlsMemory>,
    /// Whether another entry replaces it in clear.
    falls_back: bool,
    /// It replaces, in clear, the backend with this memory.
    stands_in: Option<TlsMemory>,
    lines: BackendLines,
    recent: Recent,
}

/// All of them.
pub(super) struct KnownBackends {
    known: Vec<Known>,
    /// Those whose names have no address yet.
    unresolved: Vec<BackendStatus>,
}

impl KnownBackends {
    pub(super) fn of(config: &Config, backends: &[BackendConfig]) -> Self {
        let (unresolved, statuses): (Vec<_>, Vec<_>) =
            plan::backend_statuses(config).into_iter().partition(|status| status.state == UNRESOLVED);
        let found = statuses.into_iter().filter_map(|status| {
            let backend = backends.iter().find(|backend| *backend.name == *status.name)?;
            Some((status, backend))
        });
        let known = found.map(|(status, backend)| Known {
            status,
            health: backend.health.clone(),
            memory: backend.tls.as_ref().map(|tls| tls.memory.clone()),
            falls_back: backends
                .iter()
                .any(|one| one.stands_in.is_some() && one.stands_in.as_ref() == memory_of(backend)),
            stands_in: backend.stands_in.clone(),
            lines: backend.lines.clone(),
            recent: Recent::default(),
        });
        Self { known: known.collect(), unresolved }
    }

    /// The backends of a new config; the state of a backend that stays is kept.
    pub(super) fn reload(&mut self, config: &Config, backends: &[BackendConfig]) {
        let mut old = std::mem::replace(self, Self::of(config, backends));
        for known in &mut self.known {
            if let Some(same) = old.known.iter_mut().find(|old| old.lines == known.lines) {
                known.recent = std::mem::take(&mut same.recent);
            }
        }
    }

    /// Call it every second.
    pub(super) fn note_second(&mut self) {
        for known in &mut self.known {
            let sum = known.lines.sum();
            known.recent.note(sum.answers(), sum.count(Traffic::ServFail));
        }
    }

    /// The present states, with their TLS history.
    pub(super) fn statuses(&self, history: &TlsHistory) -> Vec<BackendStatus> {
        let known = self.known.iter().map(|known| known.status(history));
        known.chain(self.unresolved.iter().cloned()).collect()
    }

    /// Queries and answers of each, by name.
    pub(super) fn counts(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let counts = |known: &Known| {
            let sum = known.lines.sum();
            Traffic::ALL.iter().map(|what| (what.label().to_owned(), sum.count(*what))).collect()
        };
        self.known.iter().map(|known| (known.status.name.clone(), counts(known))).collect()
    }

    /// Response times of each.
    pub(super) fn measured(&self) -> Vec<Measured> {
        let of = |known: &Known| {
            latency::of_backend(&known.status.name, &known.status.transport, &known.lines.sum())
        };
        self.known.iter().flat_map(of).collect()
    }
}

fn memory_of(backend: &BackendConfig) -> Option<&TlsMemory> {
    backend.tls.as_ref().map(|tls| &tls.memory)
}

impl Known {
    fn status(&self, history: &TlsHistory) -> BackendStatus {
        let unmatched = self.health.unmatched();
        let unmatched = unmatched.map(|(count, last)| UnmatchedStatus { count, last: last.to_string() });
        let servfail_percent = self.recent.percent();
        let is_failing = servfail_percent.is_some_and(|percent| percent >= FAILING_PERCENT);
        let tls = self.memory.as_ref().and_then(|memory| {
            let is_in_clear = self.falls_back && memory.may_speak_clear();
            Some(TlsRow { is_in_clear, ..history.row_of(memory)? })
        });
        let is_suspected = tls.as_ref().is_some_and(|tls| tls.remembered.suspected_since > 0);
        let state = match self.health.state() {
            _ if is_suspected => "downgrade_suspected",
            _ if self.stands_in.as_ref().is_some_and(|memory| !memory.may_speak_clear()) => "spare",
            HealthState::Up if is_failing => "failing",
            state => state.label(),
        };
        BackendStatus {
            tls,
            state: state.to_owned(),
            reason: self.health.reason(),
            answered_percent: self.health.answered_percent(),
            servfail_percent,
            unmatched,
            ..self.status.clone()
        }
    }
}

/// Two counters over the last seconds: a total, and a part of it.
#[derive(Default)]
pub(super) struct Recent(VecDeque<(u64, u64)>);

impl Recent {
    /// The present values; call it every second.
    pub(super) fn note(&mut self, all: u64, some: u64) {
        if self.0.len() > SECONDS {
            self.0.pop_front();
        }
        self.0.push_back((all, some));
    }

    /// The part as a percentage of the total. `None`: the total is too small.
    pub(super) fn percent(&self) -> Option<u8> {
        let ((first_all, first_some), (all, some)) = (self.0.front()?, self.0.back()?);
        let all = all.checked_sub(*first_all).filter(|all| *all >= ANSWERS_MIN)?;
        let some = some.checked_sub(*first_some)?;
        u8::try_from(some.saturating_mul(100) / all).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a share covers the last ten seconds, and needs enough answers. Method: an hour of good answers, then ten
    /// seconds of SERVFAIL; then nothing.
    #[test]
    fn a_share_is_of_the_last_seconds() {
        let mut recent = Recent::default();
        assert_eq!(recent.percent(), None);
        (0..3600).for_each(|second| recent.note(second * 100, 0));
        assert_eq!(recent.percent(), Some(0));
        (1..=5).for_each(|second| recent.note(359_900 + second * 100, second * 100));
        assert_eq!(recent.percent(), Some(50));
        (6..=10).for_each(|second| recent.note(359_900 + second * 100, second * 100));
        assert_eq!(recent.percent(), Some(100));
        (0..=10).for_each(|_| recent.note(360_900, 1000));
        assert_eq!((recent.percent(), recent.0.len()), (None, 11));
    }
}
