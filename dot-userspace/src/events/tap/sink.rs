//! The queue for the batches of all workers, what the reader wants, and counts of the messages.
//!
//! Before: a worker has a batch. After: the writer's thread has it, or its messages are counted as lost.
//! Holds: a queue of at most [`BATCHES_MAX`] batches for all workers together. Never: waits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use tokio::sync::mpsc;

use crate::config::{ClientAddress, Dnstap, DnstapMessages};

/// Most batches that wait: 2 MiB, and more if messages are long.
const BATCHES_MAX: usize = 64;

/// Frames that are sent together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Data frames, each with its length.
    pub octets: Vec<u8>,
    /// The number of frames.
    pub frames: u64,
}

/// The messages that a reader wants, and their form.
#[derive(Debug)]
pub(super) struct Plan {
    pub clients: bool,
    pub backends: bool,
    /// One query in this many is copied.
    pub sample: u32,
    pub client_address: ClientAddress,
    /// The identity of this server; empty: none.
    pub identity: Box<[u8]>,
}

/// Counts of frames over all reloads. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct TapCounts(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    lost: AtomicU64,
    is_connected: AtomicBool,
}

impl TapCounts {
    /// Counts frames that the kernel has taken.
    pub fn write(&self, frames: u64) {
        self.0.written.fetch_add(frames, Relaxed);
    }

    /// Counts frames that reach no reader.
    pub fn lose(&self, frames: u64) {
        self.0.lost.fetch_add(frames, Relaxed);
    }

    /// Sets whether a reader is connected.
    pub fn connect(&self, is_connected: bool) {
        self.0.is_connected.store(is_connected, Relaxed);
    }

    /// Whether a reader is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.is_connected.load(Relaxed)
    }

    /// Frames that the kernel has taken.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.0.written.load(Relaxed)
    }

    /// Frames that reached no reader.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Relaxed)
    }
}

/// The sending end of the queue. Clones share it.
#[derive(Clone, Debug)]
pub struct TapSink {
    batches: mpsc::Sender<Batch>,
    plan: Arc<Plan>,
    counts: TapCounts,
}

impl TapSink {
    /// A sink as `config` says, and the receiving end of its queue.
    #[must_use]
    pub fn new(config: &Dnstap, counts: &TapCounts) -> (Self, mpsc::Receiver<Batch>) {
        let (batches, receiver) = mpsc::channel(BATCHES_MAX);
        let plan = Plan {
            clients: config.messages.contains(&DnstapMessages::Client),
            backends: config.messages.contains(&DnstapMessages::Backend),
            sample: config.sample,
            client_address: config.client_address,
            identity: config.identity.as_bytes().into(),
        };
        (Self { batches, plan: Arc::new(plan), counts: counts.clone() }, receiver)
    }

    /// Whether it is the same queue.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.batches.same_channel(&other.batches)
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether the queue has no room for another batch.
    pub(super) fn is_full(&self) -> bool {
        self.batches.capacity() == 0
    }

    pub(super) fn send(&self, batch: Batch) {
        let frames = batch.frames;
        if self.batches.try_send(batch).is_err() {
            self.lose(frames);
        }
    }

    pub(super) fn lose(&self, frames: u64) {
        self.counts.lose(frames);
    }
}
