//! What carries a session's octets: TLS, or whatever else can read into a buffer that is not its own.
//!
//! Before: a connection is established. After: reader and writer use it without knowing which kind it is.
//! Never: holds a buffer while it is idle.

use std::{
    io,
    task::{Context, Poll},
};

use super::outq::unacknowledged;
use crate::tls;

/// A connection that a session can be served on.
pub trait Link {
    /// Reads once into `scratch`; says where in it the octets for the session are, if there are any, and what it cost.
    ///
    /// # Errors
    /// How it ended, after everything before the end was given out.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<tls::Read, tls::ReadEnd>>;

    /// Octets are here that will be readable only with others that are not.
    fn is_mid_record(&self) -> bool;

    /// Takes all of `content` when nothing waits in [`Link::unsent`] that must not; `out` is room to work in.
    ///
    /// # Errors
    /// The transport's; `QuotaExceeded` when the session has lasted as long as it may.
    fn send(&mut self, context: &mut Context<'_>, content: &[u8], out: &mut Vec<u8>) -> io::Result<()>;

    /// Writes what the peer has not taken. `is_answering`: a response follows, for which some of it may wait.
    ///
    /// # Errors
    /// The transport's.
    fn poll_flush(&mut self, context: &mut Context<'_>, is_answering: bool) -> Poll<io::Result<()>>;

    /// Octets taken by [`Link::send`] that are not with the kernel.
    fn unsent(&self) -> usize;

    /// Octets that are with the kernel, and that the peer has not acknowledged.
    fn unacknowledged(&self) -> usize;

    /// Octets of the session that the peer has acknowledged since it began.
    fn taken(&self) -> u64;

    /// Says the last words and sends the FIN, after what is unsent. `true`: the peer has sent its own FIN, and is read to
    /// its end, so that closing loses nothing.
    ///
    /// # Errors
    /// The transport's.
    fn poll_farewell(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>>;

    /// Ends without a word: what the kernel still holds for the peer goes with the connection.
    fn reset(&mut self);

    /// Takes octets that nobody will read; returns how many, 0 at the end.
    ///
    /// # Errors
    /// The transport's.
    fn poll_discard(&mut self, context: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>>;
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

    fn send(&mut self, context: &mut Context<'_>, content: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.send(context, content, out)
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
}
