//! Writes the workers' dnstap frames to the reader that the config names, in a separate thread.
//!
//! Before: `[dnstap]` names a Unix socket or an address. After: the reader has the frames, or they are counted as
//! lost.
//! Holds: the queue of batches and the connection. After a connection ends, the thread connects again, with growing
//! pauses.
//! Never: makes a worker wait, or delays dotd's end: frames that a reader has not taken [`GRACE`] after that are
//! lost.

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

/// Time for a connection and its first control frames.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// The first and the longest pause before another attempt.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Time for a reader to take the remaining frames when dotd stops, or writes to another reader.
const GRACE: Duration = Duration::from_secs(3);

/// A writer.
pub(super) struct Tapping {
    /// The sending end of its queue.
    pub sink: TapSink,
    /// The config that it writes by.
    config: Dnstap,
    /// Dropping it ends the writer.
    stop: watch::Sender<()>,
    /// It is closed when the writer has ended.
    done: oneshot::Receiver<()>,
}

impl Tapping {
    /// Starts the thread, if a reader is configured.
    ///
    /// # Errors
    /// The thread cannot be started.
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

    /// Replaces the writer by one for `config`, if the config has changed.
    ///
    /// # Errors
    /// As [`Tapping::start`]; the old writer continues.
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

    /// Ends the writer, after the workers have ended.
    pub(super) async fn end(self) {
        drop(self.stop);
        drop(self.sink);
        // A little longer than the time within which it ends by itself.
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
    /// The reader has everything, and nothing else will come.
    Whole,
    /// The writer had to end, and the reader did not take the rest in time.
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
                    tracing::warn!(%error, "the dnstap reader cannot be reached: messages wait in a queue, and are lost when it is full");
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
        tracing::info!("connected to a dnstap reader");
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
                    // Every sink was dropped.
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
                // A reader sends nothing before the end.
                read = stream.read(&mut octet) => {
                    let error = read.err().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into());
                    return End::Failed(error);
                }
            }
        }
    }

    /// Counts the remaining frames as lost.
    fn leave(&mut self) {
        self.batches.close();
        while let Ok(batch) = self.batches.try_recv() {
            self.counts.lose(batch.frames);
        }
    }
}

/// Frames that are being written; dropping this counts them as lost, unless [`Passing::done`] was called.
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
    // This finds a reader that vanished without closing, while octets wait for it.
    socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(PAUSES.1))?;
    frame_streams::open(&mut stream).await?;
    Ok(stream)
}

/// Returns when the other end is dropped; may be awaited again.
async fn until(stopped: &mut watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}
