//! Zone transfers: each has a connection of its own, and its messages are passed on as the client takes them.
//!
//! Before: `dns::triage` said transfer. After: the client has every message, or a message that says that it
//! failed.
//! Holds: one message at a time, so a client that does not read stops the backend.
//! Never: changes more of a message than its ID (TSIG holds over all of them), waits for octets behind the last
//! message, or runs more than [`TRANSFERS_MAX`] at once.
//!
//! Source: RFC 5936 §2.2 and §4 (AXFR over TCP), RFC 1995 (IXFR), RFC 9103 (over TLS).

use std::{convert::Infallible, io, net::SocketAddr, rc::Rc, time::Duration};

use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
    task::spawn_local,
    time::{Instant, sleep, timeout_at},
};

use super::{
    dial::{NotOpened, Opened, dial},
    matching::{Fit, Unmatched, fit},
    pool::Pool,
    sink::{Failure, Sink},
    tapped,
    worker_backend::Backend,
};
use crate::{
    config::ClientSubnet,
    dns::{self, Asked, Progress, Query, Transfer, framing::append_message},
    events::tap::Tapped,
    ledger::{Counter, turn_time},
};

/// Transfers of one worker at a time; each holds a connection and up to 64 KiB.
const TRANSFERS_MAX: usize = 16;
/// A transfer ends after this time, however slowly its client reads.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// A client that takes many messages for one query.
pub trait Receiver: Sink {
    /// Whether another message may come now.
    fn has_room(&self) -> bool;

    /// Whether the client is still there.
    fn is_open(&self) -> bool;

    /// Notified when [`Receiver::has_room`] or [`Receiver::is_open`] may have changed.
    fn changes(&self) -> Rc<Notify>;

    /// Takes a message with the client's ID in place. The ledger counts the first one as the response.
    fn message(&self, message: &[u8], is_first: bool);

    /// Ends the transfer. `is_whole = false`: the client must learn that messages are missing.
    fn end(&self, asked: Asked, query: &[u8], is_whole: bool);
}

/// How a transfer ended.
#[derive(Debug, Error)]
enum End {
    #[error("whole")]
    Whole,
    #[error("the client left")]
    ClientGone,
    #[error(transparent)]
    NotOpened(#[from] NotOpened),
    #[error("the backend: {0}")]
    Failed(#[from] io::Error),
    #[error("broken records")]
    Broken,
}

/// One transfer.
struct Relay {
    pool: Rc<Pool>,
    backend: Rc<Backend>,
    asked: Asked,
    query: Vec<u8>,
    /// Our address on its connection.
    local: Option<SocketAddr>,
    progress: Transfer,
    sink: Rc<dyn Receiver>,
    has_begun: bool,
    /// The sink has its outcome.
    has_told: bool,
}

/// Begins a transfer; its messages go to `sink`.
///
/// # Errors
/// The sink will hear nothing: [`Failure::Full`], or [`Failure::Unreachable`] without a backend.
pub fn begin(pool: &Rc<Pool>, message: &[u8], query: &Query, sink: Rc<dyn Receiver>) -> Result<(), Failure> {
    let id = pool.random.u16();
    let (Some(id), true) = (id, pool.transfers.get() < TRANSFERS_MAX) else {
        pool.count_failure(Failure::Full);
        return Err(Failure::Full);
    };
    let backend = pool.choose_for(message, query)?;
    let mut octets = Vec::new();
    let passes_subnet = pool.client_subnet != ClientSubnet::Strip;
    dns::forward(message, query, id, passes_subnet, &mut octets);
    pool.transfers.set(pool.transfers.get() + 1);
    pool.counters.add(Counter::BackendOutstanding, 1);
    backend.begin();
    let relay = Relay {
        pool: Rc::clone(pool),
        backend,
        asked: Asked::by(query),
        query: octets,
        local: None,
        progress: Transfer::asked_by(message, query),
        sink,
        has_begun: false,
        has_told: false,
    };
    spawn_local(relay.run());
    Ok(())
}

/// The transfer's place is free again and its client learns of the end, also after a panic or the end of the
/// worker.
impl Drop for Relay {
    fn drop(&mut self) {
        self.tell(Some(Failure::Unreachable));
        self.pool.transfers.set(self.pool.transfers.get().saturating_sub(1));
        self.backend.finish();
        if !self.has_begun {
            self.pool.counters.subtract(Counter::BackendOutstanding, 1);
        }
    }
}

impl Relay {
    async fn run(mut self) {
        let sink = Rc::clone(&self.sink);
        let end = tokio::select! {
            end = self.relay() => end.unwrap_or_else(|end| end),
            () = is_gone(sink.as_ref()) => End::ClientGone,
            () = sleep(DURATION_MAX) => End::Failed(io::ErrorKind::TimedOut.into()),
        };
        tracing::debug!(%end, backend = %self.backend.config.name, "a zone transfer has ended");
        let failure = match end {
            End::Whole => None,
            End::NotOpened(NotOpened::NotSecure(_)) => Some(Failure::NotSecure),
            End::Failed(error) if error.kind() == io::ErrorKind::TimedOut => Some(Failure::Silent),
            _ => Some(Failure::Unreachable),
        };
        self.tell(failure);
    }

    /// Tells the sink, once, how the transfer ended.
    fn tell(&mut self, failure: Option<Failure>) {
        if std::mem::replace(&mut self.has_told, true) {
            return;
        }
        match failure {
            Some(failure) if !self.has_begun => {
                if self.sink.is_open() {
                    self.pool.count_failure(failure);
                }
                self.sink.failure(self.asked, &self.query, failure);
            }
            _ => self.sink.end(self.asked, &self.query, failure.is_none()),
        }
    }

    async fn relay(&mut self) -> Result<End, End> {
        let client = self.sink.client();
        match dial(&self.backend.config, self.backend.timeout(), client.as_ref()).await? {
            Opened::Clear(stream) => {
                self.local = stream.local_addr().ok();
                self.carry(stream).await
            }
            Opened::Secure(stream) => {
                self.local = stream.socket().local_addr().ok();
                self.carry(stream).await
            }
        }
    }

    async fn carry<S: AsyncRead + AsyncWrite + Unpin>(&mut self, mut stream: S) -> Result<End, End> {
        let mut message = Vec::new();
        let _ = append_message(&mut message, |out| {
            out.extend_from_slice(&self.query);
            Ok::<_, Infallible>(())
        });
        self.in_time(stream.write_all(&message)).await?;
        self.in_time(stream.flush()).await?;
        turn_time::begin(Instant::now());
        tapped::transfer(&self.backend.config, Tapped::BackendQuery, self.asked, self.local, &self.query);
        loop {
            has_room(self.sink.as_ref()).await;
            self.read(&mut stream, &mut message).await?;
            turn_time::begin(Instant::now());
            tapped::transfer(&self.backend.config, Tapped::BackendResponse, self.asked, self.local, &message);
            let progress = self.progress.take(&message).ok_or(End::Broken)?;
            if let Some(id) = message.first_chunk_mut::<2>() {
                *id = self.asked.id.to_be_bytes();
            }
            self.sink.message(&message, !self.has_begun);
            if !std::mem::replace(&mut self.has_begun, true) {
                self.pool.counters.subtract(Counter::BackendOutstanding, 1);
            }
            self.pool.counters.add(Counter::BackendTransferred, 1);
            if progress == Progress::Done {
                return Ok(End::Whole);
            }
        }
    }

    /// Reads until a message of this transfer has come, and drops all others.
    async fn read<S: AsyncRead + Unpin>(&self, stream: &mut S, message: &mut Vec<u8>) -> Result<(), End> {
        let deadline = Instant::now() + self.backend.timeout();
        let late = || Err(io::ErrorKind::TimedOut.into());
        loop {
            timeout_at(deadline, read_message(stream, message)).await.unwrap_or_else(|_| late())?;
            let question_end = usize::from(self.asked.question_end);
            let has_id = message.first_chunk::<2>() == self.query.first_chunk::<2>();
            let why = match fit(message, &self.query, question_end) {
                _ if !has_id => Unmatched::Id,
                Ok(Fit::Whole) => return Ok(()),
                _ if self.has_begun && dns::has_no_question(message) => return Ok(()),
                Ok(Fit::BareError) => {
                    let mut whole = Vec::new();
                    dns::with_question(message, &self.query, question_end, &mut whole);
                    *message = whole;
                    return Ok(());
                }
                Err(why) => why,
            };
            self.pool.counters.add(Counter::BackendUnmatched, 1);
            self.backend.config.health.note_unmatched(why);
        }
    }

    async fn in_time(&self, step: impl Future<Output = io::Result<()>>) -> Result<(), End> {
        let deadline = Instant::now() + self.backend.timeout();
        let late = || Err(io::ErrorKind::TimedOut.into());
        Ok(timeout_at(deadline, step).await.unwrap_or_else(|_| late())?)
    }
}

async fn read_message<S: AsyncRead + Unpin>(stream: &mut S, message: &mut Vec<u8>) -> io::Result<()> {
    let octets = stream.read_u16().await?;
    message.resize(usize::from(octets), 0);
    stream.read_exact(message).await.map(drop)
}

async fn has_room(sink: &dyn Receiver) {
    let changes = sink.changes();
    loop {
        // Created before the check, so that no change between the two is missed.
        let changed = changes.notified();
        if sink.has_room() {
            return;
        }
        changed.await;
    }
}

async fn is_gone(sink: &dyn Receiver) {
    let changes = sink.changes();
    loop {
        let changed = changes.notified();
        if !sink.is_open() {
            return;
        }
        changed.await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::{net::TcpListener, task::LocalSet};

    use super::*;
    use crate::{
        backend::{Backends, sink::Broken, tests::backend_at},
        config::{Policy, Transport},
        dns::{Allowed, Disposition, triage},
        ledger::WorkerCounters,
    };

    /// A client in whose turn a panic happens, and the calls that it gets.
    #[derive(Default)]
    struct Panicking {
        heard: RefCell<Vec<&'static str>>,
        changes: Rc<Notify>,
        asked_for_room: Cell<bool>,
    }

    impl Sink for Panicking {
        fn response(&self, _: Asked, _: &[u8]) -> Result<(), Broken> {
            Ok(())
        }

        fn failure(&self, _: Asked, _: &[u8], _: Failure) {
            self.heard.borrow_mut().push("failure");
        }
    }

    impl Receiver for Panicking {
        fn has_room(&self) -> bool {
            self.asked_for_room.set(true);
            panic!("a panic that the test makes");
        }

        fn is_open(&self) -> bool {
            true
        }

        fn changes(&self) -> Rc<Notify> {
            Rc::clone(&self.changes)
        }

        fn message(&self, _: &[u8], _: bool) {}

        fn end(&self, _: Asked, _: &[u8], _: bool) {
            self.heard.borrow_mut().push("end");
        }
    }

    /// Goal: a transfer whose task panics frees its place, leaves its backend, and its client learns of the end
    /// once. Before, the query counted as in flight for ever. Method: a client in whose turn the panic happens.
    ///
    #[test]
    fn a_panic_is_a_transfers_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let config = backend_at(listener.local_addr().unwrap(), Transport::Tcp);
            let counters = WorkerCounters::default();
            let backends = Backends::start(&[config], Policy::First, 0, ClientSubnet::Pass, &counters);
            // AXFR of the root.
            let message = [0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 252, 0, 1];
            let allowed = Allowed { transfers: true, ..Allowed::default() };
            let Disposition::Transfer(query) = triage(&message, allowed) else { panic!("an AXFR") };
            let client = Rc::new(Panicking::default());
            backends.transfer(&message, &query, Rc::clone(&client) as Rc<dyn Receiver>).unwrap();
            assert_eq!((backends.pool.transfers.get(), counters.get(Counter::BackendOutstanding)), (1, 1));
            let _connection = listener.accept().await.unwrap();
            while backends.pool.transfers.get() > 0 {
                tokio::task::yield_now().await;
            }
            assert!(client.asked_for_room.get());
            assert_eq!(*client.heard.borrow(), ["failure"]);
            assert_eq!(counters.get(Counter::BackendOutstanding), 0);
        });
    }
}
