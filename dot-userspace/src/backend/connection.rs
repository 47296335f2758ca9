//! One connection to a backend: many queries in a write, many responses in a read, in any order.
//!
//! Before: `streams` opened it, and fills [`Connection::push`] in each turn. After: each response is with its
//! sink; at its end `streams` hears how it ended and what it left unanswered.
//! Holds: its ID table, queries that wait to be written, the front of a response that is not whole.
//! Never: allocates per query once warm, waits for one response before the next query, or tries again itself.
//!
//! Source: RFC 7766 §6.2.1 (pipelining, one connection for many queries), §7 (out of order), §8 (framing).
//!
//! # Cancel safety
//! Dropping [`live`] closes the connection; only a fleet that nobody waits for does that.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    arrivals,
    dial::{NotOpened, Opened, dial},
    flights::{Flight, Half},
    ids::Ids,
    matching::Match,
    streams,
    upstream::Upstream,
};
use crate::{
    dns::{
        self,
        framing::{FramingError, append_message, cut_message},
    },
    ledger::Counter,
    proxy::Client,
};

/// Unanswered queries on one connection. 512: half of what ten busy clients have in flight, so that two
/// connections carry them; servers bound what they take from one connection far below that anyway.
pub const IN_FLIGHT_MAX: usize = 512;
/// Octets that wait to be written at which a connection takes no more.
const WAITING_OCTETS_MAX: usize = 64 * 1024;
/// Reads of one turn.
const READS_MAX: usize = 8;
/// A connection without queries is closed after this: as RFC 7766 §6.2.3 wants of a client; most servers
/// close theirs after 10 s to 2 min.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that is one client's alone holds a place that another client may need.
const PERSONAL_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection, as those who fill it see it.
#[derive(Default)]
pub struct Connection {
    /// Who waits for which ID on it.
    pub ids: Rc<Ids>,
    /// Whose alone it is; `None`: nobody's.
    client: Option<Client>,
    /// Queries that wait to be written, framed.
    out: RefCell<Vec<u8>>,
    is_established: Cell<bool>,
    has_answered: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Connection {
    /// One that is `client`'s alone. Its table of IDs is small: there may be many.
    pub fn of(client: Option<Client>) -> Self {
        Self { client, ..Self::default() }
    }

    /// Whether it can take queries at all.
    pub fn is_established(&self) -> bool {
        self.is_established.get()
    }

    /// Whether it ever gave a response that somebody waited for.
    pub fn has_answered(&self) -> bool {
        self.has_answered.get()
    }

    /// Whether it can take another query now.
    pub fn has_room(&self) -> bool {
        self.is_established() && self.takes_more()
    }

    /// Whether it can take another query, to be written as soon as it is established.
    pub fn takes_more(&self) -> bool {
        self.ids.outstanding() < IN_FLIGHT_MAX && self.out.borrow().len() < WAITING_OCTETS_MAX
    }

    /// Nobody waits for anything on it.
    pub fn is_quiet(&self) -> bool {
        self.ids.outstanding() == 0 && self.out.borrow().is_empty()
    }

    /// Appends a query, whose ID is in place, to what is written in this turn; `pads`: nobody but the backend
    /// can read it, and nobody shall guess it by its length. `false`: no frame can hold it.
    pub fn push(&self, flight: &Flight, pads: bool) -> bool {
        let write = |out: &mut Vec<u8>| {
            match flight.opt_rdata.filter(|_| pads) {
                Some(opt_rdata) => dns::pad_query(&flight.query, opt_rdata, out),
                None => out.extend_from_slice(&flight.query),
            }
            Ok::<_, Infallible>(())
        };
        matches!(append_message(&mut self.out.borrow_mut(), write), Ok(Some(_)))
    }

    /// Has what was pushed written.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    fn wake_by(&self, waker: &Waker) {
        let mut current = self.waker.borrow_mut();
        if !current.as_ref().is_some_and(|current| current.will_wake(waker)) {
            *current = Some(waker.clone());
        }
    }
}

/// How a connection ended.
#[derive(Debug, Error)]
pub enum End {
    /// It never began.
    #[error(transparent)]
    NotOpened(NotOpened),
    /// The backend closed it.
    #[error("closed by the backend")]
    Closed,
    /// The kernel gave up on it.
    #[error("failed: {0}")]
    Failed(io::Error),
    /// Nothing behind it can be believed.
    #[error("what came is not framed: {0}")]
    Broken(FramingError),
    /// Nobody needed it for long.
    #[error("idle")]
    Idle,
}

/// Opens `connection` and serves it to its end, of which `streams` is told.
pub async fn live(upstream: Rc<Upstream>, connection: Rc<Connection>) {
    let config = &upstream.config;
    let end = match dial(config, connection.client.as_ref()).await {
        Ok(Opened::Clear(tcp)) => converse(tcp, &upstream, &connection).await,
        Ok(Opened::Secure(wire)) => converse(wire, &upstream, &connection).await,
        Err(error) => End::NotOpened(error),
    };
    connection.is_established.set(false);
    streams::ended(&upstream, &connection, &end);
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    upstream: &Upstream,
    connection: &Connection,
) -> End {
    connection.is_established.set(true);
    upstream.fleet.counters.add(Counter::BackendConnections, 1);
    upstream.streams.opened();
    let mut dialogue = Dialogue::new(stream, upstream, connection);
    poll_fn(|context| dialogue.poll_turn(context)).await
}

/// A connection between two turns.
struct Dialogue<'a, S> {
    stream: S,
    upstream: &'a Upstream,
    connection: &'a Connection,
    /// The front of a response that is not whole.
    pending: Vec<u8>,
    /// What is being written, and how far.
    writing: Vec<u8>,
    written: usize,
    must_flush: bool,
    last_use: Instant,
    idle_timeout: Duration,
    clock: Pin<Box<Sleep>>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Dialogue<'a, S> {
    fn new(stream: S, upstream: &'a Upstream, connection: &'a Connection) -> Self {
        let now = Instant::now();
        let idle_timeout = if connection.client.is_some() { PERSONAL_IDLE_TIMEOUT } else { IDLE_TIMEOUT };
        Self {
            stream,
            upstream,
            connection,
            pending: Vec::new(),
            writing: Vec::new(),
            written: 0,
            must_flush: false,
            last_use: now,
            idle_timeout,
            clock: Box::pin(sleep_until(now + idle_timeout)),
        }
    }

    /// Everything that can be done now: read, deliver, write, look at the clock.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<End> {
        self.connection.wake_by(context.waker());
        if let Err(end) = self.read(context).and_then(|()| self.write(context)) {
            return Poll::Ready(end);
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
        let mut scratch = self.upstream.fleet.scratch.borrow_mut();
        for _ in 0..READS_MAX {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(End::Failed(error)),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Err(End::Closed),
                Poll::Ready(Ok(())) => {
                    self.last_use = Instant::now();
                    arrivals::begin_batch(self.last_use);
                    self.upstream.fleet.counters.add(Counter::BackendStreamReads, 1);
                    self.take_octets(buffer.filled())?;
                }
            }
        }
        // A flood must not starve the sessions: the rest is for the next turn.
        context.waker().wake_by_ref();
        Ok(())
    }

    /// Delivers every whole response in `octets`, which follow whatever is pending, where it lies.
    fn take_octets(&mut self, octets: &[u8]) -> Result<(), End> {
        if self.pending.is_empty() {
            let taken = self.deliver(octets)?;
            self.pending.extend_from_slice(octets.get(taken..).unwrap_or_default());
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(octets);
        let taken = self.deliver(&pending)?;
        pending.drain(..taken);
        self.pending = pending;
        Ok(())
    }

    /// Gives each whole response in front of `octets` to whoever waits for it; returns the octets used.
    fn deliver(&self, octets: &[u8]) -> Result<usize, End> {
        let fleet = &self.upstream.fleet;
        let (mut taken, mut responses) = (0, 0);
        while let Some(cut) = octets.get(taken..).map(cut_message).transpose().map_err(End::Broken)?.flatten()
        {
            taken += cut.octets;
            responses += 1;
            let outcome =
                fleet.deliver(self.upstream, &self.connection.ids, cut.message, Half::Stream, false);
            let is_answer = matches!(outcome, Match::Response | Match::Withdrawn | Match::WithoutEdns(_));
            if is_answer && !self.connection.has_answered.replace(true) {
                self.upstream.streams.forget_failures();
                self.upstream.wake();
            }
        }
        fleet.counters.add(Counter::BackendStreamReceived, responses);
        // There may be room again for what waits.
        self.upstream.streams.look();
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
                    self.last_use = Instant::now();
                    self.must_flush = true;
                    self.upstream.fleet.counters.add(Counter::BackendStreamWrites, 1);
                    self.written += octets;
                    // There is room again for what waits.
                    self.upstream.streams.look();
                }
            }
        }
    }

    /// TLS may keep the last record to itself until it is asked; to TCP this is nothing.
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
