//! The two listeners of the control room: a bounded number of connections, none of them for ever.
//!
//! Before: `start` bound a Unix socket and perhaps an HTTP address. After: `router` answers each request.
//! Never: lets an idle or a surplus connection hold a file descriptor that a DNS client could have.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, serve::Listener};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

use super::{Source, router};

/// Serves `/status`, `/stats`, `/xdp` and `/bans` as JSON until dropped. Call it inside a tokio runtime.
///
/// # Errors
/// The listener cannot be made non-blocking or registered with the runtime.
///
/// # Cancel safety
/// Dropping it stops listening; connections end with the runtime.
pub async fn serve_unix(
    listener: std::os::unix::net::UnixListener,
    source: Arc<dyn Source>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    serve(Bounded::new(UnixListener::from_std(listener)?), router::socket(source)).await
}

/// Serves `GET /metrics` and `/health` until dropped. Call it inside a tokio runtime.
///
/// # Errors
/// The listener cannot be made non-blocking or registered with the runtime.
///
/// # Cancel safety
/// Dropping it stops listening; connections end with the runtime.
pub async fn serve_http(listener: std::net::TcpListener, source: Arc<dyn Source>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    serve(Bounded::new(TcpListener::from_std(listener)?), router::http(source)).await
}

async fn serve<L: Listener>(listener: Bounded<L>, router: Router) -> io::Result<()>
where
    L::Addr: std::fmt::Debug,
{
    axum::serve(listener, router).await
}

/// A listener with at most [`CONNECTIONS_MAX`] connections; the next waits in the kernel's queue.
struct Bounded<L> {
    listener: L,
    room: Arc<Semaphore>,
}

impl<L> Bounded<L> {
    fn new(listener: L) -> Self {
        Self { listener, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Impatient<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let place = self.room.clone().acquire_owned().await.ok();
        let (stream, address) = self.listener.accept().await;
        (Impatient { stream, _place: place, idle: Box::pin(sleep(IDLE_TIMEOUT)) }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A stream that fails once nothing was read for [`IDLE_TIMEOUT`].
struct Impatient<S> {
    stream: S,
    _place: Option<OwnedSemaphorePermit>,
    idle: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            self.idle.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
            return Poll::Ready(result);
        }
        ready!(self.idle.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// 64: one operator and a few monitors need less; each costs a file descriptor and about 20 KiB.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// 90 s: longer than the usual scrape intervals of 15 to 60 s, so that Prometheus keeps its connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
