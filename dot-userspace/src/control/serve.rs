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
        (Impatient { stream, place, is_asking: true, is_owed: false, whole, over }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A stream that fails when a request takes longer than [`REQUEST_TIMEOUT`] to arrive, when none comes for
/// [`IDLE_TIMEOUT`], and when its place is given to another connection. It reports its end only when no answer is owed: hyper would
/// take a client that sends nothing more for one that has gone, and write no answer.
struct Impatient<S> {
    stream: S,
    place: Place,
    /// A request is awaited or has begun; set until some of its answer is written.
    is_asking: bool,
    /// Some of a request was received; set until its answer is written.
    is_owed: bool,
    /// The request is being worked on, so nothing is late.
    whole: Whole,
    over: Pin<Box<Sleep>>,
}

impl<S> Impatient<S> {
    /// Some octets were received: the first ones after an answer begin a request.
    fn note_read(&mut self) {
        self.is_owed = true;
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
        let before = buffer.remaining();
        let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(context, buffer) else {
            return self.wait(context);
        };
        if buffer.remaining() < before {
            self.note_read();
        } else if result.is_ok() && self.is_owed {
            return self.wait(context);
        }
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
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        // hyper flushes when it has written all that it has.
        if flushed.is_ready() && self.is_owed && !self.is_asking {
            self.is_owed = false;
            // To read again: the end of the stream may have been held back.
            context.waker().wake_by_ref();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// 5 s: a request is one segment, from a client nearby.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// 90 s: longer than the usual scrape intervals of 15 to 60 s, so that Prometheus keeps its connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        sync::mpsc,
        time::timeout,
    };

    use super::*;

    /// Streams of the test in place of sockets.
    struct Streams(mpsc::Receiver<DuplexStream>);

    impl Listener for Streams {
        type Io = DuplexStream;
        type Addr = std::net::SocketAddr;

        async fn accept(&mut self) -> (Self::Io, Self::Addr) {
            match self.0.recv().await {
                Some(stream) => (stream, ([127, 0, 0, 1], 1).into()),
                None => std::future::pending().await,
            }
        }

        fn local_addr(&self) -> io::Result<Self::Addr> {
            Ok(([127, 0, 0, 1], 2).into())
        }
    }

    /// Goal: a client that sends its request and then closes its sending half gets the whole answer, also a late one and one that
    /// arrives piece by piece, and then the end of the connection; half a request gets none, and ends at its time limit. Method: a stream
    /// that holds 64 octets at once, and a handler that takes longer than a turn of the runtime.
    #[tokio::test]
    async fn a_client_that_sends_nothing_more_is_answered() {
        let (teller, streams) = mpsc::channel(1);
        let late = get(|| async {
            sleep(Duration::from_millis(20)).await;
            "x".repeat(10_000)
        });
        let router = Router::new().route("/", get(|| async { "x".repeat(10_000) })).route("/late", late);
        tokio::spawn(serve(Bounded::new(Streams(streams)), router));
        for (request, is_whole) in [
            ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", true),
            ("GET /late HTTP/1.1\r\nhost: x\r\n\r\n", true),
            ("GET /late HTTP/1.1\r\nhost: x\r\n", false),
        ] {
            let (mut client, server) = duplex(64);
            teller.send(server).await.unwrap();
            client.write_all(request.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let ended = timeout(Duration::from_secs(60), client.read_to_end(&mut answer)).await;
            assert!(ended.is_ok_and(|read| read.is_ok()), "{request}: the connection stays");
            let body = answer.iter().filter(|octet| **octet == b'x').count();
            assert_eq!(body >= 10_000, is_whole, "{request}: {body}");
        }
    }
}
