//! A TCP connection in clear, for DNS on port 53.
//!
//! Before: a connection was accepted. After: a session is served on it as on any other.
//! Holds: octets that the kernel has not taken.
//! Never: reads ahead, or writes more while the peer does not take what was written.
//!
//! Source: RFC 7766, RFC 9210.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{
    octets::{Octets, put_run},
    session::{Link, outq::unacknowledged},
    tls::{Read, ReadEnd},
};

/// Most octets not taken by the kernel that a connection carries to another process.
const UNSENT_OCTETS_MAX: usize = 32 * 1024;
/// Octets of the encoding without these.
const FORM_OCTETS: usize = 12;

/// A connection without TLS.
pub struct Plain {
    tcp: TcpStream,
    unsent: Vec<u8>,
    /// Octets that the kernel has taken.
    written: u64,
    has_ended: bool,
}

impl Plain {
    /// A connection over `tcp`.
    #[must_use]
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp, unsent: Vec::new(), written: 0, has_ended: false }
    }

    /// Continues a connection that another process has handed over. `None`: the octets are not the state of such a
    /// connection.
    #[must_use]
    pub fn resume(tcp: TcpStream, octets: &mut Octets<'_>) -> Option<Self> {
        let (written, unsent) = (octets.u64()?, octets.run(UNSENT_OCTETS_MAX)?.to_vec());
        Some(Self { tcp, unsent, written, has_ended: false })
    }

    /// The connection itself, for questions to the kernel.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    fn poll_octets(&mut self, context: &mut Context<'_>, shared: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(shared);
        ready!(Pin::new(&mut self.tcp).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl Link for Plain {
    fn poll_read(&mut self, context: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<Read, ReadEnd>> {
        Poll::Ready(match ready!(self.poll_octets(context, scratch)) {
            Ok(0) => {
                self.has_ended = true;
                Err(ReadEnd::Closed)
            }
            Ok(octets) => Ok(Read { plaintext: 0..octets, octets, records: 0 }),
            Err(_) => Err(ReadEnd::Transport),
        })
    }

    fn is_mid_record(&self) -> bool {
        false
    }

    fn send(&mut self, context: &mut Context<'_>, content: &[u8], _: &mut Vec<u8>) -> io::Result<()> {
        let sent = match Pin::new(&mut self.tcp).poll_write(context, content) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        self.written += sent as u64;
        self.unsent.extend_from_slice(content.get(sent..).unwrap_or_default());
        Ok(())
    }

    fn poll_flush(&mut self, context: &mut Context<'_>, _: bool) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.tcp).poll_write(context, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += sent as u64;
            self.unsent.drain(..sent);
        }
        self.unsent = Vec::new();
        Poll::Ready(Ok(()))
    }

    fn unsent(&self) -> usize {
        self.unsent.len()
    }

    fn unacknowledged(&self) -> usize {
        unacknowledged(&self.tcp)
    }

    fn taken(&self) -> u64 {
        self.written.saturating_sub(self.unacknowledged() as u64)
    }

    fn poll_farewell(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        ready!(self.poll_flush(context, false))?;
        if !self.has_ended {
            ready!(Pin::new(&mut self.tcp).poll_shutdown(context))?;
        }
        Poll::Ready(Ok(self.has_ended))
    }

    fn reset(&mut self) {
        let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
    }

    fn poll_discard(&mut self, context: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let taken = ready!(self.poll_octets(context, scratch))?;
        self.has_ended |= taken == 0;
        Poll::Ready(Ok(taken))
    }

    fn octets_to_move(&self) -> Option<usize> {
        let may_move = !self.has_ended && self.unsent.len() <= UNSENT_OCTETS_MAX;
        may_move.then_some(FORM_OCTETS + self.unsent.len())
    }

    fn hand_over(&mut self, out: &mut Vec<u8>) -> Option<OwnedFd> {
        let socket = self.tcp.as_fd().try_clone_to_owned().ok()?;
        out.extend_from_slice(&self.written.to_be_bytes());
        put_run(out, &self.unsent);
        Some(socket)
    }
}
