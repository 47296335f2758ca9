//! The state that a worker reports to the kernel half, and its consequences for new connections.
//!
//! Before: a worker stored its entry in the map WORKERS, which it has mapped. After: dotd_steer sends a connection to
//! another worker, and dotd_xdp drops a SYN where no worker takes any.
//! Holds: the entry, and both decisions. Never: trusts an entry for ever: a closed worker counts as open again after a
//! time, also when its thread is stuck.

/// One worker. 64 octets: a cache line, so that no worker waits for another one's stores.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Connections open.
    pub open: u32,
    /// Its share of the connection cap: beyond it other workers are preferred. 0: not known.
    pub share: u32,
    /// Handshakes that wait for their turn.
    pub backlog: u32,
    /// Always zero.
    pub reserved: u32,
    /// Monotonic time in nanoseconds until which it takes no connection: 0: it takes connections; [`ENDED`]: it will
    /// never take one again.
    pub closed_until_ns: u64,
    /// Always zero: the rest of the cache line.
    pub rest: [u64; 5],
}

const _: () = assert!(size_of::<WorkerStatus>() == 64 && align_of::<WorkerStatus>() == 8);

/// The end of time, for a worker that drains.
pub const ENDED: u64 = u64::MAX;

impl WorkerStatus {
    /// Whether it takes connections at `now_ns`.
    #[must_use]
    #[inline(always)]
    pub const fn accepts(&self, now_ns: u64) -> bool {
        self.closed_until_ns <= now_ns
    }

    /// Whether it takes connections, and has no more than its share.
    #[inline(always)]
    const fn has_room(&self) -> bool {
        self.closed_until_ns == 0 && (self.share == 0 || self.open < self.share)
    }
}

/// Most other workers that are looked at for one connection: the next ones in the ring, so that each worker has its own
/// set.
const LOOKS_MAX: u32 = 64;

/// The worker for a new connection: `own`, the one of its CPU, unless that takes none or has its share; then the one with
/// the fewest connections. Where no other takes any it stays `own`.
#[inline(always)]
pub fn choose(
    own: u32,
    workers: u32,
    now_ns: impl FnOnce() -> u64,
    status: impl Fn(u32) -> Option<WorkerStatus>,
) -> u32 {
    let Some(mine) = status(own) else { return own };
    if mine.has_room() {
        return own;
    }
    let now_ns = now_ns();
    let mut fewest = if mine.accepts(now_ns) { mine.open } else { u32::MAX };
    let mut chosen = own;
    for distance in 1..=LOOKS_MAX {
        if distance >= workers {
            break;
        }
        let worker = if own + distance < workers { own + distance } else { own + distance - workers };
        if let Some(status) = status(worker)
            && status.accepts(now_ns)
            && status.open < fewest
        {
            (fewest, chosen) = (status.open, worker);
        }
    }
    chosen
}

/// Whether no worker takes connections although not all of them drain. Then it is better to drop a SYN than to answer
/// it, because its client tries again. The listeners of workers that drain are closed, and the stack says so to
/// clients.
#[inline(always)]
pub fn is_pressed(workers: u32, now_ns: u64, closed_until_ns: impl Fn(u32) -> Option<u64>) -> bool {
    // If all values are [`ENDED`], so is their conjunction. This needs no branch, of which the verifier would walk both
    // sides for each worker.
    let mut bits = ENDED;
    for worker in 0..crate::maps::WORKERS_MAX {
        if worker >= workers {
            break;
        }
        let Some(until_ns) = closed_until_ns(worker) else { return false };
        if until_ns <= now_ns {
            return false;
        }
        bits &= until_ns;
    }
    bits != ENDED
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1000;
    const CLOSED: u64 = NOW + 1;

    fn chosen(own: u32, lines: &[(u32, u64)]) -> u32 {
        let status = |&(open, closed_until_ns)| WorkerStatus {
            open,
            share: 4,
            closed_until_ns,
            ..WorkerStatus::default()
        };
        let workers = u32::try_from(lines.len()).unwrap();
        choose(own, workers, || NOW, |worker| lines.get(worker as usize).map(status))
    }

    fn pressed(lines: &[u64]) -> bool {
        is_pressed(u32::try_from(lines.len()).unwrap(), NOW, |worker| lines.get(worker as usize).copied())
    }

    /// Goal: a connection stays with its CPU's worker while that has room, and goes to the least loaded otherwise.
    #[test]
    fn connections_leave_a_worker_without_room() {
        assert_eq!(chosen(1, &[(0, 0), (3, 0)]), 1, "below its share, whatever others have");
        assert_eq!(chosen(1, &[(3, 0), (4, 0), (2, 0)]), 2, "at its share");
        assert_eq!(chosen(1, &[(9, 0), (4, 0)]), 1, "others have more");
        assert_eq!(chosen(1, &[(9, 0), (0, CLOSED), (8, 0)]), 2, "closed");
        assert_eq!(chosen(1, &[(9, 0), (0, ENDED)]), 0, "drained");
        assert_eq!(
            chosen(1, &[(0, CLOSED), (9, NOW), (0, ENDED)]),
            1,
            "its time is over, and others are closed"
        );
        assert_eq!(chosen(0, &[(0, CLOSED), (0, ENDED)]), 0, "no worker takes it");
        assert_eq!(chosen(7, &[(0, 0)]), 7, "no line, no say");
    }

    /// Goal: SYNs are dropped while every worker that does not drain is closed, and only until their time is over.
    #[test]
    fn pressure_is_all_of_those_that_go_on() {
        assert!(pressed(&[CLOSED]) && pressed(&[CLOSED, CLOSED]) && pressed(&[ENDED, CLOSED]));
        assert!(!pressed(&[CLOSED, 0]) && !pressed(&[NOW]) && !pressed(&[0]));
        assert!(!pressed(&[ENDED, ENDED]), "the stack answers for listeners that are closed");
        assert!(!pressed(&[]));
    }
}
