//! The effective user of this process: root acts as `server.user` for a moment, and then as itself again.
//!
//! Before: root without a right over the files and processes of others (CAP_DAC_OVERRIDE, CAP_CHOWN, CAP_KILL). After: what belongs to
//! `server.user` was opened, made or signalled by that user itself; what this process made there belongs to that user from the start.
//! Holds: that user, noted once. The real and the saved user stay root, so that a process of that user can neither signal nor trace
//! this one meanwhile, and the way back needs no right.
//! Never: runs in a process with threads, because they share the effective user; changes a process that is not root, or that serves as
//! its own user.
//!
//! Source: credentials(7), setresuid(2), kill(2), capabilities(7) ("Effect of user ID changes on capabilities").

use std::{
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::{fs::MetadataExt as _, net::UnixStream},
    },
    path::Path,
    process::abort,
    sync::OnceLock,
};

use caps::{CapSet, CapsHashSet};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill},
        socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
    },
    unistd::{Gid, Pid, Uid, getegid, geteuid, setegid, seteuid},
};

/// `server.user` and its group.
static OTHER: OnceLock<(u32, u32)> = OnceLock::new();

/// Notes `server.user`; only the first call counts. `None`: dotd serves as its own user.
pub fn may_act_as(other: Option<(u32, u32)>) {
    if let Some(other) = other {
        let _ = OTHER.set(other);
    }
}

/// Acts as `server.user`; without one, or if this process may not become another user, as itself.
pub fn as_user<T>(act: impl FnOnce() -> T) -> T {
    let _back = other().and_then(|(uid, gid)| Back::from(uid, gid));
    act()
}

/// Acts as `server.user` if that is `owner`, else as itself: for a folder of that user's, or a process.
pub fn as_owner<T>(owner: u32, act: impl FnOnce() -> T) -> T {
    if other().is_some_and(|(uid, _)| uid == owner) { as_user(act) } else { act() }
}

/// Acts as itself, and if that is refused (EACCES), as `server.user`.
///
/// # Errors
/// Those of the act.
pub fn as_either<T>(act: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match act() {
        Err(error) if error.raw_os_error() == Some(Errno::EACCES as i32) && other().is_some() => as_user(act),
        outcome => outcome,
    }
}

/// Sends a signal to a process of root's or of `server.user`'s; `user` is that of the process, if it is another one than the config
/// names by now.
///
/// # Errors
/// The process has ended, or belongs to another user.
pub fn signal(pid: Pid, number: Signal, user: Option<u32>) -> nix::Result<()> {
    let send = || kill(pid, number);
    match (send(), user) {
        (Err(Errno::EPERM), Some(uid)) if geteuid().is_root() => {
            let _back = Back::from(uid, getegid().as_raw());
            send()
        }
        (Err(Errno::EPERM), None) => as_user(send),
        (outcome, _) => outcome,
    }
}

/// Connects to a stream socket as its user and its group, for a process that does not know `server.user`. The stream does not block, and
/// nothing waits here: such a socket is connected, or it is not.
///
/// # Errors
/// As connect(2).
pub fn connect_as_owner(path: &Path) -> io::Result<UnixStream> {
    let found = fs::metadata(path)?;
    may_act_as(Some((found.uid(), found.gid())));
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let ours = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    as_user(|| connect(ours.as_raw_fd(), &UnixAddr::new(path)?))?;
    Ok(ours.into())
}

/// `server.user`, if this process is root and dotd does not serve as root.
#[must_use]
pub fn user() -> Option<u32> {
    other().map(|(uid, _)| uid)
}

fn other() -> Option<(u32, u32)> {
    OTHER.get().copied().filter(|_| geteuid().is_root())
}

/// Ends the change of user when it is dropped.
struct Back {
    group: Gid,
    /// The rights in effect: the kernel gives root all that it may have.
    rights: Option<CapsHashSet>,
    /// The signal that this process gets when its parent ends: each change of user forgets it.
    at_parents_end: Option<Signal>,
}

impl Back {
    /// `None`: this process has not the right, or is that user already.
    fn from(uid: u32, gid: u32) -> Option<Self> {
        let rights = caps::read(None, CapSet::Effective).ok();
        let at_parents_end = prctl::get_pdeathsig().ok().flatten();
        let back = Self { group: getegid(), rights, at_parents_end };
        // Without the right to change the group, files that are made get this process's group.
        let _ = setegid(Gid::from_raw(gid));
        if seteuid(Uid::from_raw(uid)).is_ok() {
            return Some(back);
        }
        let _ = setegid(back.group);
        None
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        // The real user is root: this cannot fail. A process that is not what it believes to be must not go on.
        if seteuid(Uid::from_raw(0)).is_err() || setegid(self.group).is_err() {
            abort();
        }
        if let Some(rights) = &self.rights {
            // They are among those that it may have, so that this cannot fail either.
            let _ = caps::set(None, CapSet::Effective, rights);
        }
        // A change of user also sets this by fs.suid_dumpable.
        let _ = prctl::set_dumpable(false);
        let _ = prctl::set_pdeathsig(self.at_parents_end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a process without another user acts as itself, and an error stays what it was. Method: an act of each kind; a file that is not
    /// there; a signal to a process that is not there.
    #[test]
    fn without_another_user_it_acts_as_itself() {
        let own = geteuid();
        assert_eq!((as_user(geteuid), as_owner(own.as_raw(), geteuid)), (own, own));
        let absent = as_either(|| fs::File::open("/nonexistent")).unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
        let refused =
            as_either(|| Err::<(), _>(io::Error::from_raw_os_error(Errno::EACCES as i32))).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::EACCES as i32));
        assert_eq!(signal(Pid::from_raw(i32::MAX), Signal::SIGTERM, None), Err(Errno::ESRCH));
    }
}
