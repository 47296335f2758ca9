//! The state of a session that eviction needs, when all places are taken.
//!
//! Before: `worker` has a connection that may become a session. After: it knows since when the session has been idle,
//! and can ask it to leave, also while the session only waits for its client to read.
//! Never: costs a turn of the session more than one store.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
};

use tokio::time::Instant;

use super::{Inbox, SessionEnd};

/// A resource that another connection needs from an idle session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Its place under the caps.
    Place,
    /// Its descriptor, at once.
    Descriptor,
}

/// A session as eviction sees it.
#[derive(Default)]
pub struct IdleProbe {
    idle_since: Cell<Option<Instant>>,
    wanted: Cell<Option<Wanted>>,
    inbox: RefCell<Weak<Inbox>>,
    /// Its number among the lingering sessions of its worker.
    lingering: Cell<Option<u64>>,
    #[cfg(test)]
    woken: Cell<usize>,
}

impl IdleProbe {
    /// Since when it has had no query and no unwritten octet. `None`: it has some.
    #[must_use]
    pub fn idle_since(&self) -> Option<Instant> {
        self.idle_since.get()
    }

    /// Makes the session end as soon as all is written, because its place or also its descriptor is needed. A lingering
    /// session is over, and gives up what is needed.
    pub fn ask_to_leave(&self, wanted: Wanted) {
        self.wanted.set(Some(wanted));
        let inbox = self.inbox.borrow().upgrade();
        match (self.lingering.get(), inbox) {
            (Some(number), Some(inbox)) => inbox.shared.lingering.give_up(number, wanted),
            _ => self.wake(),
        }
    }

    /// Wakes the session, so that it checks the time.
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

    /// The session lingers now under this `number`, and counts as idle.
    pub(super) fn note_lingering(&self, number: u64) {
        self.lingering.set(Some(number));
        if self.idle_since.get().is_none() {
            self.idle_since.set(Some(Instant::now()));
        }
    }

    /// The resource that another connection needs.
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
