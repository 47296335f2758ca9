//! The keys of session tickets, of which the keeper has a copy for the next engine.
//!
//! Before: a start, a reload, a renewal, or a rotation by time or by command has made keys. After: workers use them,
//! and the keeper has them.
//! Never: lets keys that ended come back. The keeper gets the keys of a rotation by time within a second; its older
//! keys end by their own clock.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    keeper::{Keeper, KeeperError},
    tls::Tickets,
};

/// Keys, and whether the keeper has them.
pub(super) struct KeptTickets {
    keeper: Keeper,
    /// `None` until the start has made them.
    tickets: Mutex<Option<Tickets>>,
    /// The revision of the keys that the keeper has.
    revision: AtomicU64,
}

impl KeptTickets {
    pub(super) fn with(keeper: Keeper) -> Self {
        Self { keeper, tickets: Mutex::default(), revision: AtomicU64::new(0) }
    }

    /// Sessions are resumed with these keys from now on, also in the next engine. Call it before a worker has them.
    pub(super) fn resume_by(&self, tickets: &Tickets) {
        *self.tickets.lock().unwrap_or_else(PoisonError::into_inner) = Some(tickets.clone());
        if let Err(error) = self.keep(tickets) {
            tracing::warn!("the keeper does not hold the keys of session tickets for a next engine: {error}");
        }
    }

    /// Gives the keeper keys that have changed by their own clock, or that it refused before, during an upgrade.
    pub(super) fn keep_rotated(&self) {
        let is_new = |tickets: &Tickets| {
            tickets.revision().is_some_and(|revision| revision != self.revision.load(Relaxed))
        };
        if let Some(tickets) = self.now().filter(is_new) {
            // The next call tries again; another request notices a keeper that does not answer.
            let _ = self.keep(&tickets);
        }
    }

    /// Starts the next rotation now; `ends_old`: older tickets are rejected.
    ///
    /// # Errors
    /// The keys cannot be rotated, or a next engine would continue with the old keys.
    pub(super) fn rotate(&self, ends_old: bool) -> Result<(), String> {
        let tickets = self.now().ok_or("dotd is starting; try again")?;
        tickets.rotate(ends_old).map_err(|error| error.to_string())?;
        self.keep(&tickets).map_err(|error| format!("the keys have changed only in this engine: {error}"))
    }

    fn now(&self) -> Option<Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, tickets: &Tickets) -> Result<(), KeeperError> {
        let revision = tickets.revision().unwrap_or_default();
        let kept = self.keeper.keep(&tickets.write());
        if !matches!(kept, Err(KeeperError::Refused(_))) {
            self.revision.store(revision, Relaxed);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsRawFd as _, path::Path, thread, time::Duration};

    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

    use super::*;

    /// Goal: keys that the keeper refuses, as during an upgrade, are sent again until it has them, and then no more;
    /// otherwise keys that an operator has ended would come back with the next engine. Method: a keeper that refuses
    /// once.
    #[test]
    fn refused_keys_are_told_again() {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let answers = thread::spawn(move || {
            let (mut packet, mut answers) = ([0; 512], [&b"rlater"[..], b"d", b"d"].into_iter());
            let mut asked = 0;
            while recv(ours.as_raw_fd(), &mut packet, MsgFlags::empty()).is_ok_and(|octets| octets > 0) {
                asked += 1;
                send(ours.as_raw_fd(), answers.next().unwrap(), MsgFlags::empty()).unwrap();
            }
            asked
        });
        let kept = KeptTickets::with(Keeper::at(theirs));
        kept.resume_by(&Tickets::new(Path::new(""), Duration::from_secs(3600)).unwrap());
        (0..3).for_each(|_| kept.keep_rotated());
        drop(kept);
        assert_eq!(answers.join().unwrap(), 2);
    }
}
