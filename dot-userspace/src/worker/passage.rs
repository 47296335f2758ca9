//! The pair of sockets by which sessions go from one engine to the next.
//!
//! Before: the keeper gave each engine one end. After: both have said that they speak the same form, and a packet with a
//! descriptor goes over for each session.
//! Holds: [`FORM`], which is the first thing that is said, each way.
//! Never: has an engine that ends wait without end for the next one, which may be of another build; takes a packet that is not one
//! connection.
//!
//! Source: unix(7) (SOCK_SEQPACKET, SCM_RIGHTS).

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::TcpStream,
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            ControlMessage, ControlMessageOwned, MsgFlags, SockType, getsockopt, recv, recvmsg, send,
            sendmsg, setsockopt, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
    time::{ClockId, clock_gettime},
};

use crate::tls::Zeroizing;

/// The form of what is said: both engines say it, and sessions go over only where it is the same.
static FORM: &[u8] = b"dotd sessions, form 1";
/// How long an engine waits for the next one to say its form.
const FORM_TIMEOUT_SECONDS: i64 = 2;
/// The next engine waits as long as the passage is there: the one before may be busy when it is told, and the keeper bounds its
/// time.
const NO_TIMEOUT_SECONDS: i64 = 0;
/// Most octets of a packet: messages that are not handled yet, a part of a record, and octets that are not sent yet.
const PACKET_OCTETS_MAX: usize = 192 * 1024;

/// A session on its way, as the next engine receives it.
pub struct Arrived {
    /// Its connection.
    pub socket: TcpStream,
    /// What the engine before wrote of it. They hold its keys.
    pub octets: Zeroizing<Vec<u8>>,
}

/// Says our form to the next engine, and hears its own.
///
/// # Errors
/// It speaks another form, says that it takes no session, or says nothing.
pub fn offer(passage: &OwnedFd) -> io::Result<()> {
    send(passage.as_raw_fd(), FORM, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)?;
    hear_form(passage, FORM_TIMEOUT_SECONDS)
}

/// Waits for the form of the engine before, and says our own.
///
/// # Errors
/// It speaks another form, or has ended.
pub fn accept(passage: &OwnedFd) -> io::Result<()> {
    let heard = hear_form(passage, NO_TIMEOUT_SECONDS);
    // Also where it is another one: that engine says then which.
    send(passage.as_raw_fd(), FORM, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)?;
    heard
}

fn hear_form(passage: &OwnedFd, timeout_seconds: i64) -> io::Result<()> {
    let said = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    setsockopt(passage, sockopt::ReceiveTimeout, &TimeVal::seconds(timeout_seconds))?;
    let mut packet = [0; 64];
    let heard = uninterrupted(|| recv(passage.as_raw_fd(), &mut packet, MsgFlags::empty()));
    match heard {
        Ok(0) => Err(io::Error::other("it takes no sessions")),
        Ok(length) if packet.get(..length) == Some(FORM) => Ok(()),
        Ok(length) => {
            let other = packet.get(..length).unwrap_or_default();
            Err(io::Error::other(format!("it speaks \"{}\", and we \"{}\"", said(other), said(FORM))))
        }
        Err(Errno::EAGAIN) => Err(io::Error::other("it says nothing")),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends a session: what the worker wrote of its connection, and the session itself.
///
/// # Errors
/// `WouldBlock`: the next engine has not taken the last ones yet.
pub(super) fn send_session(
    passage: &impl AsRawFd,
    parts: [&[u8]; 2],
    connection: &OwnedFd,
) -> io::Result<()> {
    let descriptors = [connection.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let parts = parts.map(IoSlice::new);
    sendmsg::<()>(passage.as_raw_fd(), &parts, &rights, flags, None)?;
    Ok(())
}

/// Whether a later try may go better.
pub(super) fn is_transient(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS))
}

/// Receives the next session into `room`, and waits for it. `Ok(None)`: what came is none.
///
/// # Errors
/// `UnexpectedEof`: there will be no other one.
pub fn receive(passage: &OwnedFd, room: &mut Room) -> io::Result<Option<Arrived>> {
    let mut rights = nix::cmsg_space!([RawFd; 1]);
    let (length, flags, descriptors) = {
        let mut slices = [IoSliceMut::new(&mut room.0)];
        let received = uninterrupted(|| {
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            recvmsg::<()>(passage.as_raw_fd(), &mut slices, Some(&mut rights), flags)
                .map(|received| (received.bytes, received.flags, owned(&received)))
        });
        received?
    };
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let octets = Zeroizing::new(room.0.get(..length).unwrap_or_default().to_vec());
    room.0.iter_mut().take(length).for_each(|octet| *octet = 0);
    let is_whole = !flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    let Ok([descriptor]) = <[OwnedFd; 1]>::try_from(descriptors) else { return Ok(None) };
    Ok(connection(descriptor).filter(|_| is_whole).map(|socket| Arrived { socket, octets }))
}

/// Room for a packet. What was in it is overwritten when it has been taken out.
pub struct Room(Box<[u8]>);

impl Default for Room {
    fn default() -> Self {
        Self(vec![0; PACKET_OCTETS_MAX].into_boxed_slice())
    }
}

fn owned(received: &nix::sys::socket::RecvMsg<'_, '_, ()>) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    for message in received.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            // SAFETY: the kernel has just made these descriptors, for us alone.
            descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    descriptors
}

/// The descriptor, where it is a TCP connection that does not block.
fn connection(descriptor: OwnedFd) -> Option<TcpStream> {
    let is_stream = getsockopt(&descriptor, sockopt::SockType) == Ok(SockType::Stream);
    let socket = TcpStream::from(descriptor);
    // A Unix socket has no such address.
    let is_ip = socket.peer_addr().is_ok() && socket.local_addr().is_ok();
    (is_stream && is_ip && socket.set_nonblocking(true).is_ok()).then_some(socket)
}

/// Calls again where a signal came first. Nothing was sent or received then.
fn uninterrupted<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Nanoseconds of a clock that all processes share.
pub(super) fn shared_clock_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpListener, thread};

    use nix::sys::socket::{AddressFamily, SockFlag, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    /// Goal: two engines of one form agree; another form, an engine that takes none and one that ends are each said in words, on
    /// both sides. Method: a pair of sockets, and what each may say. Covers: A-543, C-553.
    #[test]
    fn engines_agree_on_a_form_or_say_why_not() {
        let (old, new) = pair();
        let next = thread::spawn(move || accept(&new).map(|()| new));
        offer(&old).unwrap();
        next.join().unwrap().unwrap();
        let (old, new) = pair();
        let next = thread::spawn(move || accept(&new).unwrap_err().to_string());
        send(old.as_raw_fd(), b"dotd sessions, form 0", MsgFlags::empty()).unwrap();
        let both = "it speaks \"dotd sessions, form 0\", and we \"dotd sessions, form 1\"";
        assert_eq!(next.join().unwrap(), both);
        assert!(hear_form(&old, FORM_TIMEOUT_SECONDS).is_ok(), "it says what it speaks");
        let (old, new) = pair();
        drop(new);
        assert!(offer(&old).is_err());
        let (old, new) = pair();
        send(new.as_raw_fd(), b"?", MsgFlags::empty()).unwrap();
        assert!(offer(&old).unwrap_err().to_string().starts_with("it speaks \"?\""));
    }

    /// Goal: a session arrives with its connection; a packet without one, with another kind of socket, or with several
    /// descriptors is none, and the next one is heard; the end is one. Method: each of these over a pair of sockets.
    ///
    #[test]
    fn a_packet_is_one_connection_or_nothing() {
        let (old, new) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connection = OwnedFd::from(listener.accept().unwrap().0);
        let mut room = Room::default();
        let (unix, _other) = pair();
        send_session(&old, [b"a", b"b"], &unix).unwrap();
        assert!(receive(&new, &mut room).unwrap().is_none());
        send(old.as_raw_fd(), b"no descriptor", MsgFlags::empty()).unwrap();
        assert!(receive(&new, &mut room).unwrap().is_none());
        let number = connection.as_raw_fd();
        for count in [2, 200] {
            let descriptors = vec![number; count];
            let rights = [ControlMessage::ScmRights(&descriptors)];
            sendmsg::<()>(old.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).unwrap();
            assert!(receive(&new, &mut room).unwrap().is_none(), "{count}");
        }
        send_session(&old, [b"of the worker", b", of the session"], &connection).unwrap();
        let arrived = receive(&new, &mut room).unwrap().expect("a session");
        assert_eq!(&arrived.octets[..], b"of the worker, of the session");
        assert!(room.0.iter().all(|octet| *octet == 0));
        drop(connection);
        client.write_all(b"x").unwrap();
        assert_eq!(arrived.socket.peer_addr().unwrap(), client.local_addr().unwrap());
        drop(old);
        assert_eq!(
            receive(&new, &mut room).err().map(|error| error.kind()),
            Some(io::ErrorKind::UnexpectedEof)
        );
    }

    /// Goal: an engine that takes nothing holds the other one up by an error, and never by a wait. Method: packets until there is
    /// no room; then one is taken.
    #[test]
    fn no_room_is_an_error_that_passes() {
        let (old, new) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = OwnedFd::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let octets = vec![7; 16 * 1024];
        let full =
            std::iter::repeat_with(|| send_session(&old, [&octets, &[]], &connection)).find_map(Result::err);
        assert_eq!(full.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        let mut room = Room::default();
        while send_session(&old, [&octets, &[]], &connection).is_err() {
            assert!(receive(&new, &mut room).unwrap().is_some());
        }
    }
}
