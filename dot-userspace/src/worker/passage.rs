//! The pair of sockets through which sessions move from one engine to the next.
//!
//! Before: the keeper gave each engine one end. After: both have confirmed that they use the same encoding, and each
//! session is sent as a packet with a descriptor.
//! Holds: [`FORM`], which each side sends first.
//! Never: lets an engine that ends wait without end for the next one, which may be of another build; accepts a packet
//! that is not one connection.
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

/// The name of the encoding: both engines send it, and sessions move only if both names are equal.
static FORM: &[u8] = b"dotd sessions, form 2";
/// How long an engine waits for the form of the next one.
const FORM_TIMEOUT_SECONDS: i64 = 2;
/// The next engine waits as long as the passage exists: the previous one may be busy when it is told to leave, and
/// the keeper limits its time.
const NO_TIMEOUT_SECONDS: i64 = 0;
/// Most octets of a packet: messages that are not handled yet, a part of a record, and unsent octets.
const PACKET_OCTETS_MAX: usize = 192 * 1024;

/// A packet of the previous engine.
pub enum Parcel {
    /// A session.
    Session(Arrived),
    /// The counts of that engine.
    Counts(Vec<u8>),
}

/// A session that the next engine has received.
pub struct Arrived {
    /// Its connection.
    pub socket: TcpStream,
    /// The encoding by the previous engine. It contains keys.
    pub octets: Zeroizing<Vec<u8>>,
}

/// Sends the own form to the next engine, and receives its form.
///
/// # Errors
/// It uses another form, refuses sessions, or sends nothing in time.
pub fn offer(passage: &OwnedFd) -> io::Result<()> {
    send(passage.as_raw_fd(), FORM, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)?;
    hear_form(passage, FORM_TIMEOUT_SECONDS)
}

/// Waits for the form of the previous engine, and sends the own.
///
/// # Errors
/// It uses another form, or has ended.
pub fn accept(passage: &OwnedFd) -> io::Result<()> {
    let heard = hear_form(passage, NO_TIMEOUT_SECONDS);
    // Sent also if the forms differ, so that the other engine can log both.
    send(passage.as_raw_fd(), FORM, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)?;
    heard
}

fn hear_form(passage: &OwnedFd, timeout_seconds: i64) -> io::Result<()> {
    let said = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    setsockopt(passage, sockopt::ReceiveTimeout, &TimeVal::seconds(timeout_seconds))?;
    let mut packet = [0; 64];
    let heard = uninterrupted(|| recv(passage.as_raw_fd(), &mut packet, MsgFlags::empty()));
    match heard {
        Ok(0) => Err(io::Error::other("it refuses sessions")),
        Ok(length) if packet.get(..length) == Some(FORM) => Ok(()),
        Ok(length) => {
            let other = packet.get(..length).unwrap_or_default();
            Err(io::Error::other(format!("it uses \"{}\", and this engine \"{}\"", said(other), said(FORM))))
        }
        Err(Errno::EAGAIN) => Err(io::Error::other("it sent nothing in time")),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends a session: the worker's encoding of its connection, and the session itself.
///
/// # Errors
/// `WouldBlock`: the next engine has not taken the previous packets yet.
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

/// Sends the counts of this engine.
///
/// # Errors
/// `WouldBlock`: the next engine has not taken the previous packets yet.
pub fn send_counts(passage: &OwnedFd, counts: &[u8]) -> io::Result<()> {
    send(passage.as_raw_fd(), counts, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

/// Whether a later attempt may succeed.
pub(super) fn is_transient(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS))
}

/// Waits for the next session, or for counts, and receives them into `room`. `Ok(None)`: the packet is neither.
///
/// # Errors
/// `UnexpectedEof`: there will be no other packet.
pub fn receive(passage: &OwnedFd, room: &mut Room) -> io::Result<Option<Parcel>> {
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
    if descriptors.is_empty() {
        return Ok(is_whole.then(|| Parcel::Counts(octets.to_vec())));
    }
    let Ok([descriptor]) = <[OwnedFd; 1]>::try_from(descriptors) else { return Ok(None) };
    Ok(connection(descriptor).filter(|_| is_whole).map(|socket| Parcel::Session(Arrived { socket, octets })))
}

/// The buffer for a packet. Its content is overwritten after it was taken out.
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
            // SAFETY: the kernel has just made these descriptors for this process, and nothing else owns them.
            descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    descriptors
}

/// The descriptor as a TCP connection, set to non-blocking. `None`: it is another kind of file.
fn connection(descriptor: OwnedFd) -> Option<TcpStream> {
    let is_stream = getsockopt(&descriptor, sockopt::SockType) == Ok(SockType::Stream);
    let socket = TcpStream::from(descriptor);
    // A Unix socket has no such address.
    let is_ip = socket.peer_addr().is_ok() && socket.local_addr().is_ok();
    (is_stream && is_ip && socket.set_nonblocking(true).is_ok()).then_some(socket)
}

/// Repeats a call that a signal interrupted. Nothing was sent or received by it.
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

    /// Goal: two engines of one form agree; another form, an engine that refuses sessions and one that ends each give
    /// an error that says so, on both sides. Method: a pair of sockets, and each possible message. Covers: A-543,
    /// C-553.
    #[test]
    fn engines_agree_on_a_form_or_say_why_not() {
        let (old, new) = pair();
        let next = thread::spawn(move || accept(&new).map(|()| new));
        offer(&old).unwrap();
        next.join().unwrap().unwrap();
        let (old, new) = pair();
        let next = thread::spawn(move || accept(&new).unwrap_err().to_string());
        send(old.as_raw_fd(), b"dotd sessions, form 0", MsgFlags::empty()).unwrap();
        let both = "it uses \"dotd sessions, form 0\", and this engine \"dotd sessions, form 2\"";
        assert_eq!(next.join().unwrap(), both);
        assert!(hear_form(&old, FORM_TIMEOUT_SECONDS).is_ok(), "it sends its form");
        let (old, new) = pair();
        drop(new);
        assert!(offer(&old).is_err());
        let (old, new) = pair();
        send(new.as_raw_fd(), b"?", MsgFlags::empty()).unwrap();
        assert!(offer(&old).unwrap_err().to_string().starts_with("it uses \"?\""));
    }

    /// Goal: a session arrives with its connection; a packet without one is counts; one with another kind of socket, or with
    /// several descriptors, is no session, and the next one is received; the end is reported. Method: each of these
    /// over a pair of sockets.
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
        send_counts(&old, b"no descriptor").unwrap();
        let Some(Parcel::Counts(counts)) = receive(&new, &mut room).unwrap() else {
            panic!("it is no session")
        };
        assert_eq!(counts, b"no descriptor");
        let number = connection.as_raw_fd();
        for count in [2, 200] {
            let descriptors = vec![number; count];
            let rights = [ControlMessage::ScmRights(&descriptors)];
            sendmsg::<()>(old.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).unwrap();
            assert!(receive(&new, &mut room).unwrap().is_none(), "{count}");
        }
        send_session(&old, [b"of the worker", b", of the session"], &connection).unwrap();
        let Some(Parcel::Session(arrived)) = receive(&new, &mut room).unwrap() else { panic!("a session") };
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

    /// Goal: an engine that reads nothing causes an error in the other one, and never a wait. Method: packets until
    /// there is no room; then one is read.
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
