//! Where a session stands among others: whether it may read on, and whether its client may ask.
//!
//! Before: the session is polled, or its reader has a message. After: it goes on, or waits for its turn or for its client's
//! rate, and is woken.
//! Holds: what a session has been granted. Never: decides who is next (`turns`), or how much a client may (`rates`).

use std::rc::Rc;

use tokio::time::Instant;

use super::{Inbox, rates::Pace};
use crate::ledger::Counter;

/// Where a session stands that may have to wait for its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Waits {
    /// Nowhere.
    #[default]
    Not,
    /// Others come first.
    InLine,
    /// It may use so many units.
    Granted(u32),
}

impl Inbox {
    /// Whether the next message is within the client's rate now. One that was held goes when its time has come, and is not
    /// counted once more.
    pub(super) fn pace(&self, now: Instant) -> Pace {
        let pace = match self.delayed_until.take() {
            Some(until) if until > now => Pace::At(until),
            Some(_) => Pace::Within,
            None => self.shared.pace(self.client.source.ip(), now),
        };
        if let Pace::At(until) = pace {
            self.delayed_until.set(Some(until));
        }
        pace
    }

    /// Until when the next message is held for its client's rate.
    pub(super) fn delayed_until(&self) -> Option<Instant> {
        self.delayed_until.get()
    }

    /// Its client was refused something, for this reason.
    pub(super) fn refused(&self, reason: Counter) {
        self.shared.events.refused(self.client.source.ip(), reason);
    }

    /// Units that the session may use in the turn that begins.
    pub(super) fn begin_turn(&self) -> u32 {
        let granted = match self.turn.get() {
            Waits::Granted(units) => units,
            Waits::Not | Waits::InLine => 0,
        };
        if granted > 0 {
            self.turn.set(Waits::Not);
        }
        self.shared.units(self.row, granted)
    }

    /// So many of them were used.
    pub(super) fn end_turn(&self, units: u32) {
        self.shared.spend(self.row, units);
    }

    /// There is more to read, and none of the turn is left: goes on in a later one.
    pub(super) fn wait_for_turn(self: &Rc<Self>) {
        if self.turn.get() != Waits::InLine {
            self.turn.set(Waits::InLine);
            self.shared.counters.add(Counter::TurnsWaited, 1);
            self.shared.turns.wait(self.row, self);
        }
    }

    /// It is the session's turn, with so many units. `false`: it has ended.
    pub(super) fn take_turn(&self, units: u32) -> bool {
        let is_open = self.is_open.get();
        self.turn.set(if is_open { Waits::Granted(units) } else { Waits::Not });
        self.wake();
        is_open
    }

    #[cfg(test)]
    pub(super) fn granted(&self) -> u32 {
        if let Waits::Granted(units) = self.turn.get() { units } else { 0 }
    }
}
