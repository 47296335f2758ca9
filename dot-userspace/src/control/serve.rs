//! The two listeners of the control module: a bounded number of connections, each for a bounded time.
//!
//! Before: `start` bound a Unix socket and perhaps an HTTP address. After: `router` answers each request.
//! Holds: the choice of the connection that gives way when all places are taken ([`places`](super::places)), and the
//! time in which a request must arrive.
//! Never: lets an idle or surplus connection hold a file descriptor that a DNS client could use, or keep another
//! connection from its answer.

use std::{
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, UnixListener},
    time::{Instant, Sleep, sleep},
};

use super::{
    Source,
    places::{Place, Places},
    router,
    whole::Whole,
};

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
    L::Addr: Peer + std::fmt::Debug,
{
    axum::serve(listener, router.into_make_service_with_connect_info::<Whole>()).await
}

/// The peer of a connection, as far as that distinguishes clients.
trait Peer {
    fn address(&self) -> Option<IpAddr>;
}

impl Peer for std::net::SocketAddr {
    fn address(&self) -> Option<IpAddr> {
        Some(self.ip())
    }
}

impl Peer for tokio::net::unix::SocketAddr {
    fn address(&self) -> Option<IpAddr> {
        None
    }
}

impl<L: Listener> Connected<IncomingStream<'_, Bounded<L>>> for Whole
where
    L::Addr: Peer,
{
    fn connect_info(stream: IncomingStream<'_, Bounded<L>>) -> Self {
        stream.io().whole.clone()
    }
}

/// A listener with a bounded number of connections; when all places are taken, one connection gives way to the next.
struct Bounded<L> {
    listener: L,
    places: Arc<Places>,
}

impl<L> Bounded<L> {
    fn new(listener: L) -> Self {
        Self { listener, places: Arc::default() }
    }
}

impl<L: Listener> Listener for Bounded<L>
where
    L::Addr: Peer,
{
    type Io = Impatient<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = self.listener.accept().await;
        let place = Places::take(&self.places, address.address()).await;
        let (whole, over) = (Whole::default(), Box::pin(sleep(REQUEST_TIMEOUT)));
        (Impatient { stream, place, is_asking: true, whole, over }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A stream that fails when a request takes longer than [`REQUEST_TIMEOUT`] to arrive, when none comes for
/// [`IDLE_TIMEOUT`], and when its place is given to another connection.
struct Impatient<S> {
    stream: S,
    place: Place,
    /// A request is awaited or has begun; set until some of its answer is written.
    is_asking: bool,
    /// The request is being worked on, so nothing is late.
    whole: Whole,
    over: Pin<Box<Sleep>>,
}

impl<S> Impatient<S> {
    /// Some octets were received: the first ones after an answer begin a request.
    fn note_read(&mut self) {
        if !self.is_asking {
            self.is_asking = true;
            self.over.as_mut().reset(Instant::now() + REQUEST_TIMEOUT);
        }
    }

    /// Some of an answer was written.
    fn note_written(&mut self) {
        self.is_asking = false;
        self.whole.forget();
        self.place.answered();
        self.over.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
    }

    /// The result for a stream that waits: it fails once it has waited long enough.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let is_late = !self.whole.is_noted() && self.over.as_mut().poll(context).is_ready();
        let is_over = is_late || self.place.poll_lost(context).is_ready();
        if is_over { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { Poll::Pending }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(context, buffer) else {
            return self.wait(context);
        };
        self.note_read();
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(result) = Pin::new(&mut self.stream).poll_write(context, octets) else {
            return self.wait(context);
        };
        self.note_written();
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// 5 s: a request is one segment, from a client nearby.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// 90 s: longer than the usual scrape intervals of 15 to 60 s, so that Prometheus keeps its connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
