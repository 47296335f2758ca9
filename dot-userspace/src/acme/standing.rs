//! What the ACME process has reached, for operators: in a file, because it and the engine share nothing else.
//!
//! Before: the ACME process has done something. After: `dotd acme status`, `dotd status` and the metrics show it, and the next ACME
//! process continues by it.
//! Never: holds a secret.

use serde::{Deserialize, Serialize};

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
                failed: before.failed + 1,
                error: Some("the ACME process ended during an order".to_owned()),
                ..before
            },
            (false, _) => fresh,
        }
    }
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
}
