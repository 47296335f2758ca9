//! The keeper protocol: the requests of the engine and the answers of the keeper, octet by octet.
//!
//! Before: the engine needs something from the keeper. After: one packet has gone each way; the
//! answer may carry a file.
//! Holds: [`VERSION`], which is sent first, for keepers and engines of different builds.
//! Never: contains a number that the keeper would use as an index, a length or an address; accepts
//! more than [`REQUEST_OCTETS_MAX`].

use std::{
    ffi::OsStr,
    fs::File,
    io::{IoSlice, IoSliceMut},
    os::{
        fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

/// The version of the protocol. Version 2: the keeper holds ticket keys for the next engine.
pub(super) const VERSION: u8 = 2;
/// A word and a path.
pub(super) const REQUEST_OCTETS_MAX: usize = 4 + 4096;
/// The longest line for `systemctl status`.
const STATUS_OCTETS_MAX: usize = 256;
/// A kind, and a reason in words.
pub(super) const ANSWER_OCTETS_MAX: usize = 4096;

/// A state that the keeper reports to systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// dotd serves.
    Ready,
    /// dotd reads its config again.
    Reloading,
    /// dotd finishes its sessions.
    Stopping,
}

/// A request of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// The protocol version of the engine. It is the first request.
    Hello(u8),
    /// Check the attachments, and repair them.
    Look { has_news: bool },
    /// Detach everything from the interfaces, for good.
    Leave,
    /// Notify systemd.
    Notify(State),
    /// Read the config file again.
    ReadConfig,
    /// The config that was read last is now served: files that only earlier configs named are no
    /// longer opened.
    Adopt,
    /// Open a file that the config names.
    Open(PathBuf),
    /// Does another engine serve in place of this one? Then this one must end; the answer carries
    /// the passage for its sessions.
    IsSucceeded,
    /// Accept new connections for DNS over TLS, or drop them.
    Accept { is_on: bool },
    /// Every worker answers: report it to systemd's watchdog, with this text for `systemctl status`.
    Alive(String),
    /// Keep these octets for the next engine: the keys of session tickets, as `tls::Tickets` writes and reads them.
    Keep(Vec<u8>),
    /// Make the ACME process get a certificate now. A keeper of an earlier build refuses it.
    Renew,
}

impl Request {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (word, argument) = match self {
            Self::Hello(version) => (b'V', *version),
            Self::Look { has_news } => (b'L', u8::from(*has_news)),
            Self::Leave => (b'D', 0),
            Self::Notify(State::Ready) => (b'N', 0),
            Self::Notify(State::Reloading) => (b'N', 1),
            Self::Notify(State::Stopping) => (b'N', 2),
            Self::ReadConfig => (b'C', 0),
            Self::Adopt => (b'A', 0),
            Self::Open(_) => (b'O', 0),
            Self::IsSucceeded => (b'S', 0),
            Self::Accept { is_on } => (b'F', u8::from(*is_on)),
            Self::Alive(_) => (b'W', 0),
            Self::Keep(_) => (b'K', 0),
            Self::Renew => (b'R', 0),
        };
        let rest = match self {
            Self::Open(path) => path.as_os_str().as_bytes(),
            Self::Keep(octets) => octets,
            Self::Alive(text) => text.as_bytes(),
            _ => &[],
        };
        [&[word, argument], rest].concat()
    }

    /// Decodes a packet. `None`: it is no request.
    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        Some(match packet {
            [b'V', version] => Self::Hello(*version),
            [b'L', news @ (0 | 1)] => Self::Look { has_news: *news == 1 },
            [b'D', 0] => Self::Leave,
            [b'N', 0] => Self::Notify(State::Ready),
            [b'N', 1] => Self::Notify(State::Reloading),
            [b'N', 2] => Self::Notify(State::Stopping),
            [b'C', 0] => Self::ReadConfig,
            [b'A', 0] => Self::Adopt,
            [b'O', 0, path @ ..] if !path.is_empty() && !path.contains(&0) => {
                Self::Open(Path::new(OsStr::from_bytes(path)).to_path_buf())
            }
            [b'S', 0] => Self::IsSucceeded,
            [b'F', open @ (0 | 1)] => Self::Accept { is_on: *open == 1 },
            [b'W', 0, text @ ..] if text.len() <= STATUS_OCTETS_MAX => Self::Alive(one_line(text)),
            [b'K', 0, octets @ ..] => Self::Keep(octets.to_vec()),
            [b'R', 0] => Self::Renew,
            _ => return None,
        })
    }
}

/// A text without control characters: each line of a message to systemd is an assignment of its own, such as
/// MAINPID=.
fn one_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace(|letter: char| letter.is_control(), " ")
}

/// An answer of the keeper.
#[derive(Debug)]
pub(super) enum Answer {
    /// Done, with the file that was opened or written.
    Done(Option<File>),
    /// Not done, with the reason.
    Refused(String),
    /// Not done, because the two builds do not understand each other; with the reason.
    Incompatible(String),
    /// A system call failed with this errno.
    Failed(i32),
    /// No config names that file.
    NotNamed,
}

impl Answer {
    /// Sends the answer; a peer that does not read gets none.
    pub(super) fn send(&self, socket: &impl AsRawFd) -> Result<(), Errno> {
        let (kind, reason, file) = match self {
            Self::Done(file) => (b'd', Vec::new(), file.as_ref()),
            Self::Refused(reason) => (b'r', reason.as_bytes().to_vec(), None),
            Self::Incompatible(reason) => (b'i', reason.as_bytes().to_vec(), None),
            Self::Failed(number) => (b'e', number.to_be_bytes().to_vec(), None),
            Self::NotNamed => (b'n', Vec::new(), None),
        };
        let octets = [&[kind], reason.get(..ANSWER_OCTETS_MAX - 1).unwrap_or(&reason)].concat();
        let descriptors: Vec<RawFd> = file.iter().map(|file| file.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let rights = if descriptors.is_empty() { &[][..] } else { &rights };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&octets)], rights, flags, None).map(drop)
    }

    /// Waits for an answer. `None`: the other end is closed, or the packet is no answer.
    pub(super) fn receive(socket: &impl AsRawFd) -> Result<Option<Self>, Errno> {
        let mut octets = [0; ANSWER_OCTETS_MAX];
        let mut room = nix::cmsg_space!([RawFd; 1]);
        let mut slices = [IoSliceMut::new(&mut octets)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut room), flags)?;
        let mut file = None;
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = message {
                // SAFETY: the kernel has just made these descriptors, for us alone.
                let owned = descriptors.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) });
                file = owned.map(File::from).next();
            }
        }
        let length = received.bytes;
        Ok(match octets.get(..length) {
            Some([b'd']) => Some(Self::Done(file)),
            Some([b'r', reason @ ..]) => Some(Self::Refused(String::from_utf8_lossy(reason).into_owned())),
            Some([b'i', reason @ ..]) => {
                Some(Self::Incompatible(String::from_utf8_lossy(reason).into_owned()))
            }
            Some([b'e', a, b, c, d]) => Some(Self::Failed(i32::from_be_bytes([*a, *b, *c, *d]))),
            Some([b'n']) => Some(Self::NotNamed),
            _ => None,
        })
    }
}
