//! Whether the kernel takes new connections for DNS over TLS.
//!
//! Before: an operator switches DNS over TLS, and the engine asks the keeper. After: the kernel drops packets to
//! these listeners before a connection exists, or accepts them again.
//! Holds: a socket filter on each listener. The listener stays bound and keeps its place in its SO_REUSEPORT group; a
//! listener that is closed and opened again would lose it. The filter belongs to the socket, so it also holds for the
//! next engine.
//! Never: changes anything for DNS in clear.
//!
//! Source: socket(7), SO_ATTACH_FILTER.

use std::{io, os::fd::OwnedFd};

use nix::errno::Errno;
use socket2::{SockFilter, SockRef};

use super::estate::{Groups, Sockets};

/// The BPF instruction "return the constant": this number of octets of a packet gets to the socket. 0 drops the
/// packet.
const RETURN_CONSTANT: u16 = 0x06;

/// Makes the kernel accept connections for these listeners, or drop them.
pub(super) fn set(sockets: &Sockets<OwnedFd>, is_on: bool) -> io::Result<()> {
    let groups: &Groups<OwnedFd> = &sockets.dot;
    groups.iter().flat_map(|(_, group)| group).try_for_each(|listener| set_one(listener, is_on))
}

fn set_one(listener: &OwnedFd, is_on: bool) -> io::Result<()> {
    let socket = SockRef::from(listener);
    if !is_on {
        return socket.attach_filter(&[SockFilter::new(RETURN_CONSTANT, 0, 0, 0)]);
    }
    match socket.detach_filter() {
        // The listener has no filter.
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
        outcome => outcome,
    }
}
