//! Where the batches of all workers go, by which plan, and what became of them.
//!
//! Before: a worker has a batch. After: the writer's thread has it, or its messages are lost and counted.
//! Holds: a queue of at most [`BATCHES_MAX`] batches for all workers together. Never: waits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use tokio::sync::mpsc;

use crate::config::{ClientAddress, Dnstap, DnstapMessages};

/// Batches on their way: 2 MiB, and some more of long messages.
const BATCHES_MAX: usize = 64;

/// Frames that leave together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Data frames, each with its length.
    pub octets: Vec<u8>,
    /// How many.
    pub frames: u64,
}

/// What a reader gets.
#[derive(Debug)]
pub(super) struct Plan {
    pub clients: bool,
    pub backends: bool,
    /// One of so many queries.
    pub sample: u32,
    pub client_address: ClientAddress,
    /// Empty: none.
    pub identity: Box<[u8]>,
}

/// Frames so far, over all reloads. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct TapCounts(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    lost: AtomicU64,
    is_connected: AtomicBool,
}

impl TapCounts {
    /// The kernel has these frames.
    pub fn write(&self, frames: u64) {
        self.0.written.fetch_add(frames, Relaxed);
    }

    /// These frames reach no reader.
    pub fn lose(&self, frames: u64) {
        self.0.lost.fetch_add(frames, Relaxed);
    }

    /// A reader is there, or no longer.
    pub fn connect(&self, is_connected: bool) {
        self.0.is_connected.store(is_connected, Relaxed);
    }

    /// Whether a reader is there.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.is_connected.load(Relaxed)
    }

    /// Frames that the kernel took.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.0.written.load(Relaxed)
    }

    /// Frames that reach no reader.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Relaxed)
    }
}

/// Takes batches. Cloning shares it.
#[derive(Clone, Debug)]
pub struct TapSink {
    batches: mpsc::Sender<Batch>,
    plan: Arc<Plan>,
    counts: TapCounts,
}

impl TapSink {
    /// A sink by `config`, and where its batches come out.
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

    /// Whether a batch would find no room.
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
