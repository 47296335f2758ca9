//! How many octets the kernel holds for a peer: written by dotd, not acknowledged by the peer's kernel.
//!
//! Before: `writer` or `linger` waits for a client. After: it knows what the client has really acknowledged.
//! Never: counts octets as taken that only moved from dotd's memory into the kernel's.
//!
//! Source: tcp(7), SIOCOUTQ; a FIN that is not acknowledged counts as one octet.

use std::{
    ffi::c_int,
    os::fd::{AsFd, AsRawFd},
};

/// Octets in the send queue of a TCP socket; of a Unix socket what its peer has not read, with the kernel's own part.
pub fn unacknowledged(socket: impl AsFd) -> usize {
    let mut octets: c_int = 0;
    // SAFETY: the descriptor is open as long as `socket` is borrowed; SIOCOUTQ (TIOCOUTQ for sockets) writes one int,
    // to which the pointer is valid until the call returns.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut octets) };
    // A socket that cannot answer has no connection any more: nothing is on its way.
    if result == 0 { usize::try_from(octets).unwrap_or_default() } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Goal: octets that the peer's kernel does not acknowledge count, and no others. Method: a peer that reads nothing
    /// until its kernel's buffers are full, and then everything.
    #[test]
    fn what_the_peer_has_not_taken_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        assert_eq!(unacknowledged(&ours), 0);
        ours.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(more) = ours.write(&[0; 65_536]) {
            written += more;
        }
        let waiting = unacknowledged(&ours);
        assert!((1..written).contains(&waiting), "{waiting} of {written}");
        let mut rest = vec![0; written];
        peer.read_exact(&mut rest).unwrap();
        // The kernel sends acknowledgements by itself.
        while unacknowledged(&ours) > 0 {
            std::thread::yield_now();
        }
    }
}
