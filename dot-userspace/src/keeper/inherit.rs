//! The state that a keeper passes to the program that replaces it: the listening sockets, the
//! engine that still serves, and what the next engine needs.
//!
//! Before: an engine crashed, or an operator wants another program to serve. After: the same
//! process has run a program by execve(2), which finds this state through one descriptor.
//! Holds: [`FORM`], which a program of another build checks first.
//! Never: leaves a file behind: the list is in a file in memory, which is closed after it is read.
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

/// The form of [`Inheritance`]. A program rejects a later form. 2: the engine's user is in it, and the process may lack CAP_KILL, without
/// which a program of form 1 could not signal its engine.
pub(super) const FORM: u8 = 2;
/// The earliest form that this program understands.
const FORM_LEAST: u8 = 1;
/// The longest list that is read. It has room for thousands of listeners and a config.
const LIST_OCTETS_MAX: u64 = 8 << 20;

/// An engine that serves until the next one serves.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Serving {
    pub(super) pid: i32,
    pub(super) socket: RawFd,
    /// Its user, if that is another one than the keeper's. A keeper of an earlier build does not say it.
    #[serde(default)]
    pub(super) user: Option<u32>,
    /// The version of the keeper protocol that the engine speaks.
    pub(super) words: u8,
}

/// The engine that serves and its socket, and the socket of the operator that waits.
pub(super) type Taken = (Option<(Serving, OwnedFd)>, Option<OwnedFd>);

/// The list.
#[derive(Serialize, Deserialize)]
pub struct Inheritance {
    form: u8,
    /// The engine that still serves. `Some` only during an upgrade.
    pub(super) engine: Option<Serving>,
    /// The operator that waits for the result of the upgrade.
    pub(super) asker: Option<RawFd>,
    sockets: Sockets<RawFd>,
    /// The keys of session tickets.
    pub tickets: Kept,
    /// The text of the served config, if it came from a file.
    pub text: Option<String>,
    program: PathBuf,
    crashes: Vec<u64>,
    /// Log lines of this process that no engine has written yet.
    pub lines: Vec<String>,
    /// A log line that says why this program was run.
    pub note: String,
}

impl Inheritance {
    /// The state that this keeper passes on.
    ///
    /// # Errors
    /// dotd is stopping, and the keeper holds no sockets any more.
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

    /// Writes the list to a file that stays open over execve. The descriptors in the list are not
    /// changed.
    pub(super) fn write(&self) -> io::Result<File> {
        let mut file = File::from(memfd_create("dotd", MFdFlags::empty())?);
        file.write_all(&serde_json::to_vec(self)?)?;
        file.rewind()?;
        Ok(file)
    }

    /// Sets whether every descriptor in the list stays open over execve.
    pub(super) fn keep_at_exec(&self, is_kept: bool) -> io::Result<()> {
        let flag = if is_kept { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
        let others = self.engine.iter().map(|engine| engine.socket).chain(self.asker);
        others.into_iter().try_for_each(|number| set_flag(number, flag))?;
        self.sockets.map(|number| set_flag(*number, flag)).map(drop)
    }

    /// Whether an engine serves meanwhile. It continues to serve if this program fails.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.engine.is_some()
    }

    /// Checks that this program speaks the keeper protocol of that engine.
    ///
    /// # Errors
    /// It does not (`Unsupported`); the error names both versions.
    pub fn understands(&self) -> io::Result<()> {
        match self.engine {
            Some(Serving { words, .. }) if words != VERSION => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "this build's keeper speaks version {VERSION}, the engine that serves {words}; restart dotd instead"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Takes ownership of the engine's socket and of the operator's socket. Call it once.
    ///
    /// # Errors
    /// One of the descriptors is not open.
    pub(super) fn take_engine(&self) -> io::Result<Taken> {
        let engine = self.engine.map(|engine| Ok((engine, OwnedFd::from(adopt(engine.socket)?))));
        let asker = self.asker.map(|number| adopt(number).map(OwnedFd::from));
        Ok((engine.transpose().map_err(|error: io::Error| error)?, asker.transpose()?))
    }

    /// Reads the list, but takes ownership of none of its descriptors yet.
    ///
    /// # Errors
    /// The descriptor is not open, or another build wrote the list in another form (`Unsupported`).
    pub fn read(descriptor: RawFd) -> io::Result<Self> {
        let file = adopt(descriptor)?;
        let mut text = Vec::new();
        file.take(LIST_OCTETS_MAX).read_to_end(&mut text)?;
        let Form { form } = serde_json::from_slice(&text)?;
        if !(FORM_LEAST..=FORM).contains(&form) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "this build understands hand-overs of forms {FORM_LEAST} to {FORM}, and this one has form {form}; restart dotd instead"
                ),
            ));
        }
        Ok(serde_json::from_slice(&text)?)
    }

    /// The state that outlives engines, without the sockets.
    #[must_use]
    pub fn estate(
        &self,
        (path, restart_dir): (Option<PathBuf>, Option<PathBuf>),
        text: Option<String>,
    ) -> Estate {
        Estate {
            path,
            restart_dir,
            text,
            sockets: None,
            program: self.program.clone(),
            tickets: self.tickets.clone(),
            crashes: self.crashes.clone(),
        }
    }

    /// Takes ownership of every socket in the list. Call it once.
    ///
    /// # Errors
    /// One of the descriptors is not open.
    pub fn take(&self) -> io::Result<Sockets<OwnedFd>> {
        self.sockets.map(|number| adopt(*number).map(OwnedFd::from))
    }
}

/// The first field of every form.
#[derive(Deserialize)]
struct Form {
    form: u8,
}

/// Takes ownership of a descriptor that was open before this program started.
pub(super) fn adopt(number: RawFd) -> io::Result<File> {
    if number <= 2 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // Fails if the descriptor is not open.
    set_flag(number, FdFlag::FD_CLOEXEC)?;
    // SAFETY: the descriptor is open, and nothing else in this program owns it: the list of the
    // previous program contains it once.
    Ok(unsafe { File::from_raw_fd(number) })
}

pub(super) fn set_flag(number: RawFd, flag: FdFlag) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for this call only; if it is not open, the call returns an
    // error.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(descriptor, FcntlArg::F_SETFD(flag)).map(drop)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd as _;

    use super::*;

    fn read(form: u8) -> io::Result<Inheritance> {
        let text = format!(
            r#"{{"form":{form},"engine":{{"pid":7,"socket":9,"words":{VERSION}}},"asker":null,"sockets":{{"dot":[],"do53":[],
            "datagrams":[],"http":null,"control":["/run/dotd",3],"door":4}},"tickets":{{"octets":[],"at_ms":0}},"text":null,
            "program":"/usr/bin/dotd","crashes":[],"lines":[],"note":""}}"#
        );
        let mut file = File::from(memfd_create("list", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(text.as_bytes())?;
        file.rewind()?;
        Inheritance::read(file.into_raw_fd())
    }

    /// Goal: the list of an earlier build's keeper, which has its rights still, is understood, and a later one is not: that keeper may lack
    /// a right that this program takes for granted. Method: a list without the engine's user, in each form. Covers: A-827
    #[test]
    fn an_earlier_form_is_understood_and_no_later_one() {
        let earlier = read(FORM_LEAST).unwrap();
        assert!(earlier.engine.is_some_and(|engine| engine.user.is_none() && engine.pid == 7));
        assert!(read(FORM).is_ok());
        for form in [FORM_LEAST - 1, FORM + 1] {
            assert_eq!(
                read(form).err().map(|error| error.kind()),
                Some(io::ErrorKind::Unsupported),
                "{form}"
            );
        }
    }
}
