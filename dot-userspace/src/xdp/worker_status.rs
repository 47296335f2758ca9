//! The workers' entries, in which each reports its state to the kernel half without a system call.
//!
//! Before: the loader knows how many workers there will be. After: each worker stores its entry; the programs of the
//! kernel half read it at the next SYN, and `status` on request.
//! Holds: one table in ordinary memory, which exists without BPF too, and the mapped table of each loaded object: aya
//! gives each load its own maps, and sharing one by pin would need a BPF file system.
//! Beside it, the times at which connections began (`syn_times`).
//! Never: has two writers for an entry; reads a mapped table of entries back.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use aya::{Ebpf, maps::Map};
use dot_common::{
    maps::WORKERS,
    worker_status::{ENDED, WorkerStatus},
};

use super::{
    XdpError,
    attach::{absent, take},
    bans::now_ns,
    mapped::{Mapped, Words},
    report::WorkerReport,
    syn_times::SynTimes,
};

/// A [`WorkerStatus`] whose words are stored one by one.
#[derive(Default)]
#[repr(C, align(64))]
struct Cells {
    open: AtomicU32,
    share: AtomicU32,
    backlog: AtomicU32,
    reserved: AtomicU32,
    closed_until_ns: AtomicU64,
}

const _: () = assert!(size_of::<Cells>() == size_of::<WorkerStatus>());

// SAFETY: atomic words, and the rest of a cache line that nothing reads.
unsafe impl Words for Cells {}

/// All tables, while the objects are loaded.
pub(super) struct Tables {
    ours: Box<[Cells]>,
    mapped: Vec<Mapped<Cells>>,
    /// When connections began, where the kernel half is loaded.
    syn_times: Option<SynTimes>,
}

/// The same, permanently mapped.
#[derive(Clone)]
pub(super) struct WorkerStatuses(Arc<Tables>);

/// One worker's entry, for that worker alone.
pub struct StatusWriter {
    statuses: WorkerStatuses,
    worker: usize,
}

impl Tables {
    /// Tables for this many workers.
    pub(super) fn new(workers: usize) -> Self {
        Self { ours: (0..workers).map(|_| Cells::default()).collect(), mapped: Vec::new(), syn_times: None }
    }

    /// The number of workers; a program needs at least one.
    pub(super) fn workers(&self) -> u32 {
        u32::try_from(self.ours.len()).unwrap_or(u32::MAX).clamp(1, dot_common::maps::WORKERS_MAX)
    }

    /// Takes the table out of an object that was loaded for [`Tables::workers`].
    pub(super) fn adopt(&mut self, object: &mut Ebpf) -> Result<(), XdpError> {
        let Map::Array(map) = take(object, WORKERS)? else { return Err(absent(WORKERS)) };
        let mapped = Mapped::map(map.fd(), self.workers() as usize);
        let reason = |error: io::Error| XdpError::Load { what: WORKERS.into(), reason: error.to_string() };
        self.mapped.push(mapped.map_err(reason)?);
        Ok(())
    }

    /// Takes the times at which connections began out of the object that judges packets.
    pub(super) fn adopt_syn_times(&mut self, object: &mut Ebpf) -> Result<(), XdpError> {
        self.syn_times = Some(SynTimes::take(object)?);
        Ok(())
    }

    /// Workers write from here on.
    pub(super) fn seal(self) -> WorkerStatuses {
        WorkerStatuses(Arc::new(self))
    }
}

impl WorkerStatuses {
    /// A worker's entry. It must be given away once for each number.
    pub(super) fn status_writer(&self, worker: usize) -> StatusWriter {
        StatusWriter { statuses: self.clone(), worker }
    }

    /// The entries of all workers.
    pub(super) fn rows(&self) -> Vec<WorkerReport> {
        let now_ns = now_ns();
        let row = |cells: &Cells| WorkerReport {
            open: cells.open.load(Relaxed),
            share: cells.share.load(Relaxed),
            backlog: cells.backlog.load(Relaxed),
            accepting: cells.closed_until_ns.load(Relaxed) <= now_ns,
        };
        self.0.ours.iter().map(row).collect()
    }
}

impl StatusWriter {
    /// Stores how many connections this worker has, its share of the cap, and how many handshakes wait. The worker
    /// takes connections again if the time for which it was closed is over, or if it `has_room`.
    pub fn publish(&self, open: u32, connections_max: u32, backlog: u32, has_room: bool) {
        let workers = self.statuses.0.workers();
        for cells in self.cells() {
            cells.open.store(open, Relaxed);
            cells.share.store(connections_max.div_ceil(workers), Relaxed);
            cells.backlog.store(backlog, Relaxed);
        }
        let closed_until_ns = self.cells().next().map_or(0, |cells| cells.closed_until_ns.load(Relaxed));
        if closed_until_ns != 0 && closed_until_ns != ENDED && (has_room || closed_until_ns <= now_ns()) {
            self.close_until(0);
        }
    }

    /// The time since the SYN of a connection that was just accepted; asked for once. `None`: the kernel half did not see it.
    #[must_use]
    pub fn since_syn(&self, client: SocketAddr, server: SocketAddr) -> Option<Duration> {
        self.statuses.0.syn_times.as_ref()?.since(client, server)
    }

    /// Reports that the worker takes no connection for a while.
    pub fn close_for(&self, length: Duration) {
        let length_ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        self.close_until(now_ns().saturating_add(length_ns).min(ENDED - 1));
    }

    /// Reports that the worker takes no connection any more.
    pub fn end(&self) {
        self.close_until(ENDED);
    }

    fn close_until(&self, closed_until_ns: u64) {
        self.cells().for_each(|cells| cells.closed_until_ns.store(closed_until_ns, Relaxed));
    }

    /// This entry in every table, the one in ordinary memory first.
    fn cells(&self) -> impl Iterator<Item = &Cells> {
        let Tables { ours, mapped, .. } = &*self.statuses.0;
        [&**ours]
            .into_iter()
            .chain(mapped.iter().map(Mapped::cells))
            .filter_map(|table| table.get(self.worker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an entry shows what its worker stored last, opens when there is room or its time is over, and never after
    /// its worker has ended. Method: without BPF, where `status` reads the same table.
    #[test]
    fn lines_open_and_close() {
        let statuses = Tables::new(2).seal();
        let (writer, other) = (statuses.status_writer(0), statuses.status_writer(1));
        let accepting = || statuses.rows().iter().map(|row| row.accepting).collect::<Vec<_>>();
        writer.publish(3, 9, 7, true);
        let row = WorkerReport { open: 3, share: 5, backlog: 7, accepting: true };
        assert_eq!(statuses.rows(), [row, WorkerReport { accepting: true, ..WorkerReport::default() }]);
        writer.close_for(Duration::from_secs(3600));
        assert_eq!(accepting(), [false, true]);
        writer.publish(3, 9, 7, false);
        assert_eq!(accepting(), [false, true], "still no room");
        writer.publish(2, 9, 7, true);
        assert_eq!(accepting(), [true, true]);
        writer.close_for(Duration::ZERO);
        assert_eq!(accepting(), [true, true], "its time is over");
        other.end();
        other.publish(0, 9, 0, true);
        assert_eq!(accepting(), [true, false], "an end is for good");
    }
}
