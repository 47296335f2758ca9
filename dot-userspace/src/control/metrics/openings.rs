//! Connections between SYN and accept, as OpenMetrics: those that wait, those that listeners dropped, and the other SYNs.
//!
//! Before: `registry` has a snapshot. After: `dotd_connections_waiting`, `dotd_listener_drops`, `dotd_syns`.
//! Never: reports a number that the kernel did not report.

use prometheus_client::registry::Registry;

use super::{Snapshot, counter, gauge};

pub(super) fn register(registry: &mut Registry, snapshot: &Snapshot) {
    let Some(queues) = snapshot.queues else { return };
    let waiting = i64::try_from(queues.waiting).unwrap_or(i64::MAX);
    gauge(
        registry,
        "connections_waiting",
        "Connections that wait for a worker to accept them",
        None,
        waiting,
    );
    let help = "SYNs and completed TCP handshakes that listeners dropped: a queue was full, memory was short, or there was no route back";
    counter(registry, "listener_drops", help, queues.dropped);
    if let Some(rest) = snapshot.unfinished() {
        counter(registry, "xdp_syns", "SYNs that XDP let pass or answered", snapshot.syns());
        let help = "SYNs without an accepted connection: in progress, given up, or sent again; below 0: connections came on a path that XDP does not see";
        gauge(registry, "xdp_syns_unfinished", help, None, rest);
    }
}
