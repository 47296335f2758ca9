//! What the ACME process has reached, for operators: in a file, because it and the engine share nothing else.
//!
//! Before: the ACME process has done something. After: `dotd acme status`, `dotd status` and the metrics show it, and the next ACME
//! process continues by it.
//! Never: holds a secret.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{pace, words::Failure};
use crate::config::Acme;

/// The state while an order is under way.
pub(super) const ORDERING: &str = "ordering";

/// The state of `[acme]`. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Standing {
    /// The URL of the authority's directory.
    pub directory: String,
    /// The names that are asked for.
    pub names: Vec<String>,
    /// "http-01" or "dns-01".
    pub challenge: String,
    /// The profile that is asked for.
    pub profile: String,
    /// "waiting", "ordering", "issued" or "failing".
    pub state: String,
    /// The end of the certificate's validity.
    pub not_after: Option<u64>,
    /// The directory whose authority issued it.
    pub issued_by: String,
    /// When the last certificate was issued.
    pub last_success: Option<u64>,
    /// When the last attempt failed.
    pub last_failure: Option<u64>,
    /// Failures since the last success.
    pub failures: u32,
    /// Those of them in which the authority was not reached.
    pub unreached: u32,
    /// Certificates that were issued to this folder.
    pub issued: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Why the last attempt failed, if none has succeeded since.
    pub error: Option<String>,
    /// When the next attempt begins.
    pub next: Option<u64>,
    /// Why then.
    pub because: String,
}

impl Standing {
    /// The standing of another process goes on if it had the same errand; with another errand nothing is waited for.
    #[must_use]
    pub fn go_on(before: Self, acme: &Acme) -> Self {
        let fresh = Self {
            directory: acme.directory_url().to_owned(),
            names: acme.names.clone(),
            challenge: acme.challenge.label().to_owned(),
            profile: acme.profile.clone(),
            state: "waiting".to_owned(),
            issued: before.issued,
            failed: before.failed,
            last_success: before.last_success,
            last_failure: before.last_failure,
            issued_by: before.issued_by.clone(),
            ..Self::default()
        };
        let is_same = before.directory == fresh.directory
            && before.names == fresh.names
            && before.challenge == fresh.challenge
            && before.profile == fresh.profile;
        match (is_same, before.state == ORDERING) {
            (true, false) => before,
            // Whatever ended it may happen again: the time that was noted before the order is waited for.
            (true, true) => Self {
                state: "failing".to_owned(),
                failures: before.failures.saturating_add(1),
                failed: before.failed.saturating_add(1),
                error: Some("the ACME process ended during an order".to_owned()),
                ..before
            },
            (false, _) => fresh,
        }
    }

    /// When the next attempt may begin after a failure. A clock that was wrong may have noted a time far from now, which counts for
    /// nothing.
    pub(super) fn waits_until(&self, now: SystemTime) -> Option<SystemTime> {
        let next = self.next.filter(|_| self.failures > 0)?;
        let next = UNIX_EPOCH.checked_add(Duration::from_secs(next))?;
        (next <= now + pace::WAIT_MAX).then_some(next)
    }

    /// Notes that an order begins. If the process ends during it, the next one waits until the time that is noted here.
    pub(super) fn begin(&mut self, now: SystemTime) {
        let wait = now + pace::unfinished(self.refusals());
        let next = self.waits_until(now).map_or(wait, |until| until.max(wait));
        (self.next, self.state) = (Some(seconds(next)), ORDERING.to_owned());
    }

    /// Notes a failure; returns how long the next attempt waits. `before`: what was waited for when the order began, perhaps because the
    /// authority had said so; an attempt that did not reach it does not shorten that.
    pub(super) fn fail(
        &mut self,
        failure: Failure,
        before: Option<SystemTime>,
        (now, chance): (SystemTime, f64),
    ) -> Duration {
        (self.failures, self.failed) = (self.failures.saturating_add(1), self.failed.saturating_add(1));
        self.unreached = self.unreached.saturating_add(u32::from(failure.is_unreached));
        let pause = if failure.is_unreached {
            let left = before.and_then(|before| before.duration_since(now).ok()).unwrap_or_default();
            pace::unreached(self.unreached, chance).max(left)
        } else {
            pace::retry(self.refusals(), failure.wait, chance)
        };
        (self.last_failure, self.next) = (Some(seconds(now)), Some(seconds(now + pause)));
        self.error = Some(failure.text);
        pause
    }

    /// Failures of which the authority may know.
    fn refusals(&self) -> u32 {
        self.failures.saturating_sub(self.unreached)
    }
}

/// Seconds since 1970.
pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: another process goes on by the state of the one before, also after an end during an order; another errand waits for nothing.
    /// Method: the same section, and others.
    #[test]
    fn another_process_goes_on() {
        let acme =
            Acme { directory: "letsencrypt".into(), names: vec!["a.example".into()], ..Acme::default() };
        let first = Standing::go_on(Standing::default(), &acme);
        assert_eq!((first.state.as_str(), first.failures, first.next), ("waiting", 0, None));
        let failing = Standing { failures: 3, failed: 5, next: Some(77), state: "failing".into(), ..first };
        assert_eq!(Standing::go_on(failing.clone(), &acme), failing);
        let cut = Standing { state: ORDERING.into(), ..failing.clone() };
        let next = Standing::go_on(cut, &acme);
        assert_eq!((next.failures, next.failed, next.next), (4, 6, Some(77)));
        for other in [
            Acme { directory: "letsencrypt-staging".into(), ..acme.clone() },
            Acme { names: vec!["b.example".into()], ..acme.clone() },
            Acme { profile: "shortlived".into(), ..acme.clone() },
        ] {
            let next = Standing::go_on(failing.clone(), &other);
            assert_eq!((next.failures, next.next, next.failed), (0, None, 5));
        }
    }
    /// Goal: an attempt that does not reach the authority, and one that is cut off, do not shorten a wait that the authority asked for; each
    /// order that is cut off waits longer; a time that a wrong clock noted is not waited for. Method: a refusal with Retry-After, then
    /// these.
    #[test]
    fn a_wait_is_not_shortened() {
        let (now, day) = (UNIX_EPOCH + Duration::from_secs(1_800_000_000), Duration::from_secs(86_400));
        let mut standing = Standing::default();
        let refused = Failure { wait: Some(day), ..Failure::new("refused") };
        assert_eq!(standing.fail(refused, None, (now, 0.0)), day);
        let (until, soon) = (standing.waits_until(now), now + Duration::from_secs(60));
        assert_eq!(until, Some(now + day));
        standing.begin(soon);
        assert_eq!(standing.waits_until(soon), until, "if the process ends now, the next one waits as long");
        let unreached = Failure { is_unreached: true, ..Failure::new("no network") };
        standing.fail(unreached.clone(), until, (soon, 0.0));
        assert_eq!((standing.waits_until(soon), standing.failures, standing.unreached), (until, 2, 1));
        let late = now + day * 2;
        assert_eq!(standing.fail(unreached, until, (late, 0.0)), Duration::from_secs(20));
        let mut cut = Standing::default();
        let mut waits = Vec::new();
        for _ in 0..4 {
            cut.begin(now);
            waits.push(cut.next.unwrap() - seconds(now));
            (cut.failures, cut.next) = (cut.failures + 1, None);
        }
        assert_eq!(waits, [60, 120, 240, 480]);
        for next in [seconds(now + day * 4000), u64::MAX] {
            let wrong = Standing { failures: 1, next: Some(next), ..Standing::default() };
            assert_eq!(wrong.waits_until(now), None, "{next}");
        }
    }
}
