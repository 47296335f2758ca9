//! A ring buffer of the kernel half, as a stream of batches.
//!
//! Before: a program has put entries into the ring. After: the control thread has them, a batch at a time.
//! Holds: the ring. It has only a descriptor, and needs no right.
//! Never: makes the kernel wait for a reader; reads more at once than fits into a turn of the control thread.

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

/// Most entries that are taken in one turn.
const BATCH_MAX: usize = 64;

/// A ring with its reader.
pub(super) struct Ring(AsyncFd<RingBuf<MapData>>);

impl Ring {
    /// Waits for entries of a ring from now on. Call it inside a runtime.
    pub(super) fn listen(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the ring owns its one descriptor, names no other, and neither leaves this `AsyncFd`.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
        Ok(Self(ring))
    }

    /// Waits for the next entries that `read` can decode; returns at most a turn's worth.
    ///
    /// # Cancel safety
    /// Yes: entries that were not taken are returned the next time.
    pub(super) async fn next<T>(&mut self, read: impl Fn(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
        loop {
            let mut guard = self.0.readable_mut().await?;
            let mut batch = Vec::new();
            let ring = guard.get_inner_mut();
            let is_empty = loop {
                if batch.len() == BATCH_MAX {
                    break false;
                }
                match ring.next() {
                    Some(octets) => batch.extend(read(&octets)),
                    None => break true,
                }
            };
            if is_empty {
                guard.clear_ready();
            }
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
    }
}
