//! Messages for a dnstap reader and spans for a collector, as OpenMetrics.
//!
//! Before: `registry` has a status and a snapshot. After: `dotd_dnstap_…`, `dotd_otlp_…`.
//! Never: names a reader or a collector.

use prometheus_client::registry::Registry;

use super::{Snapshot, Status, counter, gauge};

pub(super) fn register(registry: &mut Registry, status: &Status, snapshot: &Snapshot) {
    let control = snapshot.control;
    counter(registry, "dnstap_written", "Messages that a dnstap reader received", control.dnstap_written);
    let is_connected = status.dnstap.as_ref().is_some_and(|reader| reader.is_connected);
    gauge(registry, "dnstap_connected", "1 while a dnstap reader is connected", None, is_connected.into());
    let help = "Messages for a dnstap reader that found no room, or whose connection ended";
    counter(registry, "dnstap_lost", help, control.dnstap_lost);
    counter(registry, "otlp_spans_written", "Spans that a collector took", control.otlp_written);
    let help = "Spans for a collector that found no room, or that it did not take";
    counter(registry, "otlp_spans_lost", help, control.otlp_lost);
}
