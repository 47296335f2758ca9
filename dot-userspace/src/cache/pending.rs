//! Queries that wait for an answer that is already being asked for.
//!
//! Before: the cache has no answer. After: the first one asks a backend, equal ones wait with it.
//! Holds: the askers that wait for each key; there is one entry for each of the cache's queries at the backends.
//! Never: has more than [`WAITING_MAX`] wait for one answer, or knows who they are.

use std::collections::HashMap;

use super::Key;

/// Most that wait for one answer; further ones ask for themselves.
const WAITING_MAX: usize = 1024;

/// The waiting askers.
pub struct Pending<W> {
    by_key: HashMap<Box<[u8]>, Vec<W>>,
}

impl<W> Default for Pending<W> {
    fn default() -> Self {
        Self { by_key: HashMap::new() }
    }
}

/// What became of one that would wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It waits with others.
    Waits,
    /// No query is under way: the caller must ask.
    IsFirst,
    /// Too many wait.
    IsFull,
}

impl<W> Pending<W> {
    /// Has the one that `waiter` makes wait, if that answer is being asked for.
    pub fn join(&mut self, key: &Key, waiter: impl FnOnce() -> W) -> Joined {
        match self.by_key.get_mut(key.octets()) {
            None => Joined::IsFirst,
            Some(waiting) if waiting.len() >= WAITING_MAX => Joined::IsFull,
            Some(waiting) => {
                waiting.push(waiter());
                Joined::Waits
            }
        }
    }

    /// The answer to `key` is being asked for, for `first` or without an asker.
    pub fn begin(&mut self, key: &Key, first: Option<W>) {
        self.by_key.insert(key.octets().into(), first.into_iter().collect());
    }

    /// Whether the answer to `key` is being asked for.
    pub fn has(&self, key: &Key) -> bool {
        self.by_key.contains_key(key.octets())
    }

    /// All askers that wait for `key`, in order of arrival.
    pub fn end(&mut self, key: &Key) -> Vec<W> {
        self.by_key.remove(key.octets()).unwrap_or_default()
    }

    /// They wait on after all.
    pub fn resume(&mut self, key: &Key, waiting: Vec<W>) {
        self.by_key.insert(key.octets().into(), waiting);
    }
}
