//! Queries that wait for an answer that has already been asked for.
//!
//! Before: the cache has no answer. After: the first query goes to a backend, and equal ones wait for the same
//! answer.
//! Holds: the askers that wait for each key; one entry for each query of the cache at a backend.
//! Never: lets more than [`WAITING_MAX`] askers wait for one answer, or uses their content.

use std::collections::HashMap;

use super::Key;

/// Most askers that wait for one answer; the queries of further ones go to a backend.
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

/// The result for an asker that would wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It waits with others.
    Waits,
    /// No backend has been asked: the caller must ask.
    IsFirst,
    /// Too many askers wait.
    IsFull,
}

impl<W> Pending<W> {
    /// Adds the asker that `waiter` makes, if a backend has been asked for that answer.
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

    /// A backend is asked for the answer to `key`, for `first` or without an asker.
    pub fn begin(&mut self, key: &Key, first: Option<W>) {
        self.by_key.insert(key.octets().into(), first.into_iter().collect());
    }

    /// Whether a backend has been asked for the answer to `key`.
    pub fn has(&self, key: &Key) -> bool {
        self.by_key.contains_key(key.octets())
    }

    /// All askers that wait for `key`, in order of arrival.
    pub fn end(&mut self, key: &Key) -> Vec<W> {
        self.by_key.remove(key.octets()).unwrap_or_default()
    }

    /// These askers continue to wait.
    pub fn resume(&mut self, key: &Key, waiting: Vec<W>) {
        self.by_key.insert(key.octets().into(), waiting);
    }
}
