//! The value of every counter at one moment: packets of the kernel half, the sum of the workers, the control thread.
//!
//! Before: XDP and the workers counted, each in its own memory. After: `control` serves it as JSON and OpenMetrics,
//! `cli` prints it.
//! Holds: the equations that every count must satisfy ([`Snapshot::difference`]).
//! Never: stops a writer: counters of a running engine are read one after the other, so a difference may be a few units
//! in a busy moment; at rest it is zero.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{Counter, Latency, WorkerCounters, latency::show_us};

/// How often one verdict of the kernel half was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketCount {
    /// "pass", "drop", "would_drop", or "answer".
    pub verdict: String,
    /// Its reason, in snake case.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// Every counter at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Verdicts of the kernel half, also those that never happened.
    pub packets: Vec<PacketCount>,
    /// The sum of all workers: family, then label, then count.
    pub engine: BTreeMap<String, BTreeMap<String, u64>>,
    /// The counts of the control thread.
    pub control: ControlCounters,
    /// The queries and answers of each backend, by its name.
    #[serde(default)]
    pub backends: BTreeMap<String, BTreeMap<String, u64>>,
    /// How long stages, queries and backends took.
    #[serde(default)]
    pub latency: Vec<Latency>,
    /// What the kernel holds before an accept; absent where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<KernelQueues>,
}

/// What the kernel holds and dropped between SYNs and accepts, over all listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelQueues {
    /// Connections that wait for their accept.
    pub waiting: u64,
    /// SYNs and finished TCP handshakes that listeners dropped since they were made, because a queue was full, memory short, or no route led back.
    pub dropped: u64,
}

/// The counters of the control thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlCounters {
    /// Reloads that took effect.
    pub reloads_ok: u64,
    /// Reloads that changed nothing because the new file or certificate was wrong.
    pub reloads_failed: u64,
    /// Log lines dropped because standard error did not keep up.
    pub log_lines_lost: u64,
    /// Batches of clients' costs for which the control thread had no room.
    pub charges_lost: u64,
    /// Refusals and other events for operators for which there was no room.
    #[serde(default)]
    pub events_lost: u64,
    /// Messages of DNS that a dnstap reader got.
    #[serde(default)]
    pub dnstap_written: u64,
    /// Messages of DNS for it that found no room, or were on their way when its connection ended.
    #[serde(default)]
    pub dnstap_lost: u64,
    /// Spans that a collector took.
    #[serde(default)]
    pub otlp_written: u64,
    /// Spans for it that found no room, or that it did not take.
    #[serde(default)]
    pub otlp_lost: u64,
}

/// The received minus the accounted items; every field is zero when nothing is in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Accepted + adopted − (refused + failed handshakes + session ends + open).
    pub connections: i64,
    /// Received + the cache's own + asked again for a policy's alias − (forwarded + responded + cached + joined + dropped as no query).
    pub queries: i64,
    /// Forwarded + responded + cached + joined − (responses written or whose client was gone + outstanding at
    /// backends + waiting for an equal query + outcomes of the cache's own queries + those that were replaced by a
    /// query for an alias).
    pub responses: i64,
}

impl Difference {
    /// Whether every equation holds.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl Snapshot {
    /// Adds the workers up and puts the kernel's and the control thread's counts beside them.
    #[must_use]
    pub fn collect(packets: Vec<PacketCount>, workers: &[WorkerCounters], control: ControlCounters) -> Self {
        let mut engine = BTreeMap::<String, BTreeMap<String, u64>>::new();
        for &counter in Counter::ALL {
            let total = workers.iter().fold(0u64, |sum, worker| sum.wrapping_add(worker.get(counter)));
            engine.entry(counter.family().into()).or_default().insert(counter.label().into(), total);
        }
        Self { packets, engine, control, ..Self::default() }
    }

    /// One counter over all workers.
    #[must_use]
    pub fn count(&self, counter: Counter) -> u64 {
        self.engine.get(counter.family()).and_then(|family| family.get(counter.label())).copied().unwrap_or(0)
    }

    /// The sum of all labels of a family.
    #[must_use]
    pub fn family_total(&self, family: &str) -> u64 {
        self.family(family).map(|(_, count)| count).fold(0, u64::wrapping_add)
    }

    /// The sum of a family's labels that start with `prefix`.
    #[must_use]
    pub fn prefix_total(&self, family: &str, prefix: &str) -> u64 {
        self.family(family)
            .filter(|(label, _)| label.starts_with(prefix))
            .map(|(_, count)| count)
            .fold(0, u64::wrapping_add)
    }

    /// Packets with this verdict, over every reason.
    #[must_use]
    pub fn packets_total(&self, verdict: &str) -> u64 {
        self.packets
            .iter()
            .filter(|row| row.verdict == verdict)
            .map(|row| row.count)
            .fold(0, u64::wrapping_add)
    }

    /// The labels of a family with their counts; empty for a family that does not exist.
    pub fn family(&self, family: &str) -> impl Iterator<Item = (&str, u64)> {
        self.engine.get(family).into_iter().flatten().map(|(label, count)| (label.as_str(), *count))
    }

    /// Every family, in the order in which a query meets them; families of another version come last.
    fn families(&self) -> Vec<&str> {
        let mut families: Vec<&str> = Vec::new();
        let known = Counter::ALL.iter().map(|counter| counter.family());
        for family in known.chain(self.engine.keys().map(String::as_str)) {
            if self.engine.contains_key(family) && !families.contains(&family) {
                families.push(family);
            }
        }
        families
    }

    /// Checks the ledger's equations.
    #[must_use]
    pub fn difference(&self) -> Difference {
        let connections = [
            self.prefix_total("connections", "refused_"),
            self.prefix_total("handshakes", "failed_"),
            self.family_total("session_ends"),
            self.count(Counter::Open),
        ];
        let came = self.count(Counter::Accepted).wrapping_add(self.count(Counter::Adopted));
        let queries = [
            self.count(Counter::Forwarded),
            self.count(Counter::Responded),
            self.count(Counter::Cached),
            self.count(Counter::Joined),
            self.prefix_total("queries", "dropped_"),
        ];
        let again = self.count(Counter::PolicyAskedAgain);
        let asked = [self.count(Counter::Received), self.count(Counter::CacheRefresh), again];
        let asked = asked.into_iter().fold(0, u64::wrapping_add);
        let to_answer = [Counter::Forwarded, Counter::Responded, Counter::Cached, Counter::Joined]
            .map(|counter| self.count(counter));
        let to_answer = to_answer.into_iter().fold(0, u64::wrapping_add);
        let responses = [
            self.family_total("responses"),
            self.count(Counter::BackendOutstanding),
            self.count(Counter::CacheWaiting),
            self.count(Counter::CacheRefreshed),
            again,
        ];
        Difference {
            connections: less(came, &connections),
            queries: less(asked, &queries),
            responses: less(to_answer, &responses),
        }
    }
}

/// The form for humans: one line for each counter, numbers aligned, counters at zero left out.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel packets")?;
        let seen = self.packets.iter().filter(|row| row.count != 0);
        write_rows(f, seen.map(|row| (format!("{} {}", row.verdict, row.reason), i128::from(row.count))))?;
        self.write_openings(f)?;
        for family in self.families() {
            writeln!(f, "{}", family.replace('_', " "))?;
            let seen = self.family(family).filter(|(_, count)| *count != 0);
            write_rows(f, seen.map(|(label, count)| (label.to_owned(), i128::from(count))))?;
        }
        for (name, counts) in &self.backends {
            writeln!(f, "backend {name}")?;
            let seen = counts.iter().filter(|(_, count)| **count != 0);
            write_rows(f, seen.map(|(label, count)| (label.clone(), i128::from(*count))))?;
        }
        self.write_latency(f)?;
        writeln!(f, "control")?;
        let control = self.control;
        let rows = [
            ("reloads_ok", control.reloads_ok),
            ("reloads_failed", control.reloads_failed),
            ("log_lines_lost", control.log_lines_lost),
            ("charges_lost", control.charges_lost),
            ("events_lost", control.events_lost),
            ("dnstap_written", control.dnstap_written),
            ("dnstap_lost", control.dnstap_lost),
            ("otlp_written", control.otlp_written),
            ("otlp_lost", control.otlp_lost),
        ];
        write_rows(f, rows.map(|(label, count)| (label.to_owned(), i128::from(count))))?;
        writeln!(f, "ledger difference")?;
        let Difference { connections, queries, responses } = self.difference();
        let rows = [("connections", connections), ("queries", queries), ("responses", responses)];
        write_rows(f, rows.map(|(label, count)| (label.to_owned(), i128::from(count))))
    }
}

impl Snapshot {
    /// The quantiles of the durations, one line each.
    fn write_latency(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["p50", "p90", "p99", "p999"];
        write!(f, "{:<width$} {:>COUNT_WIDTH$}", "latency", "count", width = LABEL_WIDTH + 2)?;
        heads.iter().try_for_each(|head| write!(f, " {head:>TIME_WIDTH$}"))?;
        writeln!(f)?;
        for row in &self.latency {
            write!(f, "  {:<LABEL_WIDTH$} {:>COUNT_WIDTH$}", row.name(), row.count)?;
            let times = [row.p50_us, row.p90_us, row.p99_us, row.p999_us];
            times.iter().try_for_each(|us| write!(f, " {:>TIME_WIDTH$}", show_us(*us)))?;
            writeln!(f)?;
        }
        if self.latency.is_empty() { writeln!(f, "  none") } else { Ok(()) }
    }
}

/// Writes rows under a heading, or "none" if there are no rows.
pub(super) fn write_rows(
    f: &mut fmt::Formatter<'_>,
    rows: impl IntoIterator<Item = (String, i128)>,
) -> fmt::Result {
    let mut is_empty = true;
    for (label, count) in rows {
        is_empty = false;
        writeln!(f, "  {label:<LABEL_WIDTH$} {count:>COUNT_WIDTH$}")?;
    }
    if is_empty { writeln!(f, "  none") } else { Ok(()) }
}

/// `total` − Σ `parts`, in wrapping arithmetic: the counters themselves wrap.
fn less(total: u64, parts: &[u64]) -> i64 {
    parts.iter().fold(total, |rest, part| rest.wrapping_sub(*part)).cast_signed()
}

/// Wider than the longest label, so that the numbers of all families are in one column.
const LABEL_WIDTH: usize = 36;
/// Digits of a busy year.
const COUNT_WIDTH: usize = 16;
/// Three digits, a full stop, a unit.
const TIME_WIDTH: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(verdict: &str, reason: &str, count: u64) -> PacketCount {
        PacketCount { verdict: verdict.into(), reason: reason.into(), count }
    }

    /// Goal: two workers add up, a gauge that one raised and another lowered included. Method: the gauge goes up on one
    /// line and down on the other, which is below zero on that line alone.
    #[test]
    fn adds_workers_up() {
        let workers = [WorkerCounters::default(), WorkerCounters::default()];
        workers[0].add(Counter::Accepted, 3);
        workers[1].add(Counter::Accepted, 4);
        workers[0].add(Counter::Open, 5);
        workers[1].subtract(Counter::Open, 2);
        let snapshot = Snapshot::collect(vec![], &workers, ControlCounters::default());
        assert_eq!(snapshot.count(Counter::Accepted), 7);
        assert_eq!(snapshot.count(Counter::Open), 3);
        let labels: usize = snapshot.engine.values().map(BTreeMap::len).sum();
        assert_eq!(labels, Counter::ALL.len(), "two counters share one family and label");
    }

    /// Goal: the differences are zero when each received item has one end, and otherwise name the equation that fails.
    /// Method: a small balanced history; then one more of each first term.
    #[test]
    fn difference_is_zero_only_when_balanced() {
        let worker = WorkerCounters::default();
        for (counter, count) in [
            (Counter::Accepted, 10),
            (Counter::RefusedPrefix, 2),
            (Counter::HandshakeNotTls, 1),
            (Counter::HandshakeFull13, 7),
            (Counter::EndClient, 3),
            (Counter::EndIdle, 1),
            (Counter::Open, 3),
            (Counter::Received, 20),
            (Counter::Forwarded, 15),
            (Counter::Responded, 3),
            (Counter::DroppedResponse, 1),
            (Counter::DroppedShort, 1),
            (Counter::RcodeNoError, 14),
            (Counter::RcodeServFail, 1),
            (Counter::DroppedClientGone, 1),
            (Counter::BackendOutstanding, 2),
            // A miss that is at a backend, an equal query that waits for it, a hit, and a refresh that is done.
            (Counter::Received, 3),
            (Counter::Forwarded, 2),
            (Counter::BackendOutstanding, 1),
            (Counter::Joined, 1),
            (Counter::CacheWaiting, 1),
            (Counter::Cached, 1),
            (Counter::RcodeNoError, 1),
            (Counter::CacheRefresh, 1),
            (Counter::CacheRefreshed, 1),
        ] {
            worker.add(counter, count);
        }
        let of = |worker: &WorkerCounters| {
            Snapshot::collect(vec![], std::slice::from_ref(worker), ControlCounters::default()).difference()
        };
        assert!(of(&worker).is_zero(), "{:?}", of(&worker));
        worker.add(Counter::Accepted, 1);
        assert_eq!(of(&worker), Difference { connections: 1, queries: 0, responses: 0 });
        worker.add(Counter::Received, 2);
        assert_eq!(of(&worker), Difference { connections: 1, queries: 2, responses: 0 });
        worker.add(Counter::RcodeOther, 3);
        assert_eq!(of(&worker), Difference { connections: 1, queries: 2, responses: -3 });
    }

    /// Goal: a snapshot is unchanged after the control socket. Method: JSON there and back.
    #[test]
    fn survives_json() {
        let worker = WorkerCounters::default();
        worker.add(Counter::Received, u64::MAX);
        let control = ControlCounters {
            reloads_ok: 1,
            charges_lost: 4,
            dnstap_lost: 7,
            otlp_written: 8,
            otlp_lost: 9,
            ..ControlCounters::default()
        };
        let snapshot = Snapshot::collect(vec![packet("drop", "cleartext_853", 9)], &[worker], control);
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
    }

    /// Goal: the form for humans shows what happened, and no counter at zero. Method: exact lines, one zero left out.
    #[test]
    fn displays_what_counted() {
        let worker = WorkerCounters::default();
        worker.add(Counter::Received, 42);
        let packets = vec![packet("drop", "cleartext_853", 9), packet("drop", "udp_853", 0)];
        let text = Snapshot::collect(packets, &[worker], ControlCounters::default()).to_string();
        let row = |label: &str, count: i64| format!("  {label:<36} {count:>16}\n");
        assert!(
            text.starts_with(&format!(
                "kernel packets\n{}connections\n  none\n",
                row("drop cleartext_853", 9)
            ))
        );
        assert!(text.contains(&format!("queries\n{}responses\n  none\n", row("received", 42))), "{text}");
        assert!(text.contains(&row("queries", 42)), "the unanswered queries are a difference: {text}");
        assert!(!text.contains("udp_853"));
    }

    /// Goal: totals by verdict leave other verdicts alone.
    #[test]
    fn totals_packets_by_verdict() {
        let packets = vec![packet("drop", "a", 2), packet("drop", "b", 3), packet("pass", "a", 7)];
        let snapshot = Snapshot { packets, ..Snapshot::default() };
        assert_eq!((snapshot.packets_total("drop"), snapshot.packets_total("pass")), (5, 7));
        assert_eq!(snapshot.packets_total("would_drop"), 0);
    }
}
