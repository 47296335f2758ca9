//! Writes the kernel half's log lines to dotd's log. Only with the feature `debug-log`.
//!
//! Holds: a thread that empties aya-log's ring ten times a second, and ends with the process; and the bridge from
//! aya-log's `log` to `tracing`.
//! Never: is part of a release.

use std::{thread, time::Duration};

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

/// The ring, before its thread is started.
pub(super) struct PacketLog(EbpfLogger<ToTracing>);

/// Takes the ring; if the object has none, there is nothing to read.
pub(super) fn take(object: &mut Ebpf) -> Option<PacketLog> {
    let logger = EbpfLogger::init_with_logger(object, ToTracing);
    logger.inspect_err(|error| tracing::warn!("no packet log: {error}")).ok().map(PacketLog)
}

impl PacketLog {
    /// Starts the thread: in the engine, because a process that forks has one thread.
    pub(super) fn start(self) {
        let Self(mut logger) = self;
        let spawned = thread::Builder::new().name("packet-log".into()).spawn(move || {
            loop {
                logger.flush();
                thread::sleep(Duration::from_millis(100));
            }
        });
        if let Err(error) = spawned {
            tracing::warn!("no packet log: {error}");
        }
    }
}

/// Writes every record as a debug event.
pub(super) struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        tracing::debug!("kernel: {}", record.args());
    }

    fn flush(&self) {}
}
