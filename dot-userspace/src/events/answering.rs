//! The backend whose answer is being passed on, for events of code that knows no backend.
//!
//! Before: an answer matches a query in flight. After: `dotd trace` names the backend of a response, and its tries.
//! Holds: whether the worker of this thread has a trace. Never: costs more than a branch while it has none.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

thread_local! {
    /// Whether the worker of this thread has a trace.
    static IS_TRACING: Cell<bool> = const { Cell::new(false) };
    /// The backend whose answer is being passed on, and its tries.
    static ANSWERED_BY: RefCell<Option<(Arc<str>, u32)>> = const { RefCell::new(None) };
}

/// Whether the worker of this thread has a trace, for code that does not know the client.
#[inline]
#[must_use]
pub fn is_tracing() -> bool {
    IS_TRACING.get()
}

/// Runs `pass_on`, which passes a backend's answer on; its events name the backend.
#[inline]
pub fn answered_by<T>(backend: &Arc<str>, tries: impl FnOnce() -> u32, pass_on: impl FnOnce() -> T) -> T {
    if !IS_TRACING.get() {
        return pass_on();
    }
    ANSWERED_BY.set(Some((Arc::clone(backend), tries())));
    let passed = pass_on();
    ANSWERED_BY.set(None);
    passed
}

/// The backend whose answer is being passed on, and its tries.
#[must_use]
pub fn answering() -> Option<(Arc<str>, u32)> {
    ANSWERED_BY.with_borrow(Clone::clone)
}

/// Notes whether the worker of this thread has a trace.
pub(super) fn set_tracing(is_tracing: bool) {
    IS_TRACING.set(is_tracing);
}
