//! Another program takes the keeper's place: asked for by an operator, tried first, and run only where it could serve.
//!
//! Before: `dotd upgrade` of root's, on the keeper's own socket, or USR2. After: this process runs the other program
//! (`succession`), or goes on, and the operator learns why.
//! Holds: one upgrade at a time; the file of the program, open, so that what was tried is what runs.
//! Never: takes a path from an engine, which may have been taken over; runs a file that others than root and this user can
//! change; waits for a program or for an operator.
//!
//! Source: unix(7) (SO_PEERCRED), execve(2).

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read as _, Seek as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{MetadataExt as _, PermissionsExt as _},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, accept4, connect, getsockopt, recv, send,
            setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
    unistd::{getegid, geteuid},
};

use super::{
    duty::Duty,
    request::KeeperError,
    words::{Answer, REQUEST_OCTETS_MAX},
};
use crate::disk;

/// The word that begins a question on the keeper's own socket; a path follows, or nothing for the program that is installed.
const UPGRADE: u8 = b'U';
/// What a program says that could take over, as its only line on standard output.
pub const COULD_SERVE: &str = "dotd: could take over";
/// Time for a program to look at config, certificates and the kernel: as long as a reload may take.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than a trial, a start and a drain together.
const OUTCOME_TIMEOUT_SECONDS: i64 = 120;
/// Of what a trial says, so much is told.
const REASON_OCTETS_MAX: u64 = 2048;
/// Operators that may come before signals are looked at again.
const ASKERS_MAX: usize = 8;

/// An operator on the keeper's own socket.
pub(super) struct Asker {
    pub(super) socket: OwnedFd,
    /// The question has come.
    pub(super) has_asked: bool,
}

/// A program that looks whether it could serve.
pub(super) struct Trial {
    child: Child,
    output: File,
    errors: File,
    program: File,
    path: PathBuf,
    until: Instant,
}

impl Duty {
    /// Sources of this module to wait for.
    pub(super) fn upgrade_sources(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let door = self.estate.sockets.as_ref().map(|sockets| sockets.door.as_fd());
        let asker = self.asker.as_ref().filter(|asker| !asker.has_asked).map(|asker| asker.socket.as_fd());
        [door, asker]
    }

    /// Whether there is a clock to look at.
    pub(super) fn is_upgrading(&self) -> bool {
        self.trial.is_some() || self.leaving.is_some()
    }

    /// Accepts operators.
    pub(super) fn hear_operators(&mut self) {
        for _ in 0..ASKERS_MAX {
            let Some(sockets) = &self.estate.sockets else { return };
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let Ok(number) = accept4(sockets.door.as_raw_fd(), flags) else { break };
            // SAFETY: the kernel has just made this descriptor, for us alone.
            let socket = unsafe { OwnedFd::from_raw_fd(number) };
            let refusal = if !self.may_ask(&socket) {
                Some("only root, or the user that started dotd, may ask for an upgrade")
            } else {
                self.is_upgrading().then_some("an upgrade is under way")
            };
            match refusal {
                // An operator that does not read gets no answer.
                Some(reason) => drop(Answer::Refused(reason.into()).send(&socket)),
                // One that came before and has asked nothing gives way.
                None => self.asker = Some(Asker { socket, has_asked: false }),
            }
        }
        self.hear_asker();
    }

    fn hear_asker(&mut self) {
        let Some(asker) = self.asker.as_mut().filter(|asker| !asker.has_asked) else { return };
        let mut packet = [0; REQUEST_OCTETS_MAX];
        let length = match recv(asker.socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            Err(_) => return self.asker = None,
        };
        asker.has_asked = true;
        match packet.get(..length) {
            Some([UPGRADE, path @ ..]) => {
                let path = (!path.is_empty()).then(|| Path::new(OsStr::from_bytes(path)).to_path_buf());
                self.begin_upgrade(path);
            }
            _ => self.say_how_it_went(Err("no such request".into())),
        }
    }

    /// Root, and the user that started dotd; never an engine, whose user may be the same.
    fn may_ask(&self, socket: &OwnedFd) -> bool {
        let Ok(peer) = getsockopt(socket, sockopt::PeerCredentials) else { return false };
        let leaving = self.leaving.as_ref().map(|leaving| leaving.engine.pid);
        let is_engine =
            [Some(self.engine.pid), leaving].iter().flatten().any(|pid| pid.as_raw() == peer.pid());
        !is_engine && (peer.uid() == 0 || peer.uid() == geteuid().as_raw())
    }

    /// Begins to try a program; without a path the one that was started.
    pub(super) fn begin_upgrade(&mut self, path: Option<PathBuf>) {
        if self.is_upgrading() || self.is_stopping || !self.engine.is_ready {
            return self.say_how_it_went(Err("dotd is starting, stopping or upgrading; try again".into()));
        }
        let path = path.unwrap_or_else(|| self.estate.program.clone());
        match self.start_trial(&path) {
            Ok(trial) => self.trial = Some(trial),
            Err(error) => self.say_how_it_went(Err(format!("{} cannot be run: {error}", path.display()))),
        }
    }

    fn start_trial(&self, path: &Path) -> io::Result<Trial> {
        let program = open_program(path)?;
        let list = self.list(true, Vec::new(), String::new())?.write()?;
        let spool = || memfd_create("dotd", MFdFlags::MFD_CLOEXEC).map(File::from);
        let (output, errors) = (spool()?, spool()?);
        let mut command = Command::new(disk::path_of(&program));
        if let Some(config) = &self.estate.path {
            command.arg("--config").arg(config);
        }
        command.args(["run", "--trial", "--inherit", &list.as_raw_fd().to_string()]);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(errors.try_clone()?);
        let child = command.spawn()?;
        Ok(Trial {
            child,
            output,
            errors,
            program,
            path: path.to_path_buf(),
            until: Instant::now() + TRIAL_TIMEOUT,
        })
    }

    /// What became of the trial since the last look. Where it went well, this does not return.
    pub(super) fn look_at_trial(&mut self) {
        let Some(mut trial) = self.trial.take() else { return };
        let path = trial.path.display().to_string();
        let reason = match trial.child.try_wait() {
            Ok(None) if Instant::now() < trial.until => return self.trial = Some(trial),
            Ok(None) => {
                let _ = trial.child.kill();
                let _ = trial.child.wait();
                format!("{path} took longer than {TRIAL_TIMEOUT:?} to look at config and certificates")
            }
            Ok(Some(status)) if status.success() && line(&mut trial.output) == COULD_SERVE => {
                let note = format!("{path} takes the place of this program");
                let Err(error) = self.become_program(&disk::path_of(&trial.program), true, note);
                format!("{path} cannot be run: {error}")
            }
            Ok(Some(status)) => {
                let said = line(&mut trial.errors);
                let said =
                    if said.is_empty() { "it does not say why; is it a dotd?".to_owned() } else { said };
                format!("{path} could not serve ({status}): {said}")
            }
            Err(error) => format!("what became of {path} is not known: {error}"),
        };
        self.say_how_it_went(Err(reason));
    }

    /// Tells the operator, and the log.
    pub(super) fn say_how_it_went(&mut self, outcome: Result<(), String>) {
        match &outcome {
            Ok(()) => tracing::info!("upgraded"),
            Err(reason) => tracing::error!("not upgraded, the old engine serves on: {reason}"),
        }
        self.tell_operator(outcome);
    }

    /// Tells the operator, if one waits.
    pub(super) fn tell_operator(&mut self, outcome: Result<(), String>) {
        if let Some(asker) = self.asker.take() {
            let answer = outcome.map_or_else(Answer::Refused, |()| Answer::Done(None));
            // An operator that has left can read the log.
            let _ = answer.send(&asker.socket);
        }
    }
}

/// Opens a program that only root and our own user can change.
fn open_program(path: &Path) -> io::Result<File> {
    let program = disk::open_directly(path)?;
    let found = program.metadata()?;
    let is_ours = [0, geteuid().as_raw()].contains(&found.uid());
    let mode = found.permissions().mode();
    let by_group = mode & 0o020 != 0 && ![0, getegid().as_raw()].contains(&found.gid());
    if !found.is_file() || mode & 0o111 == 0 {
        return Err(io::Error::other("it is no program; `chmod 755` it, or name another file"));
    }
    if !is_ours || by_group || mode & 0o002 != 0 {
        let why = "others than root can change it; `chown root` it and `chmod go-w` it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(program)
}

/// What was written, in a line.
fn line(spool: &mut File) -> String {
    let mut text = Vec::new();
    // What cannot be read was not said.
    let _ = spool.rewind().and_then(|()| spool.take(REASON_OCTETS_MAX).read_to_end(&mut text));
    String::from_utf8_lossy(&text).trim().replace('\n', "; ")
}

/// Asks the keeper behind its own socket for an upgrade, and waits for the outcome; `program`: not the installed one.
///
/// # Errors
/// No process listens there ([`KeeperError::Silent`]), or why the old engine serves on.
pub fn ask_for_upgrade(door: &Path, program: Option<&Path>) -> Result<(), KeeperError> {
    let path = program.map(|path| path.as_os_str().as_bytes()).unwrap_or_default();
    let packet = [&[UPGRADE], path].concat();
    if packet.len() > REQUEST_OCTETS_MAX {
        return Err(KeeperError::Refused("the path is too long".into()));
    }
    let exchange = || -> Result<Option<Answer>, Errno> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(OUTCOME_TIMEOUT_SECONDS))?;
        connect(socket.as_raw_fd(), &UnixAddr::new(door)?)?;
        match send(socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL) {
            // A user that may not ask is answered at once.
            // The kernel says first that the question was not read (ECONNRESET).
            Ok(_) | Err(Errno::EPIPE) => match Answer::receive(&socket) {
                Err(Errno::ECONNRESET) => Answer::receive(&socket),
                answer => answer,
            },
            Err(error) => Err(error),
        }
    };
    match exchange() {
        Ok(Some(Answer::Done(_))) => Ok(()),
        Ok(Some(Answer::Refused(reason))) => Err(KeeperError::Refused(reason)),
        Err(Errno::EACCES | Errno::EPERM) => {
            Err(KeeperError::Refused(format!("{}: run this as root", door.display())))
        }
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => Err(KeeperError::Refused(format!(
            "dotd is not running ({} is not there, or nobody listens): name its control socket with --socket",
            door.display()
        ))),
        _ => Err(KeeperError::Silent),
    }
}
