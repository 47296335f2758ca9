//! The engine's side of the keeper protocol: sends a request and waits for the answer.
//!
//! Before: the engine needs something that only the keeper may do. After: the keeper has done it,
//! or the error says why not.
//! Holds: one request at a time. After a missing answer no further request is sent, because a late
//! answer would be taken for the answer to another request.
//! Never: runs on a worker's thread.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, send},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    ANSWER_TIMEOUT,
    words::{Answer, Request, State, VERSION},
};
use crate::xdp::{Attachments, Look};

/// Why the keeper did not do something.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeeperError {
    /// The keeper has ended, or does not answer in time.
    #[error("dotd's keeper process does not answer; restart dotd")]
    Silent,
    /// The keeper refused and gave this reason.
    #[error("{0}")]
    Refused(String),
    /// No keeper runs here.
    #[error("{0}")]
    Absent(String),
    /// The other program cannot take over from this build; a restart works.
    #[error("{0}")]
    Incompatible(String),
}

/// The engine that serves in place of this one.
pub struct Successor {
    /// The socket through which sessions go to it. `None`: the keeper that started it knows no
    /// passage.
    pub passage: Option<OwnedFd>,
}

/// The result of a look at the attachments, with the log lines that the keeper collected.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) look: Look,
    pub(super) lines: Vec<String>,
}

/// The engine's connection to the keeper.
#[derive(Clone)]
pub struct Keeper {
    /// `None` after a missing answer.
    socket: Arc<Mutex<Option<OwnedFd>>>,
    pid: Pid,
}

impl Keeper {
    pub(super) fn new(socket: OwnedFd, pid: Pid) -> Self {
        Self { socket: Arc::new(Mutex::new(Some(socket))), pid }
    }

    /// Speaks to a keeper at the other end of this socket.
    #[cfg(test)]
    pub fn at(socket: OwnedFd) -> Self {
        Self::new(socket, Pid::this())
    }

    /// No keeper, for a process that serves alone. Every request fails.
    #[must_use]
    pub fn absent() -> Self {
        Self { socket: Arc::new(Mutex::new(None)), pid: Pid::this() }
    }

    /// The pid of the keeper.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Tells the keeper which protocol version this engine speaks.
    ///
    /// # Errors
    /// The keeper speaks another version.
    pub fn greet(&self) -> Result<(), KeeperError> {
        self.ask(&Request::Hello(VERSION)).map(drop)
    }

    /// Asks the keeper to notify systemd.
    pub fn notify(&self, state: State) {
        if let Err(error) = self.ask(&Request::Notify(state)) {
            tracing::error!("systemd was not notified of state {state:?}: {error}");
        }
    }

    /// The present text of the config file. `None`: there is no file, and none is required.
    ///
    /// # Errors
    /// The keeper cannot read it.
    pub fn config(&self) -> Result<Option<String>, KeeperError> {
        let Some(mut file) = self.ask(&Request::ReadConfig)? else { return Ok(None) };
        read(&mut file).map(Some)
    }

    /// Tells the keeper that the config that was read last is now served.
    pub fn adopt(&self) {
        // The next request that needs an answer reports a keeper that does not answer.
        let _ = self.ask(&Request::Adopt);
    }

    /// Opens a file that the config names. `None`: the config does not name it.
    #[must_use]
    pub fn open(&self, path: &Path) -> Option<io::Result<File>> {
        match self.exchange(&Request::Open(path.to_path_buf())) {
            Some(Answer::Done(Some(file))) => Some(Ok(file)),
            Some(Answer::Failed(number)) => Some(Err(io::Error::from_raw_os_error(number))),
            Some(Answer::Refused(reason) | Answer::Incompatible(reason)) => {
                Some(Err(io::Error::new(io::ErrorKind::PermissionDenied, reason)))
            }
            Some(Answer::NotNamed) => None,
            Some(Answer::Done(None)) | None => Some(Err(io::Error::other(KeeperError::Silent))),
        }
    }

    /// Makes the kernel accept new connections for DNS over TLS, or drop them.
    ///
    /// # Errors
    /// The keeper may not do it, or is of an earlier build.
    pub fn accept(&self, is_on: bool) -> Result<(), KeeperError> {
        self.ask(&Request::Accept { is_on }).map(drop)
    }

    /// Reports that every worker answers, with a text on the state of the engine. A keeper of an earlier build
    /// refuses the report, and reports nothing to systemd.
    pub fn alive(&self, text: String) {
        let _ = self.ask(&Request::Alive(text));
    }

    /// The engine that serves in place of this one, if there is one.
    #[must_use]
    pub fn successor(&self) -> Option<Successor> {
        let passage = self.ask(&Request::IsSucceeded).ok()?;
        Some(Successor { passage: passage.map(OwnedFd::from) })
    }

    /// Makes the ACME process get a certificate now.
    ///
    /// # Errors
    /// There is no such process, or the keeper is of an earlier build.
    pub fn renew(&self) -> Result<(), KeeperError> {
        self.ask(&Request::Renew).map(drop)
    }

    /// Leaves the keys of session tickets with the keeper, for the next engine.
    ///
    /// # Errors
    /// The keeper still holds the previous keys.
    pub fn keep(&self, tickets: &[u8]) -> Result<(), KeeperError> {
        self.ask(&Request::Keep(tickets.to_vec())).map(drop)
    }

    fn ask(&self, request: &Request) -> Result<Option<File>, KeeperError> {
        match self.exchange(request) {
            Some(Answer::Done(file)) => Ok(file),
            Some(Answer::Refused(reason)) => Err(KeeperError::Refused(reason)),
            Some(Answer::Incompatible(reason)) => Err(KeeperError::Incompatible(reason)),
            Some(Answer::Failed(number)) => {
                Err(KeeperError::Refused(io::Error::from_raw_os_error(number).to_string()))
            }
            Some(Answer::NotNamed) | None => Err(KeeperError::Silent),
        }
    }

    /// Sends the request and waits. `None`: there was no answer, and there will be none.
    fn exchange(&self, request: &Request) -> Option<Answer> {
        // A poisoned lock means that another request panicked; its answer may still arrive.
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = socket.as_ref().and_then(|socket| exchange(socket, request).ok().flatten());
        if answer.is_none() {
            *socket = None;
        }
        answer
    }
}

fn exchange(socket: &OwnedFd, request: &Request) -> Result<Option<Answer>, Errno> {
    let (octets, until) = (request.encode(), Instant::now() + ANSWER_TIMEOUT);
    uninterrupted(until, || send(socket.as_raw_fd(), &octets, MsgFlags::MSG_NOSIGNAL))?;
    uninterrupted(until, || Answer::receive(socket))
}

/// Repeats a call that a signal interrupted: system calls on sockets with a timeout are interrupted
/// in spite of SA_RESTART (signal(7)). Such a call has sent and received nothing.
fn uninterrupted<T>(until: Instant, mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) if Instant::now() < until => {}
            result => return result,
        }
    }
}

fn read(file: &mut File) -> Result<String, KeeperError> {
    let mut text = String::new();
    let end = file.read_to_string(&mut text).map(drop);
    end.map_err(|error: io::Error| KeeperError::Refused(error.to_string()))?;
    Ok(text)
}

/// The keeper's attachments, and the function that takes its log lines.
struct Kept {
    keeper: Keeper,
    log: fn(Vec<u8>),
}

impl Keeper {
    /// The attachments of the keeper, for module `xdp`. The keeper's log lines go to `log`.
    pub fn attachments(&self, log: fn(Vec<u8>)) -> impl Attachments + use<> {
        Kept { keeper: self.clone(), log }
    }
}

impl Keeper {
    /// Fetches the keeper's log lines and passes them to `log`, for an engine without XDP, which
    /// has no other regular request.
    pub fn hear_log(&self, log: fn(Vec<u8>)) {
        // The next request that needs an answer reports a keeper that does not answer.
        let _ = self.attachments(log).look(false);
    }
}

impl Attachments for Kept {
    fn look(&mut self, has_news: bool) -> Result<Look, String> {
        let answer = self.keeper.ask(&Request::Look { has_news }).map_err(|error| error.to_string())?;
        let mut file = answer.ok_or_else(|| KeeperError::Silent.to_string())?;
        let text = read(&mut file).map_err(|error| error.to_string())?;
        let Report { look, lines } = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        lines.into_iter().for_each(|line| (self.log)(line.into_bytes()));
        Ok(look)
    }

    fn leave(&mut self) -> Result<(), String> {
        self.keeper.ask(&Request::Leave).map(drop).map_err(|error| error.to_string())
    }
}
