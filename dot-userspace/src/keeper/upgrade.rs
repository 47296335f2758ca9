//! Replaces the keeper's program: an operator asks for it, the keeper tries the new program first,
//! and runs it only if it could serve.
//!
//! Before: root runs `dotd upgrade`, which writes to the keeper's own socket, or dotd receives
//! SIGUSR2. After: this process runs the other program (`succession`), or continues, and the
//! operator learns why.
//! Holds: one upgrade at a time; the program file, open, so that the file that was tried is the
//! file that runs.
//! Never: accepts a path from an engine, which an attacker may control; runs a file that a user
//! other than root and the own user can change; waits for a program or for an operator.
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

/// The first octet of a request on the keeper's own socket. A path follows; without a path the
/// installed program is meant.
const UPGRADE: u8 = b'U';
/// The only line on standard output of a program that could take over.
pub const COULD_SERVE: &str = "dotd: could take over";
/// Exit status of a program that does not understand this build's hand-over.
pub const INCOMPATIBLE: u8 = 4;
/// Time for a program to check config, certificates and the kernel: as long as a reload may take.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than a trial, a start and a drain together.
const OUTCOME_TIMEOUT_SECONDS: i64 = 120;
/// Longest part of a trial's error output that is reported.
const REASON_OCTETS_MAX: u64 = 2048;
/// Most operators that are accepted before the keeper reads signals again.
const ASKERS_MAX: usize = 8;

/// An operator's connection to the keeper's own socket.
pub(super) struct Asker {
    pub(super) socket: OwnedFd,
    /// The request has arrived.
    pub(super) has_asked: bool,
}

/// A program that checks whether it could serve.
pub(super) struct Trial {
    child: Child,
    output: File,
    errors: File,
    program: File,
    path: PathBuf,
    until: Instant,
}

impl Duty {
    /// The descriptors of this module to wait for.
    pub(super) fn upgrade_sources(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let keeper = self.estate.sockets.as_ref().map(|sockets| sockets.keeper_socket.as_fd());
        let asker = self.asker.as_ref().filter(|asker| !asker.has_asked).map(|asker| asker.socket.as_fd());
        [keeper, asker]
    }

    /// Whether a deadline of an upgrade is running.
    pub(super) fn is_upgrading(&self) -> bool {
        self.trial.is_some() || self.leaving.is_some()
    }

    /// Accepts the connections of operators.
    pub(super) fn hear_operators(&mut self) {
        for _ in 0..ASKERS_MAX {
            let Some(sockets) = &self.estate.sockets else { return };
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let Ok(number) = accept4(sockets.keeper_socket.as_raw_fd(), flags) else { break };
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
                // A connection that has sent no request is dropped for the new one.
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

    /// Only root and the user that started dotd may ask, and never an engine, which may run as the
    /// same user.
    fn may_ask(&self, socket: &OwnedFd) -> bool {
        let Ok(peer) = getsockopt(socket, sockopt::PeerCredentials) else { return false };
        let leaving = self.leaving.as_ref().map(|leaving| leaving.engine.pid);
        let is_engine =
            [Some(self.engine.pid), leaving].iter().flatten().any(|pid| pid.as_raw() == peer.pid());
        !is_engine && (peer.uid() == 0 || peer.uid() == geteuid().as_raw())
    }

    /// Starts the trial of a program; without a path, of the program that was started.
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
        if let Some(folder) = &self.estate.restart_dir {
            command.arg("--restart-dir").arg(folder);
        }
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

    /// Checks the result of the trial. If the program could serve, this call does not return.
    pub(super) fn look_at_trial(&mut self) {
        let Some(mut trial) = self.trial.take() else { return };
        let path = trial.path.display().to_string();
        let mut is_incompatible = false;
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
                is_incompatible = status.code() == Some(INCOMPATIBLE.into());
                let said = line(&mut trial.errors);
                let said =
                    if said.is_empty() { "it printed no reason; is it a dotd?".to_owned() } else { said };
                format!("{path} could not serve ({status}): {said}")
            }
            Err(error) => format!("the result of {path} is not known: {error}"),
        };
        if is_incompatible {
            tracing::error!("the upgrade failed, and the old engine continues to serve: {reason}");
            self.answer_operator(&Answer::Incompatible(reason));
        } else {
            self.say_how_it_went(Err(reason));
        }
    }

    /// Reports the result to the operator and to the log.
    pub(super) fn say_how_it_went(&mut self, outcome: Result<(), String>) {
        match &outcome {
            Ok(()) => tracing::info!("upgraded"),
            Err(reason) => {
                tracing::error!("the upgrade failed, and the old engine continues to serve: {reason}")
            }
        }
        self.tell_operator(outcome);
    }

    /// Reports the result to the operator, if one waits.
    pub(super) fn tell_operator(&mut self, outcome: Result<(), String>) {
        self.answer_operator(&outcome.map_or_else(Answer::Refused, |()| Answer::Done(None)));
    }

    fn answer_operator(&mut self, answer: &Answer) {
        if let Some(asker) = self.asker.take() {
            // An operator that has closed the connection finds the result in the log.
            let _ = answer.send(&asker.socket);
        }
    }
}

/// Opens a program that only root and the own user can change.
fn open_program(path: &Path) -> io::Result<File> {
    let program = disk::open_directly(path)?;
    let found = program.metadata()?;
    let is_ours = [0, geteuid().as_raw()].contains(&found.uid());
    let mode = found.permissions().mode();
    let by_group = mode & 0o020 != 0 && ![0, getegid().as_raw()].contains(&found.gid());
    if !found.is_file() || mode & 0o111 == 0 {
        return Err(io::Error::other(
            "it is not an executable file; run `chmod 755` on it, or name another file",
        ));
    }
    if !is_ours || by_group || mode & 0o002 != 0 {
        let why = "users other than root can change it; run `chown root` and `chmod go-w` on it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(program)
}

/// The text of the file, in one line.
fn line(spool: &mut File) -> String {
    let mut text = Vec::new();
    // If the file cannot be read, the text is empty.
    let _ = spool.rewind().and_then(|()| spool.take(REASON_OCTETS_MAX).read_to_end(&mut text));
    String::from_utf8_lossy(&text).trim().replace('\n', "; ")
}

/// Asks the keeper at the socket `at` for an upgrade, and waits for the result. `program`: the program to
/// run instead of the installed one.
///
/// # Errors
/// No process listens there ([`KeeperError::Absent`]), the program cannot take over from this build
/// ([`KeeperError::Incompatible`]), or the keeper says why the old engine continues to serve.
pub fn ask_for_upgrade(at: &Path, program: Option<&Path>) -> Result<(), KeeperError> {
    let path = program.map(|path| path.as_os_str().as_bytes()).unwrap_or_default();
    let packet = [&[UPGRADE], path].concat();
    if packet.len() > REQUEST_OCTETS_MAX {
        return Err(KeeperError::Refused("the path is too long".into()));
    }
    let exchange = || -> Result<Option<Answer>, Errno> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(OUTCOME_TIMEOUT_SECONDS))?;
        connect(socket.as_raw_fd(), &UnixAddr::new(at)?)?;
        match send(socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL) {
            // The keeper answers at once a user that may not ask. The kernel reports first that the
            // request was not read (ECONNRESET).
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
        Ok(Some(Answer::Incompatible(reason))) => Err(KeeperError::Incompatible(reason)),
        Err(Errno::EACCES | Errno::EPERM) => {
            Err(KeeperError::Refused(format!("{}: run this as root", at.display())))
        }
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => Err(KeeperError::Absent(format!(
            "dotd is not running ({} does not exist, or no process listens there): name its control socket with --socket",
            at.display()
        ))),
        _ => Err(KeeperError::Silent),
    }
}
