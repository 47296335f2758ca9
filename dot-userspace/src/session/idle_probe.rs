//! What a session shows of itself to those who decide who stays when all places are taken.
//!
//! Before: `worker` has a connection that may be a session. After: it sees since when nothing happens there, and can
//! ask it to leave; also while it only waits for its client to take the rest.
//! Never: costs a turn of its session more than a store.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
};

use tokio::time::Instant;

use super::{Inbox, SessionEnd};

/// What another connection needs of a session that is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Its place under the caps.
    Place,
    /// Its descriptor, at once.
    Descriptor,
}

/// A session, seen from outside.
#[derive(Default)]
pub struct IdleProbe {
    idle_since: Cell<Option<Instant>>,
    wanted: Cell<Option<Wanted>>,
    inbox: RefCell<Weak<Inbox>>,
    /// Its number among those of its worker that linger.
    lingering: Cell<Option<u64>>,
    #[cfg(test)]
    woken: Cell<usize>,
}

impl IdleProbe {
    /// Since when nothing was asked and nothing was owed; `None` while something is.
    #[must_use]
    pub fn idle_since(&self) -> Option<Instant> {
        self.idle_since.get()
    }

    /// The session ends as soon as it owes nothing: its place is wanted, or its descriptor too. One that lingers is over,
    /// and gives up what is wanted.
    pub fn ask_to_leave(&self, wanted: Wanted) {
        self.wanted.set(Some(wanted));
        let inbox = self.inbox.borrow().upgrade();
        match (self.lingering.get(), inbox) {
            (Some(number), Some(inbox)) => inbox.shared.lingering.give_up(number, wanted),
            _ => self.wake(),
        }
    }

    /// Has the session look at its clock.
    pub fn wake(&self) {
        #[cfg(test)]
        self.woken.set(self.woken.get() + 1);
        if let Some(inbox) = self.inbox.borrow().upgrade() {
            inbox.wake();
        }
    }

    #[cfg(test)]
    pub(crate) fn times_woken(&self) -> usize {
        self.woken.get()
    }

    #[cfg(test)]
    pub(crate) fn note_for_test(&self, idle_since: Option<Instant>) {
        self.note(idle_since);
    }

    #[cfg(test)]
    pub(crate) fn is_asked_to_leave(&self) -> bool {
        self.wanted.get().is_some()
    }

    pub(super) fn take(&self, inbox: &Rc<Inbox>) {
        self.inbox.replace(Rc::downgrade(inbox));
    }

    pub(super) fn note(&self, idle_since: Option<Instant>) {
        self.idle_since.set(idle_since);
    }

    /// The session lingers, as the one with this `number`; from now on it is idle if it was not.
    pub(super) fn note_lingering(&self, number: u64) {
        self.lingering.set(Some(number));
        if self.idle_since.get().is_none() {
            self.idle_since.set(Some(Instant::now()));
        }
    }

    /// What another connection needs of the session.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        self.wanted.get()
    }

    pub(super) fn must_leave(&self) -> Option<SessionEnd> {
        self.wanted.get().map(|wanted| match wanted {
            Wanted::Place => SessionEnd::Evicted,
            Wanted::Descriptor => SessionEnd::Starved,
        })
    }
}
