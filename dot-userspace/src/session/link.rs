//! The connection under a session: TLS, or anything else that can read into a shared buffer.
//!
//! Before: a connection is established. After: reader and writer use it without knowing its kind.
//! Never: holds a buffer while it is idle.

use std::{
    io,
    os::fd::OwnedFd,
    task::{Context, Poll},
};

use super::outq::unacknowledged;
use crate::{dns::framing, tls};

/// A connection that a session can be served on.
pub trait Link {
    /// Reads once into `scratch`. Returns where in it the session's octets are, if any, and the cost of the read.
    ///
    /// # Errors
    /// How the connection ended, after all octets before the end were delivered.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<tls::Read, tls::ReadEnd>>;

    /// Whether part of a record has arrived, which becomes readable only with the rest.
    fn is_mid_record(&self) -> bool;

    /// Whether [`Link::rest`] would free something.
    fn may_rest(&self) -> bool {
        false
    }

    /// Frees the memory that the link needs only while it is used; the next use takes it again.
    fn rest(&mut self) {}

    /// Takes all of `content`, unless too much waits in [`Link::unsent`]; `out` is a work buffer.
    ///
    /// # Errors
    /// The transport's error; `QuotaExceeded` when the session has sealed as many records as its key may.
    fn send(&mut self, context: &mut Context<'_>, content: &[u8], out: &mut Vec<u8>) -> io::Result<()>;

    /// Writes octets that the kernel has not taken. `is_answering`: a response follows, and some octets may wait for
    /// it.
    ///
    /// # Errors
    /// The transport's error.
    fn poll_flush(&mut self, context: &mut Context<'_>, is_answering: bool) -> Poll<io::Result<()>>;

    /// Octets passed to [`Link::send`] that the kernel has not taken.
    fn unsent(&self) -> usize;

    /// Octets that the kernel has and the peer has not acknowledged.
    fn unacknowledged(&self) -> usize;

    /// Octets of the session that the peer has acknowledged in all.
    fn taken(&self) -> u64;

    /// Sends the last record and the FIN, after all unsent octets. `true`: the peer has sent its own FIN, and
    /// everything was read, so closing loses nothing.
    ///
    /// # Errors
    /// The transport's error.
    fn poll_farewell(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>>;

    /// Resets the connection: octets that the kernel still holds for the peer are lost.
    fn reset(&mut self);

    /// Reads and drops octets. Returns their number; 0 means the end.
    ///
    /// # Errors
    /// The transport's error.
    fn poll_discard(&mut self, context: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Room that the state of the link needs as octets. `None`: it cannot move to another process.
    fn octets_to_move(&self) -> Option<usize>;

    /// Appends the state of the link without its socket, and returns the socket. The link must not be used
    /// afterwards. `None`: it stays.
    fn hand_over(&mut self, out: &mut Vec<u8>) -> Option<OwnedFd>;
}

impl Link for tls::Stream {
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<tls::Read, tls::ReadEnd>> {
        self.poll_read(context, scratch)
    }

    fn is_mid_record(&self) -> bool {
        self.is_mid_record()
    }

    fn may_rest(&self) -> bool {
        self.may_rest()
    }

    fn rest(&mut self) {
        self.rest();
    }

    fn send(&mut self, context: &mut Context<'_>, content: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        // A record for each message: getdns, and so Stubby, reads one message for each record that comes, and what shares its record
        // waits until the next one (C-662).
        self.send(context, framing::frames(content), out)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>, is_answering: bool) -> Poll<io::Result<()>> {
        self.poll_flush(context, is_answering)
    }

    fn unsent(&self) -> usize {
        self.unsent()
    }

    fn unacknowledged(&self) -> usize {
        unacknowledged(self.socket())
    }

    fn taken(&self) -> u64 {
        self.written().saturating_sub(self.unacknowledged() as u64)
    }

    fn poll_farewell(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.poll_farewell(context)
    }

    fn reset(&mut self) {
        self.reset();
    }

    fn poll_discard(&mut self, context: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_discard(context, scratch)
    }

    fn octets_to_move(&self) -> Option<usize> {
        self.octets_to_move()
    }

    fn hand_over(&mut self, out: &mut Vec<u8>) -> Option<OwnedFd> {
        self.hand_over(out)
    }
}
