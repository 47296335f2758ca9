//! The memory of TLS with one backend: since when it speaks TLS, by which key, how it fails, and whether that looks like an
//! attacker who strips TLS.
//!
//! Before: `dial` made a handshake, or failed to. After: the backend may be asked in clear, or not; `start` keeps the memory in a
//! file and shows it.
//! Holds: the rule of when cleartext is permitted: after a failure, and only if the server has not spoken TLS within the window,
//! or an operator has forgiven it.
//! Never: permits cleartext by itself where the config does not: then no backend stands in for this one.
//!
//! Source: RFC 8310 §5 and §6.5 (opportunistic profile, downgrade), RFC 9539 §4.3 to §4.6 (what a prober remembers).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{config::TlsVersion, ledger::TlsFault};

/// Failures in a row that raise suspicion: one lost connection proves nothing.
const FAILURES_MIN: u32 = 3;
/// How old the last success in the file may be, if the window is not shorter than twice that.
const SUCCESS_AGE_MAX: u64 = 3600;

/// The record of one backend. Times are in seconds since 1970; 0: never.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remembered {
    /// The first completed handshake.
    pub first_success: u64,
    /// The last one.
    pub last_success: u64,
    /// The last one of another server of the same name, if that is later.
    pub name_spoke: u64,
    /// The version of the last success: "1.2" or "1.3".
    pub version: String,
    /// Base64 SHA-256 of the key that it showed.
    pub pin: String,
    /// The key before, where it has changed.
    pub pin_before: String,
    /// When it changed.
    pub pin_changed: u64,
    /// Failures since the last success, by kind.
    pub failures: BTreeMap<String, u32>,
    /// The first of them.
    pub failing_since: u64,
    /// Beginning of a suspected downgrade: an attacker may strip TLS.
    pub suspected_since: u64,
    /// Time at which an operator said that this server has no TLS any more. The next success ends that.
    pub forgiven: u64,
}

impl Remembered {
    fn succeed(&mut self, now: u64, version: &str, pin: Option<String>) {
        if self.first_success == 0 {
            self.first_success = now;
        }
        self.last_success = now;
        version.clone_into(&mut self.version);
        if let Some(pin) = pin.filter(|pin| *pin != self.pin) {
            if !self.pin.is_empty() {
                self.pin_before = std::mem::take(&mut self.pin);
                self.pin_changed = now;
            }
            self.pin = pin;
        }
        self.failures.clear();
        (self.failing_since, self.suspected_since, self.forgiven) = (0, 0, 0);
    }

    fn fail(&mut self, now: u64, fault: TlsFault) {
        let count = self.failures.entry(fault.label().to_owned()).or_default();
        *count = count.saturating_add(1);
        if self.failing_since == 0 {
            self.failing_since = now;
        }
    }

    fn all_failures(&self) -> u32 {
        self.failures.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Whether its last TLS is so recent that it still must speak TLS.
    fn must_speak(&self, now: u64, window: u64) -> bool {
        // A clock that was set back makes the success no older.
        let last = self.last_success.max(self.name_spoke);
        last > 0 && self.forgiven == 0 && now.saturating_sub(last) < window
    }

    fn may_speak_clear(&self, now: u64, window: u64) -> bool {
        self.all_failures() > 0 && !self.must_speak(now, window)
    }

    /// Whether a server that must speak TLS accepts connections and fails at TLS, or answers only in clear.
    fn is_suspicious(&self, now: u64, window: u64, answers_in_clear: bool) -> bool {
        let unconnected = self.failures.get(TlsFault::Unconnected.label()).copied().unwrap_or_default();
        let in_tls = self.all_failures().saturating_sub(unconnected);
        let is_failing = in_tls >= FAILURES_MIN || (answers_in_clear && self.all_failures() >= FAILURES_MIN);
        is_failing && self.must_speak(now, window)
    }
}

/// The memory of one backend. Clones share it; two are equal if they are the same one.
#[derive(Clone, Debug, Default)]
pub struct TlsMemory(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    may_speak_clear: AtomicBool,
    is_failing: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    row: Remembered,
    window: u64,
    is_opportunistic: bool,
    /// The last success that the file has.
    saved_success: u64,
    /// The file lacks something that it must have.
    is_unsaved: bool,
    suspicions: u64,
    pin_changes: u64,
}

impl PartialEq for TlsMemory {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TlsMemory {}

impl TlsMemory {
    /// The memory that a file has. Failures before a start say nothing about the present.
    #[must_use]
    pub fn of(row: Remembered) -> Self {
        let memory = Self::default();
        {
            let mut kept = memory.kept();
            kept.saved_success = row.last_success;
            kept.row = Remembered { failures: BTreeMap::new(), failing_since: 0, ..row };
        }
        memory
    }

    /// Sets the time after its last TLS in which the backend is not asked in clear, and whether any key is accepted.
    pub fn judge_by(&self, window: Duration, is_opportunistic: bool) {
        let mut kept = self.kept();
        (kept.window, kept.is_opportunistic) = (window.as_secs(), is_opportunistic);
        self.publish(&kept, unix_now());
    }

    /// Takes over a handshake that a trial of this server noted.
    pub fn learn(&self, name: &str, proved: &Remembered) {
        let version = match proved.version.as_str() {
            "1.2" => TlsVersion::V1_2,
            "1.3" => TlsVersion::V1_3,
            _ => return,
        };
        self.note_success(name, (version, Some(proved.pin.clone()).filter(|pin| !pin.is_empty())));
    }

    /// Whether its last TLS was within `window`, and no operator has forgiven it.
    #[must_use]
    pub fn must_speak_within(&self, window: Duration) -> bool {
        self.kept().row.must_speak(unix_now(), window.as_secs())
    }

    /// Another server of the same name spoke TLS at `last`: a resolver with forged answers must not bring cleartext by a new address.
    pub fn share(&self, last: u64) {
        let mut kept = self.kept();
        let is_news = kept.is_opportunistic && last > kept.row.last_success;
        kept.row.name_spoke = if is_news { last } else { 0 };
        self.publish(&kept, unix_now());
    }

    /// Whether a backend that stands in for this one may be asked. One load: workers ask for each query that finds no other
    /// backend.
    #[must_use]
    pub fn may_speak_clear(&self) -> bool {
        self.0.may_speak_clear.load(Relaxed)
    }

    /// Whether the last handshake failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.0.is_failing.load(Relaxed)
    }

    /// Notes a completed handshake.
    pub fn note_success(&self, name: &str, (version, pin): (TlsVersion, Option<String>)) {
        let version = match version {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        };
        let now = unix_now();
        let mut kept = self.kept();
        let before = kept.row.clone();
        kept.row.succeed(now, version, pin);
        let is_news = before.first_success == 0 || before.version != kept.row.version || before.forgiven != 0;
        if before.suspected_since != 0 {
            tracing::info!(backend = name, "speaks TLS again: no downgrade is suspected any more");
        }
        let has_other_key =
            kept.row.pin_changed != before.pin_changed || kept.row.pin_before != before.pin_before;
        if has_other_key {
            kept.pin_changes = kept.pin_changes.saturating_add(1);
            let (old, new) = (&kept.row.pin_before, &kept.row.pin);
            if kept.is_opportunistic {
                tracing::warn!(
                    backend = name,
                    old,
                    new,
                    "the server has another key, and nothing proves whose it is"
                );
            } else {
                tracing::info!(
                    backend = name,
                    old,
                    new,
                    "the server has another key, which its name or a pin proves"
                );
            }
        }
        let is_old = is_too_old(kept.saved_success, now, kept.window);
        kept.is_unsaved |= is_news || has_other_key || is_old || before.suspected_since != 0;
        self.publish(&kept, now);
    }

    /// Notes a failed handshake, or a connection that was not accepted.
    pub fn note_failure(&self, name: &str, fault: TlsFault) {
        let now = unix_now();
        let mut kept = self.kept();
        kept.row.fail(now, fault);
        self.judge(&mut kept, name, now, false);
    }

    /// Judges again, as time passes; `answers_in_clear`: the backend that stands in for this one answers.
    pub fn look(&self, name: &str, answers_in_clear: bool) {
        let mut kept = self.kept();
        self.judge(&mut kept, name, unix_now(), answers_in_clear);
    }

    /// An operator says that the server has no TLS any more, or that its failure is known.
    ///
    /// # Errors
    /// It does not fail.
    pub fn forgive(&self) -> Result<(), &'static str> {
        let now = unix_now();
        let mut kept = self.kept();
        if kept.row.all_failures() == 0 && kept.row.suspected_since == 0 {
            return Err("its TLS does not fail: there is nothing to forgive");
        }
        (kept.row.forgiven, kept.row.suspected_since) = (now, 0);
        kept.is_unsaved = true;
        self.publish(&kept, now);
        Ok(())
    }

    /// The present record.
    #[must_use]
    pub fn row(&self) -> Remembered {
        self.kept().row.clone()
    }

    /// The number of suspected downgrades since the start, and of changes of the key.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let kept = self.kept();
        (kept.suspicions, kept.pin_changes)
    }

    /// Whether the file lacks something that it must have.
    #[must_use]
    pub fn is_unsaved(&self) -> bool {
        self.kept().is_unsaved
    }

    /// The row for the file; it counts as written from now on.
    #[must_use]
    pub fn save(&self) -> Remembered {
        let mut kept = self.kept();
        (kept.saved_success, kept.is_unsaved) = (kept.row.last_success, false);
        kept.row.clone()
    }

    fn judge(&self, kept: &mut Kept, name: &str, now: u64, answers_in_clear: bool) {
        let is_suspected = kept.row.suspected_since != 0;
        if !is_suspected && kept.row.is_suspicious(now, kept.window, answers_in_clear) {
            kept.row.suspected_since = now;
            kept.suspicions = kept.suspicions.saturating_add(1);
            kept.is_unsaved = true;
            tracing::warn!(
                backend = name,
                failures = ?kept.row.failures,
                "downgrade suspected: the server spoke TLS lately, and fails now; it is not asked in clear. `dotd upstream \
                 history` says more, `dotd upstream forgive` ends this"
            );
        } else if is_suspected && !kept.row.must_speak(now, kept.window) {
            kept.row.suspected_since = 0;
            kept.is_unsaved = true;
            tracing::warn!(
                backend = name,
                "has not spoken TLS for balance.downgrade_window: no downgrade is suspected any more"
            );
        }
        self.publish(kept, now);
    }

    fn publish(&self, kept: &Kept, now: u64) {
        self.0.is_failing.store(kept.row.all_failures() > 0, Relaxed);
        self.0.may_speak_clear.store(kept.row.may_speak_clear(now, kept.window), Relaxed);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a crash must not leave the file with this success as the last one: too little of the window would be left, or the
/// clock was wrong when it was saved.
fn is_too_old(saved: u64, now: u64, window: u64) -> bool {
    now.abs_diff(saved) >= SUCCESS_AGE_MAX.min(window / 2)
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests;
