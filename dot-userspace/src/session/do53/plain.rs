//! A TCP connection in clear, for DNS on port 53.
//!
//! Before: a connection was accepted. After: a session is served on it as on any.
//! Holds: octets that the kernel has not taken.
//! Never: reads ahead, or writes more while the peer does not take what was written.
//!
//! Source: RFC 7766, RFC 9210.

use std::{
    future::poll_fn,
    io,
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
    session::Link,
    tls::{Read, ReadEnd},
};

/// A connection without TLS.
pub struct Plain {
    tcp: TcpStream,
    unsent: Vec<u8>,
    has_ended: bool,
}

impl Plain {
    /// Over `tcp`.
    #[must_use]
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp, unsent: Vec::new(), has_ended: false }
    }

    fn poll_octets(&mut self, context: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(room);
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
        self.unsent.extend_from_slice(content.get(sent..).unwrap_or_default());
        Ok(())
    }

    fn poll_flush(&mut self, context: &mut Context<'_>, _: bool) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.tcp).poll_write(context, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.drain(..sent);
        }
        self.unsent = Vec::new();
        Poll::Ready(Ok(()))
    }

    fn unsent(&self) -> usize {
        self.unsent.len()
    }

    async fn farewell(&mut self) -> io::Result<bool> {
        if !self.has_ended {
            poll_fn(|context| Pin::new(&mut self.tcp).poll_shutdown(context)).await?;
        }
        Ok(self.has_ended)
    }

    fn reset(&mut self) {
        let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
    }

    async fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| self.poll_octets(context, scratch)).await
    }
}
