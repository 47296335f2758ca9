//! Sockets for questions to the kernel over netlink, whose answers are waited for a bounded time.
//!
//! Before: another file has a question. After: it has the kernel's answer, or an error that says that none came.
//! Holds: the opening, the wait, and the end of an answer that was given up. Never: reads what an answer says.
//!
//! Source: netlink(7), socket(7) (SO_RCVTIMEO).

use std::{io, time::Duration};

use netlink_sys::{Socket, SocketAddr};
use nix::sys::{
    socket::{MsgFlags, setsockopt, sockopt::ReceiveTimeout},
    time::{TimeVal, TimeValLike as _},
};

/// The kernel answers while the question is being sent, unless its memory is exhausted: then there is no answer at all.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// A socket for questions, connected to the kernel.
///
/// # Errors
/// The kernel has no such protocol, or a sandbox refuses it.
pub(super) fn open(protocol: isize) -> io::Result<Socket> {
    open_within(protocol, ANSWERS_WITHIN)
}

fn open_within(protocol: isize, answers_within: Duration) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    let milliseconds = i64::try_from(answers_within.as_millis()).unwrap_or(i64::MAX);
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(milliseconds))?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// The next datagram of the kernel's answer.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`]: there was none in time.
pub(super) fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    match socket.recv_from_full() {
        Ok((octets, _)) => Ok(octets),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer over netlink"))
        }
        Err(error) => Err(error),
    }
}

/// Reads the rest of an answer that was given up, which would be taken for that of the next question.
///
/// # Errors
/// The rest has more than [`DATAGRAMS_MAX`] datagrams.
pub(super) fn drain(socket: &Socket) -> io::Result<()> {
    let mut octets = Vec::with_capacity(DATAGRAM_OCTETS);
    for _ in 0..DATAGRAMS_MAX {
        octets.clear();
        match socket.recv(&mut octets, MsgFlags::MSG_DONTWAIT.bits()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // One that is too long, or an error that is over: the next is read.
            Ok(_) | Err(_) => {}
        }
    }
    Err(io::Error::other("the kernel does not end its answer over netlink"))
}

/// The most datagrams of such a rest.
const DATAGRAMS_MAX: u32 = 4096;
const DATAGRAM_OCTETS: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;

    /// Goal: a thread does not wait for ever for an answer that does not come. Method: no question is asked.
    ///
    #[test]
    fn a_missing_answer_is_an_error() {
        let socket = open_within(NETLINK_ROUTE, Duration::from_millis(20)).unwrap();
        assert_eq!(receive(&socket).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
