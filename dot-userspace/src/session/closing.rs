//! When the sessions of a worker must end although their clients are still connected.
//!
//! Before: the worker has to drain, to give its sessions to the next engine, or to stop DNS over TLS. After: each
//! session asks [`WorkerShared::must_close`] before it reads the next query.
//! Never: cuts a session that has queries in flight.

use super::{Moving, SessionEnd, WorkerShared};

impl WorkerShared {
    /// No session reads another query. Each one ends when all its queries are answered.
    pub fn drain(&self) {
        self.is_draining.set(true);
        self.renew_hop();
        self.wake_all();
    }

    /// Switches DNS over TLS on or off. While it is off, its sessions end as in [`WorkerShared::drain`]; sessions in
    /// clear continue.
    pub fn switch(&self, is_on: bool) {
        self.is_off.set(!is_on);
        self.wake_all();
    }

    /// Whether DNS over TLS is switched off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.is_off.get()
    }

    /// Whether all queries are answered: no session is open or lingers, and no datagram waits for its response.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.sessions.borrow().is_empty() && self.lingering.is_empty() && self.owed.get() == 0
    }

    /// The reason why a session must not read another query, if there is one.
    pub(super) fn must_close(&self, is_tls: bool) -> Option<SessionEnd> {
        let must_move = || matches!(self.moving.get(), Moving::Now(_)).then_some(SessionEnd::Moved);
        (self.is_draining.get() || (is_tls && self.is_off.get()))
            .then_some(SessionEnd::Drain)
            .or_else(must_move)
    }
}
