//! The octets of one connection to a backend: many queries in a write, many responses in a read, in any order.
//!
//! Before: a [`Connection`] was made, and gets queries in each turn. After: each response is with its sink; when
//! the connection ends, [`ended`] gets the reason.
//! Holds: the beginning of a response that is not whole, the octets being written, the idle timer.
//! Never: allocates per query once warm, waits for one response before the next query, or tries again itself.
//!
//! Source: RFC 7766 §6.2.1 (pipelining, one connection for many queries), §7 (out of order), §8 (framing).
//!
//! # Cancel safety
//! Dropping [`live`] closes the connection; only a pool without waiting queries does that.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    Streams,
    acknowledgement::{Acknowledgement, acknowledge},
    connection::{Connection, Lane},
    ended,
};
use crate::{
    backend::{
        Wire,
        dial::{NotOpened, Opened, dial},
        flights::Half,
        matching::Match,
    },
    dns::{
        carry::Carry,
        framing::{FramingError, cut_message},
    },
    ledger::{Counter, turn_time},
};

/// Reads of one turn.
const READS_MAX: usize = 8;
/// A connection without queries is closed after this time (RFC 7766 §6.2.3); most servers close theirs after 10 s
/// to 2 min.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a connection of one client, because another client may need its place.
const PERSONAL_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection for suspects is needed only while there are suspects.
const TRIAL_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// How a connection ended.
#[derive(Debug, Error)]
pub enum End {
    /// It could not be opened.
    #[error(transparent)]
    NotOpened(NotOpened),
    /// The backend closed it.
    #[error("closed by the backend")]
    Closed,
    /// The kernel gave up on it.
    #[error("failed: {0}")]
    Failed(io::Error),
    /// The octets behind this point cannot be framed.
    #[error("what came is not framed: {0}")]
    Broken(FramingError),
    /// It was unused for long, or is over and unused.
    #[error("idle")]
    Idle,
}

/// Opens `connection` and serves it to its end. Tells [`ended`] how it ended, and since when it had been usable.
pub async fn live(streams: Rc<Streams>, connection: Rc<Connection>) {
    let backend = &streams.backend;
    let client = match &connection.lane {
        Lane::PerClient(client) => client.as_ref(),
        Lane::Shared | Lane::Trial | Lane::Apart => None,
    };
    let end = match dial(&backend.config, backend.timeout(), client).await {
        Ok(Opened::Clear(tcp)) => {
            connection.ids.note_local(tcp.local_addr().ok());
            converse(tcp, acknowledge, &streams, &connection).await
        }
        Ok(Opened::Secure(wire)) => {
            connection.ids.note_local(wire.socket().local_addr().ok());
            #[expect(clippy::borrowed_box, reason = "the stream is the box: only that can be polled")]
            let acknowledge = |wire: &Box<dyn Wire>| acknowledge(wire.socket());
            converse(wire, acknowledge, &streams, &connection).await
        }
        Err(error) => End::NotOpened(error),
    };
    let established_at = connection.established_at.take();
    ended(&streams, &connection, established_at, &end);
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    acknowledge: impl Fn(&S),
    streams: &Streams,
    connection: &Connection,
) -> End {
    connection.established_at.set(Some(Instant::now()));
    streams.pool.counters.add(Counter::BackendConnections, 1);
    streams.opened();
    let mut io = ConnectionIo::new(stream, acknowledge, streams, connection);
    poll_fn(|context| io.poll_turn(context)).await
}

/// A connection between two turns.
struct ConnectionIo<'a, S, A> {
    stream: S,
    /// Makes the kernel acknowledge what was read.
    acknowledge: A,
    acknowledgement: Acknowledgement,
    streams: &'a Streams,
    connection: &'a Connection,
    /// The beginning of a response that is not whole.
    pending: Carry,
    /// Octets that are being written, and how many of them are.
    writing: Vec<u8>,
    written: usize,
    must_flush: bool,
    last_use: Instant,
    idle_timeout: Duration,
    clock: Pin<Box<Sleep>>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin, A: Fn(&S)> ConnectionIo<'a, S, A> {
    fn new(stream: S, acknowledge: A, streams: &'a Streams, connection: &'a Connection) -> Self {
        let now = Instant::now();
        let idle_timeout = match connection.lane {
            Lane::Shared => IDLE_TIMEOUT,
            Lane::Trial | Lane::Apart => TRIAL_IDLE_TIMEOUT,
            Lane::PerClient(_) => PERSONAL_IDLE_TIMEOUT,
        };
        Self {
            stream,
            acknowledge,
            acknowledgement: Acknowledgement::new(now),
            streams,
            connection,
            pending: Carry::default(),
            writing: Vec::new(),
            written: 0,
            must_flush: false,
            last_use: now,
            idle_timeout,
            clock: Box::pin(sleep_until(now + idle_timeout)),
        }
    }

    /// Does everything that is possible now: reads, delivers, writes, checks the clock.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<End> {
        self.connection.wake_by(context.waker());
        if let Err(end) = self.read(context).and_then(|()| self.write(context)) {
            return Poll::Ready(end);
        }
        if self.acknowledgement.poll(context, self.connection.ids.outstanding()).is_ready() {
            (self.acknowledge)(&self.stream);
        }
        if self.connection.is_spent() {
            return Poll::Ready(End::Idle);
        }
        while self.clock.as_mut().poll(context).is_ready() {
            let is_quiet = self.connection.ids.outstanding() == 0 && self.writing.is_empty();
            let idle_at = self.last_use + self.idle_timeout;
            if is_quiet && idle_at <= Instant::now() {
                return Poll::Ready(End::Idle);
            }
            self.clock.as_mut().reset(idle_at.max(Instant::now() + Duration::from_secs(1)));
        }
        Poll::Pending
    }

    fn read(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        let mut scratch = self.streams.scratch.0.borrow_mut();
        for _ in 0..READS_MAX {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(End::Failed(error)),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Err(End::Closed),
                Poll::Ready(Ok(())) => {
                    self.last_use = Instant::now();
                    turn_time::begin(self.last_use);
                    self.acknowledgement.note_read(self.last_use);
                    self.streams.pool.counters.add(Counter::BackendStreamReads, 1);
                    self.take_octets(buffer.filled())?;
                }
            }
        }
        // A flood must not starve the sessions, so the rest waits for the next turn.
        context.waker().wake_by_ref();
        Ok(())
    }

    /// Delivers every whole response in `octets`, which follow the pending octets. Responses are not copied.
    fn take_octets(&mut self, octets: &[u8]) -> Result<(), End> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.cut_with(octets, |octets| self.deliver(octets))?;
        self.pending = pending;
        Ok(())
    }

    /// Delivers each whole response at the beginning of `octets`. Returns the number of octets used.
    fn deliver(&self, octets: &[u8]) -> Result<usize, End> {
        let (streams, backend) = (self.streams, &self.streams.backend);
        let (mut taken, mut responses) = (0, 0);
        while let Some(cut) = octets.get(taken..).map(cut_message).transpose().map_err(End::Broken)?.flatten()
        {
            taken += cut.octets;
            responses += 1;
            let outcome =
                streams.pool.deliver(backend, &self.connection.ids, cut.message, Half::Stream, false);
            let is_answer = matches!(outcome, Match::Response | Match::Withdrawn | Match::WithoutEdns(_));
            if is_answer {
                backend.outcomes.note_answer();
                streams.answered_at.set(Some(self.last_use));
                if self.connection.count_answer() {
                    streams.back_off.forget();
                    backend.wake();
                }
            }
        }
        streams.pool.counters.add(Counter::BackendStreamReceived, responses);
        // Queries that wait may have room now.
        streams.look();
        Ok(taken)
    }

    fn write(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        loop {
            let Some(rest) = self.writing.get(self.written..).filter(|rest| !rest.is_empty()) else {
                self.writing.clear();
                self.written = 0;
                std::mem::swap(&mut self.writing, &mut *self.connection.out.borrow_mut());
                if self.writing.is_empty() {
                    return self.flush(context);
                }
                continue;
            };
            match Pin::new(&mut self.stream).poll_write(context, rest) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(End::Failed(error)),
                Poll::Ready(Ok(0)) => return Err(End::Closed),
                Poll::Ready(Ok(octets)) => {
                    self.must_flush = true;
                    self.acknowledgement.note_written();
                    self.streams.pool.counters.add(Counter::BackendStreamWrites, 1);
                    self.written += octets;
                    // Queries that wait have room now.
                    self.streams.look();
                }
            }
        }
    }

    /// TLS may keep its last record until it is flushed; for TCP a flush does nothing.
    fn flush(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        if !self.must_flush {
            return Ok(());
        }
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending => Ok(()),
            Poll::Ready(Err(error)) => Err(End::Failed(error)),
            Poll::Ready(Ok(())) => {
                self.must_flush = false;
                Ok(())
            }
        }
    }
}
