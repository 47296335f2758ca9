//! What a keeper hands to the program that takes its place: the listening sockets, the engine that still serves, and what the
//! next engine should know.
//!
//! Before: an engine crashed, or an operator wants another program to serve. After: the same process runs a program again, by execve(2), and finds all of this by one
//! descriptor.
//! Holds: [`FORM`], which a program of another build looks at first.
//! Never: leaves memory: the list is in a file without a name, and closed once it is read.
//!
//! Source: execve(2), memfd_create(2), fcntl(2) (FD_CLOEXEC).

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    path::PathBuf,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use serde::{Deserialize, Serialize};

use super::{
    estate::{Estate, Kept, Sockets},
    words::VERSION,
};

/// The form of [`Inheritance`]. A program refuses another one.
pub(super) const FORM: u8 = 1;
/// Longest list that is read: thousands of listeners, and a config.
const LIST_OCTETS_MAX: u64 = 8 << 20;

/// An engine that serves until the next one does.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Serving {
    pub(super) pid: i32,
    pub(super) socket: RawFd,
    /// The form of what it asks.
    pub(super) words: u8,
}

/// The engine that serves, by its number and its socket, and the operator that waits.
pub(super) type Taken = (Option<(i32, OwnedFd)>, Option<OwnedFd>);

/// The list.
#[derive(Serialize, Deserialize)]
pub struct Inheritance {
    form: u8,
    /// At an upgrade.
    pub(super) engine: Option<Serving>,
    /// The operator that waits for the result of the upgrade.
    pub(super) asker: Option<RawFd>,
    sockets: Sockets<RawFd>,
    /// The keys of session tickets.
    pub tickets: Kept,
    /// The config that was served, where there was a file.
    pub text: Option<String>,
    program: PathBuf,
    crashes: Vec<u64>,
    /// Log lines of this process that are not written yet.
    pub lines: Vec<String>,
    /// What happened.
    pub note: String,
}

impl Inheritance {
    /// What this keeper leaves.
    ///
    /// # Errors
    /// dotd is stopping: it holds no sockets any more.
    pub(super) fn of(estate: &Estate, lines: Vec<String>, note: String) -> io::Result<Self> {
        let sockets = estate.sockets.as_ref().ok_or_else(|| io::Error::other("dotd is stopping"))?;
        Ok(Self {
            form: FORM,
            engine: None,
            asker: None,
            sockets: sockets.map(|socket| Ok::<_, io::Error>(socket.as_raw_fd()))?,
            tickets: estate.tickets.clone(),
            text: estate.text.clone(),
            program: estate.program.clone(),
            crashes: estate.crashes.clone(),
            lines,
            note,
        })
    }

    /// Writes it to a file that a program keeps at execve; its own descriptors are not touched.
    pub(super) fn write(&self) -> io::Result<File> {
        let mut file = File::from(memfd_create("dotd", MFdFlags::empty())?);
        file.write_all(&serde_json::to_vec(self)?)?;
        file.rewind()?;
        Ok(file)
    }

    /// Has the next program keep every descriptor of the list, or has them close at execve again.
    pub(super) fn keep_at_exec(&self, is_kept: bool) -> io::Result<()> {
        let flag = if is_kept { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
        let others = self.engine.iter().map(|engine| engine.socket).chain(self.asker);
        others.into_iter().try_for_each(|number| set_flag(number, flag))?;
        self.sockets.map(|number| set_flag(*number, flag)).map(drop)
    }

    /// Whether an engine serves meanwhile, and goes on where this program fails.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.engine.is_some()
    }

    /// Whether this program understands what that engine asks of its keeper.
    ///
    /// # Errors
    /// In words.
    pub fn understands(&self) -> io::Result<()> {
        match self.engine {
            Some(Serving { words, .. }) if words != VERSION => Err(io::Error::other(format!(
                "this build's keeper speaks version {VERSION}, the engine that serves {words}; restart dotd instead"
            ))),
            _ => Ok(()),
        }
    }

    /// Owns the engine's socket and the operator's from now on. Call it once.
    ///
    /// # Errors
    /// One of them is not open.
    pub(super) fn take_engine(&self) -> io::Result<Taken> {
        let engine = self.engine.map(|engine| Ok((engine.pid, OwnedFd::from(adopt(engine.socket)?))));
        let asker = self.asker.map(|number| adopt(number).map(OwnedFd::from));
        Ok((engine.transpose().map_err(|error: io::Error| error)?, asker.transpose()?))
    }

    /// Reads the list, and takes nothing that it names yet.
    ///
    /// # Errors
    /// The descriptor is not open, or the list is of another build.
    pub fn read(descriptor: RawFd) -> io::Result<Self> {
        let file = adopt(descriptor)?;
        let mut text = Vec::new();
        file.take(LIST_OCTETS_MAX).read_to_end(&mut text)?;
        let Form { form } = serde_json::from_slice(&text)?;
        if form != FORM {
            return Err(io::Error::other(format!(
                "this build understands hand-overs of form {FORM}, and this one has form {form}; restart dotd instead"
            )));
        }
        Ok(serde_json::from_slice(&text)?)
    }

    /// What outlives engines, but for the sockets.
    #[must_use]
    pub fn estate(&self, path: Option<PathBuf>, text: Option<String>) -> Estate {
        Estate {
            path,
            text,
            sockets: None,
            program: self.program.clone(),
            tickets: self.tickets.clone(),
            crashes: self.crashes.clone(),
        }
    }

    /// Owns every socket of the list from now on. Call it once.
    ///
    /// # Errors
    /// One of them is not open.
    pub fn take(&self) -> io::Result<Sockets<OwnedFd>> {
        self.sockets.map(|number| adopt(*number).map(OwnedFd::from))
    }
}

/// What every form begins with.
#[derive(Deserialize)]
struct Form {
    form: u8,
}

/// Owns a descriptor that was open before this program began.
fn adopt(number: RawFd) -> io::Result<File> {
    if number <= 2 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // Fails where it is not open.
    set_flag(number, FdFlag::FD_CLOEXEC)?;
    // SAFETY: it is open, and nothing in this program owns it: the list of our predecessor names it once.
    Ok(unsafe { File::from_raw_fd(number) })
}

fn set_flag(number: RawFd, flag: FdFlag) -> io::Result<()> {
    // SAFETY: borrowed for the call alone; where it is not open, the call says so.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(descriptor, FcntlArg::F_SETFD(flag)).map(drop)?;
    Ok(())
}
