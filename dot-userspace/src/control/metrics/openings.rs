//! Between SYN and accept, as OpenMetrics: what waits, what listeners dropped, and the rest of the SYNs.
//!
//! Before: `registry` has a snapshot. After: `dotd_connections_waiting`, `dotd_listener_drops`, `dotd_syns`.
//! Never: says a number that the kernel did not say.

use prometheus_client::registry::Registry;

use super::{Snapshot, counter, gauge};

pub(super) fn register(registry: &mut Registry, snapshot: &Snapshot) {
    let Some(queues) = snapshot.queues else { return };
    let waiting = i64::try_from(queues.waiting).unwrap_or(i64::MAX);
    gauge(registry, "connections_waiting", "Connections that wait for their accept", None, waiting);
    let help = "SYNs and finished TCP handshakes that listeners dropped: a queue was full, memory short, or no route led back";
    counter(registry, "listener_drops", help, queues.dropped);
    if let Some(rest) = snapshot.unfinished() {
        counter(registry, "xdp_syns", "SYNs that XDP let pass or answered", snapshot.syns());
        let help = "SYNs without an accept: under way, given up, or sent again; below 0: of ways that XDP does not see";
        gauge(registry, "xdp_syns_unfinished", help, None, rest);
    }
}
