//! The keys of session tickets, which the keeper has too, for the next engine.
//!
//! Before: a start, a reload, a renewal, a rotation by time or by command has made keys. After: workers use them, and the keeper
//! has them.
//! Never: lets a worker use keys before the keeper has them, so that keys that ended never come back.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    keeper::{Keeper, KeeperError},
    tls::Tickets,
};

/// Keys, and whether the keeper has them.
pub(super) struct KeptTickets {
    keeper: Keeper,
    /// `None` until the start has them.
    tickets: Mutex<Option<Tickets>>,
    /// Which key the keeper has.
    revision: AtomicU64,
}

impl KeptTickets {
    pub(super) fn with(keeper: Keeper) -> Self {
        Self { keeper, tickets: Mutex::default(), revision: AtomicU64::new(0) }
    }

    /// Sessions resume by these from now on, also with the next engine. To be called before a worker has them.
    pub(super) fn resume_by(&self, tickets: &Tickets) {
        *self.tickets.lock().unwrap_or_else(PoisonError::into_inner) = Some(tickets.clone());
        if let Err(error) = self.keep(tickets) {
            tracing::warn!("the keys of session tickets are not kept for a next engine: {error}");
        }
    }

    /// Gives the keeper keys that have changed by their own clock.
    pub(super) fn keep_rotated(&self) {
        let is_new = |tickets: &Tickets| {
            tickets.revision().is_some_and(|revision| revision != self.revision.load(Relaxed))
        };
        if let Some(tickets) = self.now().filter(is_new) {
            self.resume_by(&tickets);
        }
    }

    /// Begins the next rotation now; `ends_old`: older tickets resume nothing.
    ///
    /// # Errors
    /// Why not, or that a next engine would go on with the keys from before.
    pub(super) fn rotate(&self, ends_old: bool) -> Result<(), String> {
        let tickets = self.now().ok_or("dotd is starting; try again")?;
        tickets.rotate(ends_old).map_err(|error| error.to_string())?;
        self.keep(&tickets).map_err(|error| format!("the keys have changed in this engine alone: {error}"))
    }

    fn now(&self) -> Option<Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, tickets: &Tickets) -> Result<(), KeeperError> {
        self.revision.store(tickets.revision().unwrap_or_default(), Relaxed);
        self.keeper.keep(&tickets.write())
    }
}
