//! Answers by UDP that the kernel has not taken yet, in one buffer.
//!
//! Before: an answer was written here. After: `send_all` gave it to the kernel, with other answers.
//! Holds: the answers, how many have left, and when the buffer last needed its present size.
//! Never: keeps the memory of a burst longer than [`KEPT_FOR`] after it, or frees it while bursts go on.

use std::{ops::Range, time::Duration};

use tokio::time::Instant;

use super::{Measured, batch::Ends};

/// Octets that the buffer may always keep: the answers of two batches, at the longest unfragmented length.
const KEPT_OCTETS: usize = 128 * 1024;
/// How long a larger buffer is kept after it was needed.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// The answers.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) octets: Vec<u8>,
    pub(super) datagrams: Vec<(Range<usize>, Ends, Measured)>,
    /// How many of them have left.
    pub(super) sent: usize,
    /// When more than [`KEPT_OCTETS`] were last needed. `None`: the buffer is not larger.
    large_at: Option<Instant>,
}

impl Waiting {
    /// All of them have left. `now` is called only if it matters.
    pub(super) fn clear(&mut self, now: impl FnOnce() -> Instant) {
        if self.octets.len() > KEPT_OCTETS {
            self.large_at = Some(now());
        }
        self.datagrams.clear();
        self.octets.clear();
        self.sent = 0;
    }

    /// Frees memory that was not needed for long, while no answer waits. Returns when to look again. `None`: when an
    /// answer waits.
    pub(super) fn shrink(&mut self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        let until = self.large_at? + KEPT_FOR;
        if now() < until || !self.octets.is_empty() {
            return Some(until);
        }
        *self = Self::default();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the memory of a burst is freed a second after the last one, whether few answers come then or none, and not
    /// while bursts go on; the memory of a batch is kept. Method: times by hand; bursts of 4 MiB, then answers of 100
    /// octets.
    #[test]
    fn a_burst_leaves_no_memory_behind() {
        let mut waiting = Waiting::default();
        let mut now = Instant::now();
        let mut held = Vec::new();
        for (octets, then_ms) in
            [(KEPT_OCTETS, 0), (4 << 20, 500), (4 << 20, 900), (100, 99), (100, 1), (0, 5000)]
        {
            waiting.octets.resize(octets, 0);
            waiting.clear(|| now);
            now += Duration::from_millis(then_ms);
            let looks_again = waiting.shrink(|| now).is_some();
            held.push((looks_again, waiting.octets.capacity()));
        }
        let (batch, burst) = ((false, KEPT_OCTETS), (true, 4 << 20));
        assert_eq!(held, [batch, burst, burst, burst, (false, 0), (false, 0)]);
    }
}
