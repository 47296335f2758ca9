//! An established TLS connection on its socket. An idle one holds no buffer, and at rest its secrets in place of its keys.
//!
//! Before: `handshake` is done. After: `session` has plaintext in its worker's buffer; responses are sealed there.
//! Holds: the beginning of an incomplete record, and sealed octets that the kernel has not taken.
//! Never: copies a record that is complete on arrival, or seals more while the peer does not take sealed octets.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd as _, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::{
    record::{CIPHERTEXT_OCTETS_MAX, HEADER_OCTETS},
    records::{Closing, Records, Taken, octets::RECORDS_OCTETS_MAX},
};
use crate::octets::{Octets, put_run};

/// Smallest buffer for [`Stream::poll_read`]: the longest beginning of a record, and as much again.
pub const SCRATCH_OCTETS_MIN: usize = 2 * CIPHERTEXT_OCTETS_MAX;

/// Most octets of an incomplete record, or of those that came with the handshake, that a connection carries to
/// another process.
const CARRY_OCTETS_MAX: usize = HEADER_OCTETS + CIPHERTEXT_OCTETS_MAX;
/// Most octets not taken by the kernel that it carries.
const UNSENT_OCTETS_MAX: usize = 32 * 1024;
/// Octets of the encoding without these and its records.
const FORM_OCTETS: usize = 24;

/// The result of one read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Where the plaintext is in the buffer; empty if no record had any, or none is complete.
    pub plaintext: Range<usize>,
    /// Octets that came from the socket.
    pub octets: usize,
    /// Records that were opened.
    pub records: usize,
}

/// How a stream ended for the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// close_notify, or a FIN: DNS messages have their own length, so a truncation is noticed (RFC 7858 §3.3).
    Closed,
    /// Reset, or another error of the transport.
    Transport,
    /// Broken TLS, or an alert.
    Tls,
}

/// A connection after its handshake.
pub struct Stream {
    tcp: TcpStream,
    records: Records,
    carry: Vec<u8>,
    /// `carry` came with the handshake, and may have complete records.
    is_fresh: bool,
    unsent: Vec<u8>,
    /// Octets of the session that the kernel has taken.
    written: u64,
    /// The unsent octets may wait for the next response: a ticket, a key update.
    may_wait: bool,
    closing: Option<Closing>,
    /// The peer's FIN was read.
    has_ended: bool,
    /// The last record is sealed.
    has_parted: bool,
}

impl Stream {
    /// `carry`: octets behind the handshake. `unsent`: octets of the handshake that are not sent yet.
    pub fn new(tcp: TcpStream, records: Records, mut carry: Vec<u8>, mut unsent: Vec<u8>) -> Self {
        // It was the handshake's buffer: a client without a query must not hold its pages.
        carry.shrink_to_fit();
        unsent.shrink_to_fit();
        let (is_fresh, may_wait) = (!carry.is_empty(), !unsent.is_empty());
        Self {
            tcp,
            records,
            carry,
            is_fresh,
            unsent,
            written: 0,
            may_wait,
            closing: None,
            has_ended: false,
            has_parted: false,
        }
    }

    /// Frees the memory of the keys, until a record needs them.
    pub fn rest(&mut self) {
        self.records.rest();
    }

    /// Whether [`Stream::rest`] would free something.
    pub fn may_rest(&self) -> bool {
        !self.records.is_at_rest()
    }

    /// Whether a part of a record has come and its rest has not.
    pub fn is_mid_record(&self) -> bool {
        !self.carry.is_empty()
    }

    /// The connection below TLS, for questions to the kernel.
    pub fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// Octets of the session that the kernel has taken.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Octets that are sealed and not with the kernel.
    pub fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Reads once into `scratch` (at least [`SCRATCH_OCTETS_MIN`] octets) and opens the records in place. It never
    /// reads twice, so the caller can bound the work of a turn.
    ///
    /// # Errors
    /// [`ReadEnd`], after all octets before the end were delivered.
    pub fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<Read, ReadEnd>> {
        if let Some(end) = self.end() {
            return Poll::Ready(Err(end));
        }
        let held = self.carry.len();
        let octets = match std::mem::take(&mut self.is_fresh) {
            true => 0,
            false => match ready!(self.poll_octets(context, scratch.get_mut(held..).unwrap_or_default())) {
                Ok(0) => {
                    self.has_ended = true;
                    return Poll::Ready(Err(ReadEnd::Closed));
                }
                Ok(octets) => octets,
                Err(_) => return Poll::Ready(Err(ReadEnd::Transport)),
            },
        };
        if let Some(front) = scratch.get_mut(..held) {
            front.copy_from_slice(&self.carry);
        }
        let filled = scratch.get_mut(..held + octets).unwrap_or_default();
        let Taken { plaintext, records, .. } = self.open(filled);
        Poll::Ready(Ok(Read { plaintext, octets, records }))
    }

    fn poll_octets(&mut self, context: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(room);
        ready!(Pin::new(&mut self.tcp).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn open(&mut self, filled: &mut [u8]) -> Taken {
        let replies = self.unsent.len();
        let taken = self.records.open(filled, &mut self.unsent);
        if replies == 0 && !self.unsent.is_empty() {
            self.may_wait = true;
        }
        self.closing = taken.closing;
        let rest = filled.get(taken.used..).unwrap_or_default();
        // Emptied before it is filled: a buffer is held only for an incomplete record.
        self.carry = Vec::new();
        if !rest.is_empty() && taken.closing.is_none() {
            self.carry = rest.to_vec();
        }
        taken
    }

    fn end(&self) -> Option<ReadEnd> {
        match self.closing {
            Some(Closing::Notified) => Some(ReadEnd::Closed),
            Some(Closing::Alerted | Closing::Broken(_)) => Some(ReadEnd::Tls),
            None => self.has_ended.then_some(ReadEnd::Closed),
        }
    }

    /// Seals each piece of `content` in records of its own in `out`, which it empties first, and writes as much as the kernel takes;
    /// the rest is unsent. Must be called only if all unsent octets may wait.
    ///
    /// # Errors
    /// The transport's error; `QuotaExceeded` when the key has been used for as many records as it may.
    pub fn send<'a>(
        &mut self,
        context: &mut Context<'_>,
        content: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        out.clear();
        if !self.unsent.is_empty() {
            out.append(&mut self.unsent);
            self.unsent = Vec::new();
        }
        self.may_wait = false;
        for piece in content {
            self.records.seal(piece, out).map_err(|_| io::ErrorKind::QuotaExceeded)?;
        }
        let sent = match Pin::new(&mut self.tcp).poll_write(context, out) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        self.written += sent as u64;
        if let Some(rest) = out.get(sent..).filter(|rest| !rest.is_empty()) {
            self.unsent = rest.to_vec();
        }
        Ok(())
    }

    /// Writes unsent octets. `is_answering`: a response will follow, and some of them may wait for it.
    ///
    /// # Errors
    /// The transport's error.
    pub fn poll_flush(&mut self, context: &mut Context<'_>, is_answering: bool) -> Poll<io::Result<()>> {
        if self.may_wait && is_answering {
            return Poll::Ready(Ok(()));
        }
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.tcp).poll_write(context, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += sent as u64;
            self.unsent.drain(..sent);
        }
        (self.unsent, self.may_wait) = (Vec::new(), false);
        Poll::Ready(Ok(()))
    }

    /// Sends close_notify, or the alert for the fault, and the FIN, after all unsent octets. `true`: the peer has sent
    /// its own FIN and all was read, so the socket may be closed at once.
    ///
    /// # Errors
    /// The transport's error.
    pub fn poll_farewell(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !std::mem::replace(&mut self.has_parted, true) {
            self.records.farewell(self.closing, &mut self.unsent);
            // No record is opened or sealed any more.
            self.carry = Vec::new();
            self.records.rest();
        }
        while !self.unsent.is_empty() {
            ready!(self.tcp.poll_write_ready(context))?;
            // One segment for the alert and the FIN that follows.
            let (tcp, unsent) = (&self.tcp, &self.unsent);
            let write = || SockRef::from(tcp).send_with_flags(unsent, libc::MSG_MORE | libc::MSG_NOSIGNAL);
            match tcp.try_io(Interest::WRITABLE, write) {
                Ok(sent) => {
                    self.written += sent as u64;
                    self.unsent.drain(..sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.unsent = Vec::new();
        if !self.has_ended {
            ready!(Pin::new(&mut self.tcp).poll_shutdown(context))?;
        }
        Poll::Ready(Ok(self.has_ended))
    }

    /// Room that the connection needs as octets. `None`: it cannot move to another process: it is ending, or its
    /// client reads too slowly.
    pub fn octets_to_move(&self) -> Option<usize> {
        let is_open = self.closing.is_none() && !self.has_ended && !self.has_parted;
        let is_small = self.carry.len() <= CARRY_OCTETS_MAX && self.unsent.len() <= UNSENT_OCTETS_MAX;
        (is_open && is_small).then(|| FORM_OCTETS + RECORDS_OCTETS_MAX + self.carry.len() + self.unsent.len())
    }

    /// Appends the connection's state without its socket, and returns the socket. Nothing may be read or written
    /// afterwards; dropping this leaves the connection open. `None`: no descriptor is left, and nothing has changed.
    pub fn hand_over(&mut self, out: &mut Vec<u8>) -> Option<OwnedFd> {
        let socket = self.tcp.as_fd().try_clone_to_owned().ok()?;
        self.records.hand_over(out);
        out.extend_from_slice(&self.written.to_be_bytes());
        out.extend_from_slice(&[u8::from(self.is_fresh), u8::from(self.may_wait)]);
        put_run(out, &self.carry);
        put_run(out, &self.unsent);
        Some(socket)
    }

    /// Continues a connection that another process has handed over. `None`: the octets are invalid.
    pub fn resume(tcp: TcpStream, octets: &mut Octets<'_>) -> Option<Self> {
        let records = Records::read(octets)?;
        let written = octets.u64()?;
        let (is_fresh, may_wait) = (octets.u8()? == 1, octets.u8()? == 1);
        let carry = octets.run(CARRY_OCTETS_MAX)?.to_vec();
        let unsent = octets.run(UNSENT_OCTETS_MAX)?.to_vec();
        let is_fresh = is_fresh && !carry.is_empty();
        Some(Self { is_fresh, written, may_wait, ..Self::new(tcp, records, carry, unsent) })
    }

    /// Makes the connection end in RST when it is dropped: otherwise a peer that takes an octet now and then would keep
    /// the kernel's memory occupied.
    pub fn reset(&mut self) {
        // Best effort: otherwise the kernel ends the connection after its own timeout.
        let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
    }

    /// Reads and drops octets. Returns their number; 0 means the FIN.
    ///
    /// # Errors
    /// The transport's error.
    pub fn poll_discard(&mut self, context: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let taken = ready!(self.poll_octets(context, scratch))?;
        self.has_ended |= taken == 0;
        Poll::Ready(Ok(taken))
    }
}
