//! Marks this network namespace as having a dotd with XDP, and finds out whether it has another one.
//!
//! Before: the kernel half is about to be attached or detached. After: a second dotd stays off, also one with another
//! BPF file system (`ip netns exec` mounts /sys again) or another run folder.
//! Holds: an abstract Unix socket, which exists in a network namespace and not on a disk. Its name is new each time, so
//! no other process can take it first; the kernel reports its owner, so other users' sockets do not count.
//! Never: waits longer than a predecessor needs to end.
//!
//! Source: unix(7): abstract sockets, SO_PEERCRED.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials,
    },
    unistd::geteuid,
};

use super::XdpError;

/// The beginning of the names of these sockets.
const NAME: &str = "dotd-xdp-";

/// While this lives, this dotd owns its network namespace's XDP.
pub(super) struct Presence {
    listener: UnixListener,
    /// A socket with a name like ours whose queue stayed full, so that the kernel did not report its owner.
    pub(super) unknown: Option<String>,
}

/// The result of asking a socket with a name like ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// It belongs to a dotd.
    Dotd,
    /// No process listens there, or another user's does.
    NoDotd,
    /// Its queue is full. It may be a dotd that has not emptied it yet, or another user's process that never does.
    Unknown,
}

impl Presence {
    /// Becomes the dotd of this network namespace.
    ///
    /// A killed process exists for some milliseconds more, and so does its child that has not executed its own program
    /// yet. So another dotd counts only if it stays.
    ///
    /// Another user can keep a queue full, its own or a dotd's: the caller decides what [`Presence::unknown`] means.
    ///
    /// # Errors
    /// [`XdpError::Locked`]: another one runs.
    pub(super) fn claim() -> Result<Self, XdpError> {
        let name = format!("{NAME}{:016x}", random());
        // dotd makes its own socket first, so that of two that start at the same moment each finds the other.
        let listener = bind(&name).map_err(|error| failed(&error))?;
        let mut unknown = None;
        for tried in 1.. {
            let others = fs::read("/proc/thread-self/net/unix").map_err(|error| failed(&error))?;
            let others = String::from_utf8_lossy(&others);
            let heard = names(&others).filter(|other| *other != name).map(|other| (ask(other), other));
            let mut heard = heard.filter(|(heard, _)| *heard != Heard::NoDotd);
            // A dotd has priority over a socket of unknown owner: the first name in the list may be another user's.
            let first = heard.next();
            match heard.find(|(heard, _)| *heard == Heard::Dotd).or(first) {
                None => break,
                Some((Heard::Dotd, other)) if tried == TRIES_MAX => {
                    return Err(XdpError::Locked { folder: format!("@{other}") });
                }
                Some((_, other)) if tried == TRIES_MAX => {
                    unknown = Some(format!("@{other}"));
                    break;
                }
                Some(_) => thread::sleep(PAUSE),
            }
        }
        Ok(Self { listener, unknown })
    }

    /// Takes connections off the queue, so that it is never full.
    pub(super) fn answer(&self) {
        for _ in 0..QUEUE_MAX {
            if self.listener.accept().is_err() {
                break;
            }
        }
    }
}

fn bind(name: &str) -> io::Result<UnixListener> {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Names like ours in the kernel's list of sockets: `…: refs protocol flags type state inode @name`.
fn names(list: &str) -> impl Iterator<Item = &str> {
    let names = list.lines().filter_map(|line| line.rsplit_once('@').map(|(_, name)| name));
    names.filter(|name| name.starts_with(NAME))
}

/// Whether the listening process has the rights of a process that runs XDP: root, or dotd's own user.
fn ask(name: &str) -> Heard {
    match connected(name) {
        Ok(socket) if getsockopt(&socket, PeerCredentials).is_ok_and(|peer| is_ours(peer.uid())) => {
            Heard::Dotd
        }
        Err(Errno::EAGAIN) => Heard::Unknown,
        _ => Heard::NoDotd,
    }
}

fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Connects to the listener; with a full queue this fails at once, with EAGAIN.
fn connected(name: &str) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect_to(&socket, name)?;
    Ok(socket)
}

fn connect_to(socket: &OwnedFd, name: &str) -> Result<(), Errno> {
    connect(socket.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)
}

fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()))
}

fn failed(error: &io::Error) -> XdpError {
    XdpError::Pins { path: format!("@{NAME}"), reason: error.to_string() }
}

impl AsFd for Presence {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// The number of attempts to find another dotd, and their interval.
const TRIES_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);
/// The most connections that are taken at once.
const QUEUE_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: only names like ours count in the kernel's list. Method: lines as the kernel writes them, a path that
    /// contains our name, and random text.
    #[test]
    fn only_our_names_are_asked() {
        let list = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 2341 @dotd-xdp-00ff\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 2342 /run/dotd-xdp-1\n\
                    0000000000000000: 00000002 00000000 00000000 0002 01 2343\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 2344 @other\n@@\n";
        assert_eq!(names(list).collect::<Vec<_>>(), ["dotd-xdp-00ff"]);
    }

    /// Goal: a second claim finds the first, and finds none after its end. Method: three in this process, which shares
    /// its network namespace with every other test, under a separate name.
    #[test]
    fn a_listener_of_ours_is_found() {
        let name = format!("dotd-test-{:016x}", random());
        assert_eq!(ask(&name), Heard::NoDotd);
        let listener = bind(&name).unwrap();
        assert_eq!(ask(&name), Heard::Dotd);
        drop(listener);
        assert_eq!(ask(&name), Heard::NoDotd);
    }

    /// Goal: a full queue does not prove that there is no dotd. Method: a listener with room for one, which takes none;
    /// then it takes them.
    #[test]
    fn a_full_queue_proves_nothing() {
        let name = format!("dotd-test-{:016x}", random());
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let listener = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
        nix::sys::socket::bind(listener.as_raw_fd(), &address).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let mut waiting = Vec::new();
        while let Ok(socket) = connected(&name) {
            waiting.push(socket);
        }
        assert_eq!(ask(&name), Heard::Unknown);
        let listener = UnixListener::from(listener);
        while listener.accept().is_ok() {}
        assert_eq!(ask(&name), Heard::Dotd);
    }
}
