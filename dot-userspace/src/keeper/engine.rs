//! An engine process, as the keeper sees it: how it is signalled, and how it ended.
//!
//! Before: [`super::part`] forked it. After: it has ended, and the keeper knows how.
//! Holds: its user, as which it is signalled: the keeper has no right over processes of others.
//! Never: waits for it.
//!
//! Source: kill(2), waitpid(2).

use std::os::fd::OwnedFd;

use nix::{
    errno::Errno,
    sys::{
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::effective;

/// An engine process, as the keeper sees it.
pub(super) struct Engine {
    pub(super) pid: Pid,
    /// `None` once the engine has closed its end.
    pub(super) socket: Option<OwnedFd>,
    /// `server.user`, if it is another one than this process's: the config may name another one later.
    pub(super) user: Option<u32>,
    /// The engine has reported that it serves.
    pub(super) is_ready: bool,
}

impl Engine {
    pub(super) fn signal(&self, number: Signal) -> nix::Result<()> {
        effective::signal(self.pid, number, self.user)
    }

    pub(super) fn hand_on(&self, number: Signal) {
        // Either the engine has just ended (ESRCH), or this process may not act as its user: then its
        // service manager has to signal the engine.
        if let Err(errno) = self.signal(number)
            && errno != Errno::ESRCH
        {
            tracing::error!("{number} does not reach dotd's engine: {}", errno.desc());
        }
    }
}

/// How an engine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exit(i32),
    Signal(Signal),
    /// The engine ended, but nix cannot name how: a real-time signal ended it.
    Unknown,
}

impl std::fmt::Display for End {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(code) => write!(formatter, "with status {code}"),
            Self::Signal(number) => write!(formatter, "by {number}"),
            Self::Unknown => formatter.write_str("by a signal without a name"),
        }
    }
}

/// How the engine ended, if it has ended.
pub(super) fn ended(engine: Pid) -> Option<End> {
    match waitpid(engine, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(End::Exit(code)),
        Ok(WaitStatus::Signaled(_, number, _)) => Some(End::Signal(number)),
        Ok(_) | Err(Errno::EINTR) => None,
        // Another thread has already read the status, or nix does not know this status.
        Err(_) => Some(End::Unknown),
    }
}
