//! What a session shows of itself to those who decide who stays when all places are taken.
//!
//! Before: `worker` has a connection that may be a session. After: it sees since when nothing happens there, and can
//! ask it to leave.
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
pub struct Seat {
    idle_since: Cell<Option<Instant>>,
    must_leave: Cell<Option<SessionEnd>>,
    inbox: RefCell<Weak<Inbox>>,
    #[cfg(test)]
    woken: Cell<usize>,
}

impl Seat {
    /// Since when nothing was asked and nothing was owed; `None` while something is.
    #[must_use]
    pub fn idle_since(&self) -> Option<Instant> {
        self.idle_since.get()
    }

    /// The session ends as soon as it owes nothing: its place is wanted, or its descriptor too.
    pub fn ask_to_leave(&self, wanted: Wanted) {
        self.must_leave.set(Some(match wanted {
            Wanted::Place => SessionEnd::Evicted,
            Wanted::Descriptor => SessionEnd::Starved,
        }));
        self.wake();
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
        self.must_leave.get().is_some()
    }

    pub(super) fn take(&self, inbox: &Rc<Inbox>) {
        self.inbox.replace(Rc::downgrade(inbox));
    }

    pub(super) fn note(&self, idle_since: Option<Instant>) {
        self.idle_since.set(idle_since);
    }

    pub(super) fn must_leave(&self) -> Option<SessionEnd> {
        self.must_leave.get()
    }
}
