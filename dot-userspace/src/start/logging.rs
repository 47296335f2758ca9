//! Writes log lines to standard error in a separate thread, so that no worker ever waits for a terminal.
//!
//! Before: modules log through `tracing`. After: a line is written, or counted as lost if standard error does not
//! keep up.
//! Never: blocks or grows: a full queue drops the line.

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    Registry,
    filter::{LevelFilter, Targets},
    fmt::{self, MakeWriter},
    layer::{Layer as _, SubscriberExt as _},
    reload,
};

use super::journal;
use crate::{
    config::{Log, LogFormat, LogLevel},
    control::LogRequest,
    events::EventSink,
};

/// Collects log lines from now on; [`write_from_now_on`] writes them. The first call of a process wins.
pub fn init(log: &Log) {
    let (sender, receiver) = bounded(LINES_MAX);
    if QUEUE.set((sender.clone(), Mutex::new(Some(receiver)))).is_err() {
        return;
    }
    let (subscriber, filter) =
        subscriber(log, Queue { sender, is_journal: journal::is_journal(io::stderr()) });
    let _ = FILTER.set(filter);
    *LEVEL.lock().unwrap_or_else(PoisonError::into_inner) = log.level;
    // Fails only if an embedder or a test has set its own subscriber, which then stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Applies an operator's request; returns the resulting state.
///
/// # Errors
/// Lines of connections would not be written at this level.
pub fn change(request: LogRequest, events: &EventSink) -> Result<LogRequest, String> {
    let level = request.level.unwrap_or_else(level);
    let connections = request.connections.unwrap_or_else(|| events.logs_connections());
    if request.connections == Some(true) && !level.shows_connections() {
        return Err(format!("log.level is {}: lines of connections have level info", level.name()));
    }
    if let Some(level) = request.level {
        set_level(level);
        tracing::info!("log.level is {} until the next reload", level.name());
    }
    if let Some(connections) = request.connections {
        events.log_connections(connections);
        tracing::info!("log.connections is {connections} until the next reload");
    }
    Ok(LogRequest { level: Some(level), connections: Some(connections) })
}

/// The present level.
fn level() -> LogLevel {
    *LEVEL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes lines of this level and above from now on.
pub fn set_level(level: LogLevel) {
    *LEVEL.lock().unwrap_or_else(PoisonError::into_inner) = level;
    if let Some(filter) = FILTER.get() {
        // Fails only if the subscriber no longer exists, and then nothing is written at all.
        let _ = filter.reload(levels(level));
    }
}

/// Starts the thread that writes. Call it only after the process has given up its rights: a thread keeps the rights
/// that it started with, and while threads had different rights the process could not change its user.
///
/// # Errors
/// The thread cannot be started.
pub fn write_from_now_on() -> io::Result<()> {
    let Some(receiver) = take_receiver() else { return Ok(()) };
    let write = move || {
        while let Ok(first) = receiver.recv() {
            write_waiting(first, &receiver);
        }
    };
    thread::Builder::new().name("dotd-log".into()).spawn(write).map(drop)
}

/// Takes the lines that are not written yet, for another process to write, because this one never waits for standard
/// error.
pub fn take_lines() -> Vec<Vec<u8>> {
    let Some((_, receiver)) = QUEUE.get() else { return Vec::new() };
    let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
    let entries = receiver.iter().flat_map(Receiver::try_iter);
    entries.filter_map(|entry| if let Entry::Line(line) = entry { Some(line) } else { None }).collect()
}

/// Writes a line of another process as one of this process.
pub fn pass_on(line: Vec<u8>) {
    if let Some((sender, _)) = QUEUE.get()
        && sender.try_send(Entry::Line(line)).is_err()
    {
        LINES_LOST.fetch_add(1, Relaxed);
    }
}

/// Writes the waiting lines if standard error accepts them at once: the last output of a process that never waits.
pub fn flush_at_once() {
    let stderr = io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let is_ready = poll(&mut ready, PollTimeout::ZERO).is_ok_and(|count| count == 1);
    let text: Vec<u8> = take_lines().concat();
    if is_ready && !text.is_empty() {
        // A pipe that is ready accepts this much at once.
        let _ = io::stderr().lock().write_all(text.get(..PIPE_OCTETS).unwrap_or(&text));
    }
}

/// Lines that are not written yet.
fn take_receiver() -> Option<Receiver<Entry>> {
    let (_, receiver) = QUEUE.get()?;
    receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The subscriber with level and format as configured, which sends lines to `queue`; and the handle that changes the
/// level.
fn subscriber(log: &Log, queue: Queue) -> (impl Subscriber + Send + Sync, Filter) {
    let is_journal = queue.is_journal;
    let layer = fmt::layer().with_writer(queue).with_ansi(false).with_target(false);
    let layer = match log.format {
        // The journal adds the time.
        LogFormat::Text if is_journal => layer.without_time().boxed(),
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let (filter, handle) = reload::Layer::new(levels(log.level));
    (tracing_subscriber::registry().with(layer.with_filter(filter)), handle)
}

/// Lines dropped since the start of the process.
#[must_use]
pub fn lines_lost() -> u64 {
    LINES_LOST.load(Relaxed)
}

/// Waits, but not for long, until every line so far is written. Call it once, before the process ends.
pub fn flush() {
    if let Some(receiver) = take_receiver() {
        // The start failed before there was a thread: this thread writes the lines.
        if let Ok(first) = receiver.try_recv() {
            write_waiting(first, &receiver);
        }
        return;
    }
    let Some((sender, _)) = QUEUE.get() else { return };
    let (done, written) = bounded(1);
    let deadline = Instant::now() + FLUSH_TIMEOUT;
    if sender.send_deadline(Entry::Flush(done), deadline).is_ok() {
        let _ = written.recv_deadline(deadline);
    }
}

/// Messages to the log thread.
enum Entry {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

/// Writes `first` and everything that waits behind it in one write.
fn write_waiting(first: Entry, receiver: &Receiver<Entry>) {
    let mut batch = Vec::new();
    let mut flushes = Vec::new();
    let mut waiting = Some(first);
    while let Some(entry) = waiting {
        match entry {
            Entry::Line(line) => batch.extend_from_slice(&line),
            Entry::Flush(done) => flushes.push(done),
        }
        waiting = if batch.len() < BATCH_OCTETS_MAX { receiver.try_recv().ok() } else { None };
    }
    // If standard error is closed, there is no place for the message.
    let _ = io::stderr().lock().write_all(&batch);
    for done in flushes {
        let _ = done.try_send(());
    }
}

/// Gives each event a buffer that is queued when it is complete.
struct Queue {
    sender: Sender<Entry>,
    /// Each line begins with its priority.
    is_journal: bool,
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        self.line(Level::INFO)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        self.line(*metadata.level())
    }
}

impl Queue {
    fn line(&self, level: Level) -> Line<'_> {
        let prefix = if self.is_journal { journal::prefix(level) } else { "" };
        Line { octets: prefix.into(), prefix_octets: prefix.len(), sender: &self.sender }
    }
}

/// One line being written.
struct Line<'a> {
    octets: Vec<u8>,
    prefix_octets: usize,
    sender: &'a Sender<Entry>,
}

impl io::Write for Line<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.octets.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let octets = std::mem::take(&mut self.octets);
        if octets.len() == self.prefix_octets {
            return;
        }
        match self.sender.try_send(Entry::Line(octets)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                LINES_LOST.fetch_add(1, Relaxed);
            }
        }
    }
}

/// The levels of each crate. dotd's own lines below level debug have no qnames and client addresses (RFC 8932); other
/// crates do not follow that rule, so they log only what an operator must know, and the DNS library, which writes a
/// line with the qname for each query, logs nothing unless an operator is debugging.
fn levels(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let of_dns = if ours >= LevelFilter::DEBUG { ours } else { LevelFilter::OFF };
    let others = if ours >= LevelFilter::TRACE { ours } else { ours.min(LevelFilter::WARN) };
    Targets::new().with_default(others).with_target("dot", ours).with_target("hickory", of_dns)
}

/// The queue of the process.
static QUEUE: OnceLock<(Sender<Entry>, Unwritten)> = OnceLock::new();
/// The level of this process; locked when an operator changes it.
static LEVEL: Mutex<LogLevel> = Mutex::new(LogLevel::Info);
/// The handle that changes the level of this process.
static FILTER: OnceLock<Filter> = OnceLock::new();
/// Selects the lines that are written. Its lock is taken by events that may be written; at the usual levels none is
/// on a query path.
type Filter = reload::Handle<Targets, Registry>;
/// The queue's other end, until a thread takes it.
type Unwritten = Mutex<Option<Receiver<Entry>>>;
/// Not on the query path: counted only when standard error is already too slow.
static LINES_LOST: AtomicU64 = AtomicU64::new(0);
/// 4096 lines, about 1 MiB: a start with a thousand interfaces fits, a stuck terminal costs no more than
/// that.
const LINES_MAX: usize = 4096;
/// One write of at most about 64 KiB, the size of a pipe.
const BATCH_OCTETS_MAX: usize = 64 << 10;
/// The most that a pipe accepts at once if it accepts anything (pipe(7): PIPE_BUF).
const PIPE_OCTETS: usize = 4096;
/// A stuck terminal must not keep a stopped dotd alive.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a full queue drops lines, counts each, and the writer does not wait. Method: a queue of one line without
    /// a reader gets three lines; if it blocked, this test would never end.
    #[test]
    fn full_queue_drops_and_counts() {
        let (sender, receiver) = bounded(1);
        let queue = Queue { sender, is_journal: false };
        let before = lines_lost();
        for _ in 0..3 {
            queue.make_writer().write_all(b"line\n").unwrap();
        }
        assert_eq!(lines_lost() - before, 2);
        assert!(matches!(receiver.try_recv(), Ok(Entry::Line(line)) if line == b"line\n"));
    }

    /// The lines of two events under a config.
    fn lines(log: &Log) -> Vec<String> {
        lines_to(log, false)
    }

    fn lines_to(log: &Log, is_journal: bool) -> Vec<String> {
        let (sender, receiver) = bounded(8);
        tracing::subscriber::with_default(subscriber(log, Queue { sender, is_journal }).0, || {
            tracing::debug!("fine");
            tracing::warn!(path = "a b", "coarse");
        });
        let entries = receiver.try_iter().map(|entry| match entry {
            Entry::Line(line) => String::from_utf8(line).unwrap(),
            Entry::Flush(_) => panic!("no flush was asked for"),
        });
        entries.collect()
    }

    /// Goal: the level suppresses lines, and each event is one line. Method: one event on either side of it.
    #[test]
    fn level_holds_lines_back() {
        let seen = lines(&Log { level: LogLevel::Info, ..Log::default() });
        assert_eq!(seen.len(), 1);
        assert!(seen[0].ends_with(" WARN coarse path=\"a b\"\n"), "{seen:?}");
        assert_eq!(lines(&Log { level: LogLevel::Debug, ..Log::default() }).len(), 2);
        assert_eq!(lines(&Log { level: LogLevel::Error, ..Log::default() }).len(), 0);
    }

    /// Goal: no line at the usual levels contains a qname, whatever a library logs (C-73). Method: the lines of the
    /// DNS library for each query, and lines of others, under every level. Covers: C-73.
    #[test]
    fn libraries_tell_no_qname() {
        let lines_of = |level: LogLevel| {
            let (sender, receiver) = bounded(8);
            let log = Log { level, ..Log::default() };
            tracing::subscriber::with_default(
                subscriber(&log, Queue { sender, is_journal: false }).0,
                || {
                    tracing::warn!(target: "hickory_server::server", "query:www.dotd.test.:A:IN");
                    tracing::info!(target: "axum::serve", "a connection");
                    tracing::warn!(target: "axum::serve", "no more connections");
                },
            );
            receiver.try_iter().count()
        };
        let counts =
            [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace].map(lines_of);
        assert_eq!(counts, [0, 1, 1, 2, 3]);
    }

    /// Goal: a line in the journal begins with its priority, so that `journalctl -p` finds it; JSON too. Method: two events.
    ///
    #[test]
    fn lines_in_the_journal_have_priorities() {
        let debug = Log { level: LogLevel::Debug, ..Log::default() };
        assert_eq!(lines_to(&debug, true), ["<7>DEBUG fine\n", "<4> WARN coarse path=\"a b\"\n"]);
        let json = lines_to(&Log { format: LogFormat::Json, ..Log::default() }, true);
        assert!(json[0].starts_with("<4>{") && json[0].ends_with("}\n"), "{json:?}");
    }

    /// Goal: the level changes while a process runs. Method: an event before and after.
    #[test]
    fn the_level_changes_live() {
        let (sender, receiver) = bounded(8);
        let (subscriber, filter) = subscriber(&Log::default(), Queue { sender, is_journal: false });
        tracing::subscriber::with_default(subscriber, || {
            for level in [LogLevel::Info, LogLevel::Debug, LogLevel::Error] {
                filter.reload(levels(level)).unwrap();
                tracing::debug!("fine");
                tracing::warn!("coarse");
            }
        });
        assert_eq!(receiver.try_iter().count(), 3);
    }

    /// Goal: JSON lines parse, with level, message and fields side by side.
    #[test]
    fn json_lines_parse() {
        let seen = lines(&Log { format: LogFormat::Json, ..Log::default() });
        let line: serde_json::Value = serde_json::from_str(&seen[0]).unwrap();
        assert_eq!(
            (&line["level"], &line["message"], &line["path"]),
            (&"WARN".into(), &"coarse".into(), &"a b".into())
        );
    }
}
