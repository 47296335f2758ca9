//! Asks each backend now and then whether it answers, from the control thread, once for all workers.
//!
//! Before: `start` has a list of backends. After: workers, status and metrics read one flag each.
//! Why in one place: all workers agree on one state, and there is one query an interval, however many workers
//! there are. A failure that a worker sees itself (a closed port, a failed connection) rests the backend for that
//! worker only.
//! It also holds how many messages of a backend matched no query, and why the last one did not: silence and
//! useless answers are different faults.
//! Never: judges an answer: any rcode means up, also an error without the question. Asks more often than each
//! eighth of an interval, or less often than each interval.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::sleep;

use super::{BackendConfig, Tls, matching::Unmatched, outcomes, probe::probe, random::Random};
use crate::config::OnTlsFailure;

/// A backend is down after this many misses in a row: one lost datagram proves nothing.
const MISSES_MAX: u32 = 3;
/// The first check after a miss comes after this part of an interval; the time doubles up to the interval.
const SOONEST: u32 = 8;
/// The longest time between two looks for TLS at a backend that is asked in clear. RFC 9539 §4.3 suggests a day; an hour
/// costs nothing, and is how long queries go on in clear after the server has its TLS back.
const DAMPED_INTERVAL: Duration = Duration::from_secs(3600);
/// dotd logs a backend that answers fewer queries in a hundred.
const POOR_PERCENT: u8 = 50;

/// The state of a backend. Clones share it; two are equal if they are the same one.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    state: AtomicU8,
    /// Messages that matched no query or check.
    unmatched: AtomicU64,
    /// Why the last of them did not match, as [`Unmatched`] numbers it.
    last_unmatched: AtomicU8,
    /// Answered and unanswered queries of all workers.
    answered: AtomicU64,
    lost: AtomicU64,
    /// Answered queries in a hundred at the last check, plus one. 0: there were too few queries.
    percent: AtomicU8,
    /// Why the last check was missed; only the control thread reads it.
    reason: Mutex<String>,
}

/// Up, down, or not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// No check has had a result yet.
    Unchecked,
    /// The last check was answered, or fewer than [`MISSES_MAX`] were missed.
    Up,
    /// [`MISSES_MAX`] checks or more in a row were missed.
    Down,
}

impl HealthState {
    /// The name in status and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl PartialEq for Health {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Health {}

impl Health {
    /// The current state.
    #[must_use]
    pub fn state(&self) -> HealthState {
        match self.0.state.load(Relaxed) {
            UP => HealthState::Up,
            DOWN => HealthState::Down,
            _ => HealthState::Unchecked,
        }
    }

    /// Whether the last check was answered.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.state.load(Relaxed) == UP
    }

    /// Whether new queries should go elsewhere.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.0.state.load(Relaxed) == DOWN
    }

    /// Why the last check was missed. `None`: it was answered.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        let reason = self.0.reason.lock().unwrap_or_else(PoisonError::into_inner);
        (!reason.is_empty()).then(|| reason.clone())
    }

    /// Counts a message of this backend that matched no query: it is late or forged.
    pub fn note_unmatched(&self, why: Unmatched) {
        self.0.last_unmatched.store(why as u8, Relaxed);
        self.0.unmatched.fetch_add(1, Relaxed);
    }

    /// The number of such messages, and why the last one did not match.
    #[must_use]
    pub fn unmatched(&self) -> Option<(u64, Unmatched)> {
        let count = self.0.unmatched.load(Relaxed);
        let why = Unmatched::ALL.get(usize::from(self.0.last_unmatched.load(Relaxed)));
        why.filter(|_| count > 0).map(|why| (count, *why))
    }

    /// Adds counts of answered and lost queries. Each worker calls this once a second.
    pub fn note_outcomes(&self, answered: u32, lost: u32) {
        self.0.answered.fetch_add(answered.into(), Relaxed);
        self.0.lost.fetch_add(lost.into(), Relaxed);
    }

    /// Answered queries in a hundred between the last two checks. `None`: there were too few queries.
    #[must_use]
    pub fn answered_percent(&self) -> Option<u8> {
        self.0.percent.load(Relaxed).checked_sub(1)
    }

    /// Adds up the workers' counts since the last check. `Some`: a change that is worth a log line; `false`:
    /// fewer than half were answered, `true`: at least half are again.
    fn learn_outcomes(&self) -> Option<bool> {
        let was_poor = self.answered_percent().map(|percent| percent < POOR_PERCENT);
        let percent = outcomes::percent(self.0.answered.swap(0, Relaxed), self.0.lost.swap(0, Relaxed));
        let percent = percent.and_then(|percent| u8::try_from(percent).ok());
        self.0.percent.store(percent.map_or(0, |percent| percent + 1), Relaxed);
        let is_poor = percent.map(|percent| percent < POOR_PERCENT)?;
        (is_poor != was_poor.unwrap_or(false)).then_some(is_poor)
    }

    /// Nothing is known any more.
    fn forget(&self) {
        self.0.state.store(UNCHECKED, Relaxed);
        self.note(String::new());
    }

    fn note(&self, reason: String) {
        *self.0.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Takes the result of a check, as a number of misses in a row. `Some`: a change that is worth a log line; a
    /// backend that is up from the start is not.
    fn learn(&self, misses: u32) -> Option<HealthState> {
        let (state, number) = match misses {
            0 => (HealthState::Up, UP),
            MISSES_MAX.. => (HealthState::Down, DOWN),
            _ => return None,
        };
        let before = self.state();
        self.0.state.store(number, Relaxed);
        let is_first = before == HealthState::Unchecked && state == HealthState::Up;
        (before != state && !is_first).then_some(state)
    }
}

const UNCHECKED: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// Checks `backend` until the task is dropped.
///
/// # Cancel safety
/// Dropping it leaves the last state.
pub async fn watch(backend: BackendConfig) {
    let backend = BackendConfig { timeout: backend.timeout.min(backend.health_interval), ..backend };
    let mut misses: u32 = 0;
    loop {
        if backend.stands_in.as_ref().is_some_and(|memory| !memory.is_failing()) {
            // No worker asks it, and a question in clear would tell an observer that a client is here. Its last state may be wrong by
            // the time that it stands in again.
            backend.health.forget();
            misses = 0;
            sleep(backend.health_interval).await;
            continue;
        }
        let result = probe(&backend).await;
        backend.health.note(result.as_ref().err().map(ToString::to_string).unwrap_or_default());
        misses = if result.is_ok() { 0 } else { misses.saturating_add(1) };
        match (backend.health.learn(misses), result) {
            (Some(HealthState::Down), Err(error)) => {
                tracing::warn!(backend = %backend.name, %error, "backend is down");
            }
            (Some(HealthState::Up), _) => tracing::info!(backend = %backend.name, "backend is up again"),
            _ => {}
        }
        match backend.health.learn_outcomes() {
            Some(true) => {
                let percent = backend.health.answered_percent().unwrap_or_default();
                tracing::warn!(backend = %backend.name, percent, "backend answers few of its queries");
            }
            Some(false) => {
                tracing::info!(backend = %backend.name, "backend answers most of its queries again");
            }
            None => {}
        }
        let chance = Random::default().u16().unwrap_or_default();
        sleep(pause(misses, backend.health_interval, longest(&backend), chance)).await;
    }
}

/// The longest time between two checks. While another one stands in for it in clear, they thin out (RFC 9539 §4.6.5).
fn longest(backend: &BackendConfig) -> Duration {
    let falls_back = |tls: &Tls| tls.on_failure == OnTlsFailure::Cleartext && tls.memory.may_speak_clear();
    let is_replaced = backend.tls.as_ref().is_some_and(falls_back);
    if is_replaced { backend.health_interval.max(DAMPED_INTERVAL) } else { backend.health_interval }
}

/// Time until the next check. Up to a quarter of it is random, so that checks of several backends spread out.
fn pause(misses: u32, interval: Duration, longest: Duration, chance: u16) -> Duration {
    let whole = match misses {
        0 => interval,
        _ => (interval / SOONEST).saturating_mul(1 << (misses - 1).min(16)).min(longest),
    };
    whole - whole.mul_f64(f64::from(chance) / f64::from(u16::MAX) / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::{TlsMemory, tests::backend_at},
        config::Transport,
    };

    /// Goal: what was found of a backend that stands in for another is forgotten while no worker asks it: an old "up" would make an
    /// outage of the server a suspected downgrade, an old "down" would keep queries from it. Method: each state and its
    /// reason, then a watch while the other one's TLS works.
    #[test]
    fn a_spare_backend_has_no_old_state() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for misses in [0, MISSES_MAX] {
            let spare = BackendConfig {
                stands_in: Some(TlsMemory::default()),
                ..backend_at(([127, 0, 0, 1], 9).into(), Transport::Udp)
            };
            let health = spare.health.clone();
            health.learn(misses);
            health.note("silent".to_owned());
            assert_ne!(health.state(), HealthState::Unchecked);
            runtime.block_on(async { drop(tokio::time::timeout(Duration::ZERO, watch(spare)).await) });
            assert_eq!((health.state(), health.reason()), (HealthState::Unchecked, None), "{misses}");
        }
    }

    /// Goal: one miss changes nothing, three mean down, one answer means up; only changes are logged.
    #[test]
    fn three_misses_are_down_and_one_answer_is_up() {
        let health = Health::default();
        assert_eq!(health.state(), HealthState::Unchecked);
        assert_eq!((health.learn(0), health.state()), (None, HealthState::Up));
        assert_eq!([1, 2].map(|misses| health.learn(misses)), [None; 2]);
        assert_eq!((health.learn(3), health.is_down()), (Some(HealthState::Down), true));
        assert_eq!(health.learn(4), None);
        assert_eq!((health.learn(0), health.is_down()), (Some(HealthState::Up), false));
    }

    /// Goal: a backend that is back is found within an interval, and a backend that is down is asked less
    /// and less often. Covers: C-593
    #[test]
    fn checks_thin_out_up_to_the_interval() {
        let second = Duration::from_secs(1);
        let pauses = [1, 2, 3, 4, 5, 100].map(|misses| pause(misses, second, second, 0).as_millis());
        assert_eq!(pauses, [125, 250, 500, 1000, 1000, 1000]);
        assert_eq!(pause(0, second, second, u16::MAX).as_millis(), 750);
        let damped = [4, 5, 13, 100].map(|misses| pause(misses, second, DAMPED_INTERVAL, 0).as_secs());
        assert_eq!(damped, [1, 2, 512, 3600], "looks for TLS at a backend that is asked in clear");
    }
}
