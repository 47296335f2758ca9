//! The state of each transferred zone for operators, and their requests to ask for it at once.
//!
//! Before: the zone's task has asked a primary server. After: `dotd policy`, `status` and `/metrics` show it.
//! Holds: an entry for each transferred zone of the config.
//! Never: is used by a worker.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use tokio::sync::Notify;

use crate::control::TransferStatus;

/// All zones. Clones share them.
#[derive(Clone, Default)]
pub(in crate::start) struct Standings(Arc<Mutex<BTreeMap<String, Standing>>>);

/// One zone.
#[derive(Default)]
pub(super) struct Standing {
    bell: Arc<Notify>,
    /// When a primary server last confirmed the present version.
    pub(super) confirmed: Option<SystemTime>,
    /// When a server is asked next.
    pub(super) next: Option<Instant>,
    pub(super) transfers: u64,
    pub(super) failures: u64,
    pub(super) is_expired: bool,
    /// The last transfer: its server, method, records and octets.
    pub(super) last: Option<(String, &'static str, u64, u64)>,
    pub(super) error: Option<String>,
}

impl Standings {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the zones; the state of those that stay is kept.
    pub(super) fn follow(&self, zones: impl Iterator<Item = (String, Arc<Notify>)>) {
        let mut all = self.lock();
        let mut before = std::mem::take(&mut *all);
        all.extend(zones.map(|(name, bell)| {
            let known = before.remove(&name).unwrap_or_default();
            (name, Standing { bell, ..known })
        }));
    }

    /// Changes the state of a zone, if it is still in the config.
    pub(super) fn note(&self, zone: &str, change: impl FnOnce(&mut Standing)) {
        if let Some(standing) = self.lock().get_mut(zone) {
            change(standing);
        }
    }

    /// When a version of this zone was last confirmed.
    pub(super) fn confirmed(&self, zone: &str) -> Option<SystemTime> {
        self.lock().get(zone)?.confirmed
    }

    /// Asks for this zone at once, or for all of them; returns their names.
    pub(in crate::start) fn ring(&self, zone: Option<&str>) -> Vec<String> {
        let all = self.lock();
        let is_meant = |name: &str| zone.is_none_or(|zone| zone.eq_ignore_ascii_case(name));
        let meant = all.iter().filter(|(name, _)| is_meant(name));
        meant
            .map(|(name, standing)| {
                standing.bell.notify_one();
                name.clone()
            })
            .collect()
    }

    /// The state of a zone for operators.
    pub(in crate::start) fn status(&self, zone: &str) -> Option<TransferStatus> {
        let all = self.lock();
        let standing = all.get(zone)?;
        let confirmed =
            standing.confirmed.map(|at| SystemTime::now().duration_since(at).unwrap_or_default().as_secs());
        let state = match (&standing.error, confirmed) {
            _ if standing.is_expired => "expired",
            (Some(_), _) => "failing",
            (None, Some(_)) => "current",
            (None, None) => "waiting",
        };
        let next = standing.next.map(|at| at.saturating_duration_since(Instant::now()).as_secs());
        Some(TransferStatus {
            state: state.to_owned(),
            confirmed_seconds: confirmed,
            next_seconds: next,
            transfers: standing.transfers,
            failures: standing.failures,
            server: standing.last.as_ref().map(|(server, ..)| server.clone()),
            method: standing.last.as_ref().map(|(_, method, ..)| (*method).to_owned()),
            records: standing.last.as_ref().map(|(_, _, records, _)| *records),
            octets: standing.last.as_ref().map(|(_, _, _, octets)| *octets),
            error: standing.error.clone(),
        })
    }
}
