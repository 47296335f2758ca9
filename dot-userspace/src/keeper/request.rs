//! The engine's side: asks the keeper, and waits for the answer.
//!
//! Before: the engine wants what only the keeper may do. After: it is done, or the reason why not.
//! Holds: one question at a time. Once an answer is missing, no further question is asked: answers would be taken for those
//! of other questions.
//! Never: is used on a worker's thread.

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

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeeperError {
    /// The keeper has ended, or is stuck.
    #[error("dotd's keeper process does not answer; restart dotd")]
    Silent,
    /// It says why.
    #[error("{0}")]
    Refused(String),
}

/// An engine that serves in this one's place.
pub struct Successor {
    /// By which sessions go to it; `None`: its keeper knows of none.
    pub passage: Option<OwnedFd>,
}

/// What a look found, and what was to be logged meanwhile.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) look: Look,
    pub(super) lines: Vec<String>,
}

/// Whom the engine asks.
#[derive(Clone)]
pub struct Keeper {
    /// `None` after an answer was missing.
    socket: Arc<Mutex<Option<OwnedFd>>>,
    pid: Pid,
}

impl Keeper {
    pub(super) fn new(socket: OwnedFd, pid: Pid) -> Self {
        Self { socket: Arc::new(Mutex::new(Some(socket))), pid }
    }

    /// A keeper at the other end of this socket.
    #[cfg(test)]
    pub fn at(socket: OwnedFd) -> Self {
        Self::new(socket, Pid::this())
    }

    /// No keeper: no question is answered. For a process that serves alone.
    #[must_use]
    pub fn absent() -> Self {
        Self { socket: Arc::new(Mutex::new(None)), pid: Pid::this() }
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Says which form of questions follows.
    ///
    /// # Errors
    /// The keeper speaks another one.
    pub fn greet(&self) -> Result<(), KeeperError> {
        self.ask(&Request::Hello(VERSION)).map(drop)
    }

    /// Has systemd told.
    pub fn notify(&self, state: State) {
        if let Err(error) = self.ask(&Request::Notify(state)) {
            tracing::error!("systemd is not told that this dotd is {state:?}: {error}");
        }
    }

    /// The text of the config file as it is now; `None`: there is no file, and need not be.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn config(&self) -> Result<Option<String>, KeeperError> {
        let Some(mut file) = self.ask(&Request::ReadConfig)? else { return Ok(None) };
        read(&mut file).map(Some)
    }

    /// The config that was read last is being served.
    pub fn adopt(&self) {
        // A keeper that does not answer is noticed by the next request that needs an answer.
        let _ = self.ask(&Request::Adopt);
    }

    /// Opens a file that the config names; nothing: it names no such file.
    #[must_use]
    pub fn open(&self, path: &Path) -> Option<io::Result<File>> {
        match self.exchange(&Request::Open(path.to_path_buf())) {
            Some(Answer::Done(Some(file))) => Some(Ok(file)),
            Some(Answer::Failed(number)) => Some(Err(io::Error::from_raw_os_error(number))),
            Some(Answer::Refused(reason)) => {
                Some(Err(io::Error::new(io::ErrorKind::PermissionDenied, reason)))
            }
            Some(Answer::NotNamed) => None,
            Some(Answer::Done(None)) | None => Some(Err(io::Error::other(KeeperError::Silent))),
        }
    }

    /// The engine that serves in this one's place, if there is one.
    #[must_use]
    pub fn successor(&self) -> Option<Successor> {
        let passage = self.ask(&Request::IsSucceeded).ok()?;
        Some(Successor { passage: passage.map(OwnedFd::from) })
    }

    /// Has the keeper keep the keys of session tickets for the next engine.
    ///
    /// # Errors
    /// The keeper has the keys from before.
    pub fn keep(&self, tickets: &[u8]) -> Result<(), KeeperError> {
        self.ask(&Request::Keep(tickets.to_vec())).map(drop)
    }

    fn ask(&self, request: &Request) -> Result<Option<File>, KeeperError> {
        match self.exchange(request) {
            Some(Answer::Done(file)) => Ok(file),
            Some(Answer::Refused(reason)) => Err(KeeperError::Refused(reason)),
            Some(Answer::Failed(number)) => {
                Err(KeeperError::Refused(io::Error::from_raw_os_error(number).to_string()))
            }
            Some(Answer::NotNamed) | None => Err(KeeperError::Silent),
        }
    }

    /// Asks, and waits; nothing: there was no answer, and will be none.
    fn exchange(&self, request: &Request) -> Option<Answer> {
        // A poisoned lock means that another question panicked: its answer may still come.
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

/// Calls again where a signal came first: signal(7), sockets with a timeout are interrupted in spite of SA_RESTART. Nothing
/// was sent or received then.
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

/// The keeper's attachments, and where its log lines go.
struct Kept {
    keeper: Keeper,
    log: fn(Vec<u8>),
}

impl Keeper {
    /// What it holds, for the module `xdp` to ask; its log lines go to `log`.
    pub fn attachments(&self, log: fn(Vec<u8>)) -> impl Attachments + use<> {
        Kept { keeper: self.clone(), log }
    }
}

impl Keeper {
    /// Has the keeper's log lines go to `log`: for an engine without XDP, which asks for nothing else now and then.
    pub fn hear_log(&self, log: fn(Vec<u8>)) {
        // A keeper that does not answer is missed where an answer is needed.
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
