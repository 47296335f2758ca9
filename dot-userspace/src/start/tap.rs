//! Writes the workers' dnstap frames to the reader that the config names, in a thread of its own.
//!
//! Before: `[dnstap]` names a Unix socket or an address. After: the reader has the frames, or they are lost and counted.
//! Holds: the queue of batches and the connection. A connection that ends is made again, later each time.
//! Never: keeps a worker waiting, or dotd from its end: what a reader has not taken [`GRACE`] after that is lost.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    sync::{mpsc::Receiver, oneshot, watch},
    time::{sleep, timeout},
};

use super::frame_streams;
use crate::{
    config::Dnstap,
    events::tap::{Batch, TapCounts, TapSink},
};

/// Time for a connection and its first words.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before another attempt, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Time for a reader to take what is left when dotd stops, or writes to another one.
const GRACE: Duration = Duration::from_secs(3);

/// A writer.
pub(super) struct Tapping {
    /// Takes frames.
    pub sink: TapSink,
    /// By which it writes.
    config: Dnstap,
    /// Dropped: it ends.
    stop: watch::Sender<()>,
    /// Closed: it has ended.
    done: oneshot::Receiver<()>,
}

impl Tapping {
    /// Starts the thread, if somebody is to get frames.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(config: &Dnstap, counts: &TapCounts) -> anyhow::Result<Option<Self>> {
        if !config.is_on() {
            return Ok(None);
        }
        let (sink, batches) = TapSink::new(config, counts);
        let (stop, stopped) = watch::channel(());
        let (is_done, done) = oneshot::channel();
        let target = match config.tcp {
            Some(address) => Target::Tcp(address),
            None => Target::Unix(config.unix.clone()),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("the dnstap thread has no runtime")?;
        let mut writer = Writer { target, batches, counts: counts.clone(), stopped };
        let write = move || {
            runtime.block_on(writer.run());
            writer.leave();
            drop(is_done);
        };
        thread::Builder::new()
            .name("dnstap".to_owned())
            .spawn(write)
            .context("the dnstap thread cannot start")?;
        Ok(Some(Self { sink, config: config.clone(), stop, done }))
    }

    /// The writer by `config`: this one, if nothing has changed.
    ///
    /// # Errors
    /// As [`Tapping::start`]; the old one goes on.
    pub(super) fn renew(
        running: &mut Option<Self>,
        config: &Dnstap,
        counts: &TapCounts,
    ) -> anyhow::Result<Option<TapSink>> {
        if running.as_ref().is_none_or(|running| running.config != *config) {
            *running = Self::start(config, counts)?;
        }
        Ok(running.as_ref().map(|running| running.sink.clone()))
    }

    /// Ends it, when the workers have ended.
    pub(super) async fn end(self) {
        drop(self.stop);
        drop(self.sink);
        // A little longer: it ends by itself within that time.
        let _ = timeout(GRACE + Duration::from_millis(500), self.done).await;
    }
}

enum Target {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

struct Writer {
    target: Target,
    batches: Receiver<Batch>,
    counts: TapCounts,
    stopped: watch::Receiver<()>,
}

/// How a connection to a reader ended.
enum End {
    /// The reader has everything, and no more will come.
    Whole,
    /// It is to end, and the reader did not take the rest in time.
    Late,
    Failed(io::Error),
}

impl Writer {
    async fn run(&mut self) {
        let (mut pause, mut is_said) = (PAUSES.0, false);
        loop {
            let end = match self.serve().await {
                Ok(end) => {
                    (pause, is_said) = (PAUSES.0, false);
                    end
                }
                Err(error) => End::Failed(error),
            };
            self.counts.connect(false);
            match end {
                End::Whole | End::Late => return,
                End::Failed(error) if !is_said => {
                    tracing::warn!(%error, "there is no dnstap reader: messages wait in a queue, and are lost when it is full");
                    is_said = true;
                }
                End::Failed(_) => {}
            }
            let mut stopped = self.stopped.clone();
            tokio::select! {
                () = sleep(pause) => {}
                () = until(&mut stopped) => return,
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Connects and writes.
    ///
    /// # Errors
    /// There is no reader.
    async fn serve(&mut self) -> io::Result<End> {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let stream = timeout(OPEN_TIMEOUT, connect(&self.target)).await.map_err(|_| late())??;
        Ok(match stream {
            Stream::Unix(stream) => self.write(stream).await,
            Stream::Tcp(stream) => self.write(stream).await,
        })
    }

    async fn write<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: S) -> End {
        self.counts.connect(true);
        tracing::info!("a dnstap reader gets messages");
        let mut stopped = self.stopped.clone();
        let overdue = async move {
            until(&mut stopped).await;
            sleep(GRACE).await;
        };
        tokio::select! {
            end = self.pass(stream) => end,
            () = overdue => End::Late,
        }
    }

    async fn pass<S: AsyncRead + AsyncWrite + Unpin>(&mut self, mut stream: S) -> End {
        let mut octet = [0];
        loop {
            tokio::select! {
                biased;
                batch = self.batches.recv() => {
                    // Nobody has a sink for it any more.
                    let Some(batch) = batch else {
                        return match frame_streams::close(&mut stream).await {
                            Ok(()) => {
                                tracing::info!("the dnstap reader has every message");
                                End::Whole
                            }
                            Err(_) => End::Late,
                        };
                    };
                    let passing = Passing { counts: &self.counts, frames: batch.frames };
                    if let Err(error) = stream.write_all(&batch.octets).await {
                        return End::Failed(error);
                    }
                    passing.done();
                }
                // A reader says nothing before the end.
                read = stream.read(&mut octet) => {
                    let error = read.err().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into());
                    return End::Failed(error);
                }
            }
        }
    }

    /// What is left reaches nobody.
    fn leave(&mut self) {
        self.batches.close();
        while let Ok(batch) = self.batches.try_recv() {
            self.counts.lose(batch.frames);
        }
    }
}

/// Frames that are being written: lost, unless they are [`Passing::done`].
struct Passing<'a> {
    counts: &'a TapCounts,
    frames: u64,
}

impl Passing<'_> {
    fn done(mut self) {
        self.counts.write(std::mem::take(&mut self.frames));
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.counts.lose(self.frames);
    }
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

async fn connect(target: &Target) -> io::Result<Stream> {
    Ok(match target {
        Target::Unix(path) => Stream::Unix(connect_unix(path).await?),
        Target::Tcp(address) => Stream::Tcp(connect_tcp(*address).await?),
    })
}

async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path).await?;
    frame_streams::open(&mut stream).await?;
    Ok(stream)
}

async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    // A reader that vanished without closing is found while something waits for it.
    socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(PAUSES.1))?;
    frame_streams::open(&mut stream).await?;
    Ok(stream)
}

/// Returns when the other side is dropped; may be awaited again.
async fn until(stopped: &mut watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}
