//! Queries that wait at a backend for the end of a turn, and the wake-up of the task that sends them.
//!
//! Before: `pool` gave a query to the backend. After: `udp` or `stream` took it and sends it.
//! Holds: slots, in the order in which they came. A slot may have ended, or moved to another backend, while it waited:
//! the task that takes it asks [`Flight::waits_at`](super::flights::Flight::waits_at).
//! Never: allocates once warm.

use std::{cell::RefCell, collections::VecDeque};

use tokio::sync::Notify;

/// The queue of one backend and one half.
#[derive(Default)]
pub struct Queue {
    slots: RefCell<VecDeque<u16>>,
    /// Wakes the task that sends them.
    pub work: Notify,
}

impl Queue {
    /// Queues `slot`; queries that are queued in one turn leave together.
    pub fn push(&self, slot: u16) {
        self.add(slot);
        self.work.notify_one();
    }

    /// Queues `slot` for the next wake-up, whatever causes that.
    pub fn add(&self, slot: u16) {
        self.slots.borrow_mut().push_back(slot);
    }

    /// Puts slots that could not be sent back to the front, in their order.
    pub fn put_back(&self, unsent: &[u16]) {
        let mut slots = self.slots.borrow_mut();
        unsent.iter().rev().for_each(|slot| slots.push_front(*slot));
    }

    /// Takes the slot that has waited longest.
    pub fn pop(&self) -> Option<u16> {
        self.slots.borrow_mut().pop_front()
    }

    /// Takes up to `count` slots and calls `each` with them.
    pub fn drain(&self, count: usize, each: impl FnMut(u16)) {
        let mut slots = self.slots.borrow_mut();
        let count = count.min(slots.len());
        slots.drain(..count).for_each(each);
    }

    /// Takes all slots.
    pub fn take(&self) -> VecDeque<u16> {
        self.slots.take()
    }

    /// Slots that wait.
    pub fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Whether no slot waits.
    pub fn is_empty(&self) -> bool {
        self.slots.borrow().is_empty()
    }
}
