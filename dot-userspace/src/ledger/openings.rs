//! The fate of SYNs: connections that were accepted, that wait for a worker, that the kernel dropped, and the rest.
//!
//! Before: the kernel half counted packets, listeners have queues, workers accepted. After: one more equation, as far
//! as the kernel reports its queues.
//! Holds: the verdicts that let a SYN pass. Never: is exact: a SYN that is sent again counts twice.

use std::fmt;

use super::{
    Counter,
    snapshot::{KernelQueues, Snapshot, write_rows},
};

/// Verdicts with which a SYN reaches the stack, or is answered for it. Some of them count datagrams to port 53 too: `own`,
/// `allowed` and `banned`.
const OF_SYNS: [(&str, &str); 12] = [
    ("pass", "syn"),
    ("pass", "proven"),
    ("pass", "unproven"),
    ("pass", "own"),
    ("pass", "allowed"),
    ("would_drop", "dot_syn_rate"),
    ("would_drop", "do53_syn_rate"),
    ("would_drop", "cost"),
    ("would_drop", "wide_cost"),
    ("would_drop", "banned"),
    ("would_drop", "pressure"),
    ("answer", "syn_cookie"),
];

impl Snapshot {
    /// SYNs that the kernel half let pass or answered.
    #[must_use]
    pub fn syns(&self) -> u64 {
        let is_of_syn = |verdict: &str, reason: &str| OF_SYNS.contains(&(verdict, reason));
        let rows = self.packets.iter().filter(|row| is_of_syn(&row.verdict, &row.reason));
        rows.map(|row| row.count).fold(0, u64::wrapping_add)
    }

    /// SYNs − (accepted + waiting + dropped by listeners): TCP handshakes in progress or given up, and SYNs that were
    /// sent again. Below zero: connections came on a path that the kernel half does not see. `None`: it saw no SYN,
    /// or the kernel does not report its queues.
    #[must_use]
    pub fn unfinished(&self) -> Option<i64> {
        let (syns, queues) = (self.syns(), self.queues?);
        let known = [self.count(Counter::Accepted), queues.waiting, queues.dropped];
        (syns > 0).then(|| known.iter().fold(syns, |rest, part| rest.wrapping_sub(*part)).cast_signed())
    }

    /// Writes these numbers, one line each.
    pub(super) fn write_openings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(KernelQueues { waiting, dropped }) = self.queues else { return Ok(()) };
        writeln!(f, "tcp handshakes")?;
        let known = [("syns", self.syns()), ("waiting", waiting), ("dropped", dropped)];
        let known = known.map(|(label, count)| (label.to_owned(), i128::from(count)));
        let rest = self.unfinished().map(|rest| ("unfinished".to_owned(), i128::from(rest)));
        write_rows(f, known.into_iter().chain(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{ControlCounters, PacketCount, WorkerCounters};

    /// Goal: the rest of the SYNs is the number without any other count; nothing is reported without the kernel half
    /// or the kernel's queues. Method: a snapshot made by hand. Covers: C-702
    #[test]
    fn the_rest_of_syns_is_unfinished() {
        let worker = WorkerCounters::default();
        worker.add(Counter::Accepted, 10);
        let packet = |verdict: &str, reason: &str, count| PacketCount {
            verdict: verdict.into(),
            reason: reason.into(),
            count,
        };
        let packets = vec![
            packet("pass", "syn", 14),
            packet("answer", "syn_cookie", 2),
            packet("drop", "dot_syn_rate", 100),
            packet("pass", "stream", 100),
        ];
        let snapshot = Snapshot::collect(packets, &[worker], ControlCounters::default());
        assert_eq!((snapshot.syns(), snapshot.unfinished()), (16, None));
        let queues = Some(KernelQueues { waiting: 3, dropped: 2 });
        let known = Snapshot { queues, ..snapshot };
        assert_eq!(known.unfinished(), Some(1));
        let text = known.to_string();
        for row in ["tcp handshakes\n", "  syns ", "  waiting ", "  dropped ", "  unfinished "] {
            assert!(text.contains(row), "{row}: {text}");
        }
        let without = Snapshot { packets: Vec::new(), ..known };
        assert_eq!(without.unfinished(), None, "there is no kernel half");
    }
}
