//! A session's part in fairness: whether it may read on, and whether its client may ask.
//!
//! Before: the session is polled, or its reader has a message. After: it goes on, or waits for its turn or its client's
//! rate, and will be woken.
//! Holds: the units that a session was granted. Never: decides which session is next (`turns`), or how much a client
//! may ask (`rates`).

use std::rc::Rc;

use tokio::time::Instant;

use super::{Inbox, rates::Pace};
use crate::{events::What, ledger::Counter};

/// The state of a session that may have to wait for its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Waits {
    /// It does not wait.
    #[default]
    Not,
    /// It waits for its turn.
    InLine,
    /// It may use this many units.
    Granted(u32),
}

impl Inbox {
    /// Whether the next message is within the client's rate. A message that was held is sent when its time has come,
    /// and is not counted again.
    pub(super) fn pace(&self, now: Instant) -> Pace {
        let pace = match self.delayed_until.take() {
            Some(until) if until > now => Pace::At(until),
            Some(_) => Pace::Within,
            None => match self.shared.pace(self.client.source.ip(), self.member.get(), now) {
                Pace::Within => self.shared.slowed(self.client.source.ip(), now),
                other => other,
            },
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

    /// Counts a refusal by its reason.
    pub(super) fn refused(&self, reason: Counter) {
        self.shared.events.refused_by(self.client.source, Some(self.number.get()), reason, None);
    }

    /// Tells operators that a query is misuse, and why it is refused.
    pub(super) fn tell_misuse(&self, what: What, refused: Option<Counter>) {
        self.tell(|_| what.clone());
        refused.into_iter().for_each(|reason| self.refused(reason));
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

    /// Notes used units.
    pub(super) fn end_turn(&self, units: u32) {
        self.shared.spend(self.row, units);
    }

    /// There is more to read, but no unit is left: the session goes on in a later turn.
    pub(super) fn wait_for_turn(self: &Rc<Self>) {
        if self.turn.get() != Waits::InLine {
            self.turn.set(Waits::InLine);
            self.shared.counters.add(Counter::TurnsWaited, 1);
            self.shared.turns.wait(self.row, self);
        }
    }

    /// Gives the session its turn, with this many units. `false`: the session has ended.
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
