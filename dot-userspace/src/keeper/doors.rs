//! Whether the kernel takes new connections for DNS over TLS.
//!
//! Before: an operator switches it, and the engine asks. After: the kernel drops what comes to a listener before a connection exists, or
//! takes it again.
//! Holds: a socket filter on each listener. The listener stays bound and keeps its place in its SO_REUSEPORT group, which a
//! listener that is closed and opened again would lose. The filter belongs to the socket: the next engine has the same.
//! Never: touches DNS in clear.
//!
//! Source: socket(7), SO_ATTACH_FILTER.

use std::{io, os::fd::OwnedFd};

use nix::errno::Errno;
use socket2::{SockFilter, SockRef};

use super::estate::{Groups, Sockets};

/// "Return the constant": so many octets of a packet get to the socket; with 0 it is dropped.
const RETURN_CONSTANT: u16 = 0x06;

/// Has the kernel take connections for these listeners, or drop them.
pub(super) fn set(sockets: &Sockets<OwnedFd>, are_open: bool) -> io::Result<()> {
    let groups: &Groups<OwnedFd> = &sockets.dot;
    groups.iter().flat_map(|(_, group)| group).try_for_each(|listener| set_one(listener, are_open))
}

fn set_one(listener: &OwnedFd, are_open: bool) -> io::Result<()> {
    let socket = SockRef::from(listener);
    if !are_open {
        return socket.attach_filter(&[SockFilter::new(RETURN_CONSTANT, 0, 0, 0)]);
    }
    match socket.detach_filter() {
        // There is no filter.
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
        outcome => outcome,
    }
}
