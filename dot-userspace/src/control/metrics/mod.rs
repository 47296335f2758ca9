//! A snapshot, a status and the histograms as OpenMetrics text, or in Prometheus's binary form, with labels in place of
//! separate names.
//!
//! Before: `router` asked the source. After: Prometheus parses it.
//! Holds: the names on which dashboards and alerts rely.
//! Never: puts a client address or a qname into a label; keeps a metric between scrapes.
//!
//! Source: OpenMetrics 1.0; Prometheus exposition formats for what is binary.

mod acme;
mod certificates;
mod copies;
mod exemplars;
mod histograms;
mod openings;
#[cfg(test)]
mod page;
mod policy;
mod upstream;
#[cfg(test)]
pub(super) use page::hold as hold_page;

pub use exemplars::Exemplar;

use std::{
    fmt,
    sync::atomic::{AtomicI64, AtomicU64},
    time::SystemTime,
};

use prometheus_client::{
    encoding::{prometheus_protobuf, text},
    metrics::{counter::Counter as PlainCounter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::{State, Status};
use crate::{
    backend::health::HealthState,
    ledger::{Counter, Measured, Snapshot, Traffic},
    xdp::{Paths, ProxyCounts, Report, WorkerReport},
};

/// Name and value pairs of one series.
type Labels = Vec<(&'static str, String)>;
/// One row of a family.
type Row<N> = (Labels, N);

/// A scrape's body and its type.
pub(super) struct Scrape {
    /// The header Content-Type.
    pub content_type: &'static str,
    /// Octets.
    pub body: Vec<u8>,
}

/// Writes everything in the form that the scraper's Accept header asks for: OpenMetrics text with its `# EOF`, or
/// Prometheus's binary form, the only one with native histograms.
pub(super) fn encode(
    accept: &str,
    status: &Status,
    snapshot: &Snapshot,
    (measured, exemplars): (Vec<Measured>, &[Exemplar]),
) -> Result<Scrape, fmt::Error> {
    let registry = registry(status, snapshot, measured);
    if accept.contains("application/vnd.google.protobuf")
        && accept.contains("io.prometheus.client.MetricFamily")
    {
        let body = prometheus_protobuf::encode_to_vec(&registry).map_err(|_| fmt::Error)?;
        return Ok(Scrape { content_type: PROTOBUF, body });
    }
    let mut body = String::new();
    text::encode(&mut body, &registry)?;
    Ok(Scrape { content_type: TEXT, body: exemplars::append(body, exemplars).into_bytes() })
}

fn registry(status: &Status, snapshot: &Snapshot, measured: Vec<Measured>) -> Registry {
    let mut registry = Registry::with_prefix("dotd");
    process(&mut registry, status);
    kernel(&mut registry, status, snapshot);
    connections(&mut registry, snapshot);
    openings::register(&mut registry, snapshot);
    queries(&mut registry, status, snapshot);
    owed(&mut registry, snapshot);
    backends(&mut registry, status, snapshot);
    upstream::register(&mut registry, status);
    acme::register(&mut registry, status);
    cache(&mut registry, snapshot);
    each_of("fairness", &mut registry, snapshot);
    each_of("access", &mut registry, snapshot);
    policy::register(&mut registry, status, snapshot);
    accounts(&mut registry, status, snapshot);
    histograms::register(&mut registry, measured);
    registry
}

/// The process and its certificates.
fn process(registry: &mut Registry, status: &Status) {
    registry.register(
        "build",
        "Version of the running dotd",
        Info::new(vec![("version", status.version.clone())]),
    );
    let uptime = i64::try_from(status.uptime_seconds).unwrap_or(i64::MAX);
    gauge(registry, "uptime", "Time since ready", Some(Unit::Seconds), uptime);
    let serving = i64::from(status.state == State::Serving);
    gauge(registry, "serving", "1 while dotd accepts new connections, 0 while it drains", None, serving);
    gauge(registry, "enabled", "0 while DNS over TLS is switched off", None, status.off.is_none().into());
    gauge(registry, "workers", "Worker threads", None, i64::try_from(status.workers).unwrap_or(i64::MAX));
    let now = SystemTime::now();
    let ends = status
        .certificates
        .iter()
        .map(|certificate| (vec![("name", certificate.name.clone())], certificate.expires_in_seconds(now)));
    let help = "Time until a certificate expires; negative after that";
    gauges_of(registry, "certificate_expiry", help, Some(Unit::Seconds), ends);
    certificates::register(registry, status);
}

/// The kernel half.
fn kernel(registry: &mut Registry, status: &Status, snapshot: &Snapshot) {
    let interfaces =
        status.xdp.interfaces.iter().map(|interface| {
            (vec![("interface", interface.name.clone()), ("mode", interface.mode.clone())], 1)
        });
    gauges(registry, "xdp_state", "How XDP is attached to each interface", interfaces);
    let Paths { xdp, tc, not_covered } = status.xdp.paths;
    let paths = [("xdp", xdp), ("tc", tc), ("none", not_covered)]
        .map(|(by, count)| (vec![("covered_by", by.to_owned())], i64::try_from(count).unwrap_or(i64::MAX)));
    let help =
        "Interfaces through which a listen address is reached, by the programs that judge packets there";
    gauges(registry, "xdp_paths", help, paths);
    let degraded = i64::from(status.xdp.degraded.is_some());
    gauge(registry, "xdp_degraded", "1 while XDP does less than the config demands", None, degraded);
    counter(registry, "xdp_repairs", "Times that a lost XDP attachment was repaired", status.xdp.repairs);
    let packets = snapshot
        .packets
        .iter()
        .map(|row| (vec![("verdict", row.verdict.clone()), ("reason", row.reason.clone())], row.count));
    counters(registry, "packets", "Packets judged by XDP", packets);
    let bans = &status.xdp.bans;
    gauge(registry, "bans", "Clients banned now", None, i64::try_from(bans.current).unwrap_or(i64::MAX));
    let made = bans.made.iter().map(|(cause, count)| (vec![("cause", cause.clone())], *count));
    counters(registry, "bans_made", "Bans made, by cause", made);
    let help = "Bans lifted early because the table was full";
    counter(registry, "bans_displaced", help, bans.displaced);
    let line = |value: fn(&WorkerReport) -> i64| {
        let rows = status.xdp.workers.iter().enumerate();
        rows.map(move |(worker, row)| (vec![("worker", worker.to_string())], value(row)))
    };
    let help = "Connections of each worker";
    gauges(registry, "worker_connections_open", help, line(|row| row.open.into()));
    let help = "Handshakes that wait for a turn at each worker";
    gauges(registry, "worker_backlog", help, line(|row| row.backlog.into()));
    let help = "1 while a worker accepts connections";
    gauges(registry, "worker_accepting", help, line(|row| row.accepting.into()));
    let costs = &status.xdp.costs;
    let spent = i64::try_from(costs.spent).unwrap_or(i64::MAX);
    let help = "Clients that are refused now because of the cost of their handshakes";
    gauge(registry, "clients_spent", help, None, spent);
    counter(registry, "budgets_spent", "Times a client spent its handshake budget", costs.spent_total);
    let fate = |(fate, count): (&str, u64)| (vec![("fate", fate.to_owned())], count);
    let Report { notices, proxied, .. } = &status.xdp;
    let fates = [("sent", notices.sent), ("held_back", notices.held_back), ("lost", notices.lost)];
    counters(registry, "notices", "Notices to clients that XDP refuses, by their fate", fates.map(fate));
    let help =
        "SYN that the proxy at tc ingress answered, connections that came of them, and ACKs that it refused";
    let ProxyCounts { answered, completed, refused } = *proxied;
    let fates = [("answered", answered), ("completed", completed), ("refused", refused)];
    counters(registry, "syn_proxy", help, fates.map(fate));
}

/// Connections and handshakes. Accepted + adopted = open + every end.
fn connections(registry: &mut Registry, snapshot: &Snapshot) {
    let open = i64::try_from(snapshot.count(Counter::Open)).unwrap_or(i64::MAX);
    // Not `connections`: OpenMetrics gives the counter below that family name.
    gauge(registry, "connections_open", "Open connections", None, open);
    let lingering = i64::try_from(snapshot.count(Counter::Lingering)).unwrap_or(i64::MAX);
    let help = "Sessions that have ended and whose clients have not read every response";
    gauge(registry, "sessions_lingering", help, None, lingering);
    let refused = of("connections").filter(|counter| !counter.labels().is_empty());
    let failed = of("handshakes").filter(|counter| !counter.labels().contains(&("result", "ok")));
    let failed = failed.map(|counter| snapshot.count(*counter)).fold(0, u64::wrapping_add);
    let ends = refused.chain(of("session_ends")).map(|counter| (counter.label(), snapshot.count(*counter)));
    let rows = ends.chain([("handshake_failed", failed)]);
    let rows = rows.map(|(end, count)| (vec![("end", end.to_owned())], count));
    counters(registry, "connections", "Connections that ended, by how", rows);
    let accepted = snapshot.count(Counter::Accepted);
    counter(registry, "connections_accepted", "TCP connections accepted", accepted);
    let help = "Sessions that this engine took over from the previous one at an upgrade";
    counter(registry, "connections_adopted", help, snapshot.count(Counter::Adopted));
    let help = "Calls of accept() that failed because a resource was exhausted";
    counter(registry, "accept_failures", help, snapshot.count(Counter::AcceptFailed));
    let labelled = |family| {
        of(family).map(|counter| {
            let labels = counter.labels().iter().map(|(name, value)| (*name, (*value).to_owned()));
            (labels.collect(), snapshot.count(*counter))
        })
    };
    let help = "TLS handshakes by kind, version and result";
    counters(registry, "handshakes", help, labelled("handshakes"));
    let help = Counter::Rested.help();
    counter(registry, "sessions_rested", help, snapshot.count(Counter::Rested));
    let help = "TLS records that sessions read, by version";
    counters(registry, "tls_records_read", help, labelled("tls_records"));
}

/// Queries in, responses out.
fn queries(registry: &mut Registry, status: &Status, snapshot: &Snapshot) {
    let count = |counter| snapshot.count(counter);
    // The engine counts all transports together; they are distinguished when a query is received.
    let is_dot_alone = status.listeners.iter().all(|listener| listener.transport == "dot");
    let transport = || ("transport", if is_dot_alone { "dot" } else { "any" }.to_owned());
    let received = [(vec![transport()], count(Counter::Received))];
    counters(registry, "queries_received", "DNS messages received from clients", received);
    let dispositions = of("queries").filter(|counter| **counter != Counter::Received);
    let rows = dispositions
        .map(|counter| (vec![transport(), ("disposition", counter.label().to_owned())], count(*counter)));
    counters(registry, "queries", "DNS messages from clients, by their fate", rows);
    let received = [("udp", Counter::ReceivedDatagram), ("tcp", Counter::ReceivedPlain)];
    let rows = received.map(|(way, counter)| (vec![("transport", way.to_owned())], count(counter)));
    counters(registry, "do53_received", "Received DNS messages that came in clear", rows);
    for (name, help, of) in [
        ("do53_connections", "Accepted TCP connections in clear", Counter::AcceptedPlain),
        ("do53_truncated", "Responses by UDP with TC=1", Counter::TruncatedDatagram),
        ("do53_send_failed", "Responses by UDP that the kernel refused to send", Counter::DatagramSendFailed),
    ] {
        counter(registry, name, help, count(of));
    }
    let written = of("responses")
        .filter(|counter| !matches!(counter, Counter::DroppedClientGone | Counter::AnswerDropped));
    let rows = written.map(|rcode| (vec![("rcode", rcode.label().to_owned())], count(*rcode)));
    counters(registry, "responses", "Responses written, by rcode", rows);
    let gone = snapshot.count(Counter::DroppedClientGone);
    counter(registry, "responses_unsent", "Responses whose client had left", gone);
    let dropped = snapshot.count(Counter::AnswerDropped);
    counter(registry, "responses_dropped", "Responses that a policy zone dropped", dropped);
}

/// The octets that clients have not taken.
fn owed(registry: &mut Registry, snapshot: &Snapshot) {
    let octets = i64::try_from(snapshot.count(Counter::OwedOctets)).unwrap_or(i64::MAX);
    gauge(registry, "owed_octets", "Octets of responses that clients have not read", None, octets);
    let help = "Answers replaced by SERVFAIL because their client reads too slowly";
    counter(registry, "owed_not_kept", help, snapshot.count(Counter::NotKept));
    let lost = snapshot.count(Counter::LostOctets);
    let help = "Octets written for clients that did not arrive because the connection ended first";
    counter(registry, "owed_lost_octets", help, lost);
}

/// The side of the backends.
fn backends(registry: &mut Registry, status: &Status, snapshot: &Snapshot) {
    let states = status.backends.iter().map(|backend| {
        let labels = vec![
            ("backend", backend.name.clone()),
            ("transport", backend.transport.clone()),
            ("state", backend.state.clone()),
        ];
        (labels, 1)
    });
    gauges(registry, "backend_state", "State of each backend", states);
    let up = status.backends.iter().map(|backend| {
        let is_up = i64::from(backend.state != HealthState::Down.label());
        (vec![("backend", backend.name.clone())], is_up)
    });
    gauges(registry, "backend_up", "0 while a backend fails its health checks", up);
    let drained = status
        .backends
        .iter()
        .map(|backend| (vec![("backend", backend.name.clone())], i64::from(backend.is_drained)));
    gauges(registry, "backend_drained", "1 while an operator drains a backend", drained);
    let of_each = |what: Traffic| {
        let named = snapshot.backends.iter();
        named.filter_map(move |(name, counts)| Some((name, *counts.get(what.label())?)))
    };
    let row = |(name, count): (&String, u64)| (vec![("backend", name.clone())], count);
    let help = "Queries sent to each backend, including those that another backend had before";
    counters(registry, "backend_queries", help, of_each(Traffic::Asked).map(row));
    let help = "Queries that went to another backend or failed because this one gave no answer";
    counters(registry, "backend_lost", help, of_each(Traffic::Lost).map(row));
    let answers = Traffic::ANSWERS.iter().flat_map(|rcode| {
        let labels = |name: &String| vec![("backend", name.clone()), ("rcode", rcode.label().to_owned())];
        of_each(*rcode).map(move |(name, count)| (labels(name), count))
    });
    counters(registry, "backend_responses", "Responses of each backend, by rcode", answers);
    each_of("backend", registry, snapshot);
    let outstanding = i64::try_from(snapshot.count(Counter::BackendOutstanding)).unwrap_or(i64::MAX);
    gauge(registry, "backend_outstanding", "Queries at the backends now", None, outstanding);
}

/// The caches of all workers together.
fn cache(registry: &mut Registry, snapshot: &Snapshot) {
    each_of("cache", registry, snapshot);
    for (gauge_name, help, size) in [
        ("cache_entries", "Responses in the caches now", Counter::CacheEntries),
        ("cache_octets", "Memory of the responses in the caches", Counter::CacheOctets),
        ("cache_waiting", "Queries that wait for the answer to an equal query", Counter::CacheWaiting),
    ] {
        let size = i64::try_from(snapshot.count(size)).unwrap_or(i64::MAX);
        gauge(registry, gauge_name, help, None, size);
    }
}

/// The control thread's counts and the ledger's own check.
fn accounts(registry: &mut Registry, status: &Status, snapshot: &Snapshot) {
    let control = snapshot.control;
    let reloads = [("ok", control.reloads_ok), ("failed", control.reloads_failed)];
    let rows = reloads.map(|(result, count)| (vec![("result", result.to_owned())], count));
    counters(registry, "reloads", "Reloads of config and certificates", rows);
    counter(registry, "log_lines_lost", "Log lines dropped", control.log_lines_lost);
    let help = "Batches of client costs that found no room in the queue";
    counter(registry, "charges_lost", help, control.charges_lost);
    let help = "Refusals and other events for operators that found no room in the queue";
    counter(registry, "events_lost", help, control.events_lost);
    copies::register(registry, status, snapshot);
    let difference = snapshot.difference();
    let rows = [
        ("connections", difference.connections),
        ("queries", difference.queries),
        ("responses", difference.responses),
    ];
    let rows = rows.map(|(equation, count)| (vec![("equation", equation.to_owned())], count));
    gauges(
        registry,
        "ledger_difference",
        "Messages and connections that came in, less those with a counted fate",
        rows,
    );
}

/// The workers' counters of a family.
fn of(family: &str) -> impl Iterator<Item = &'static Counter> {
    Counter::ALL.iter().filter(move |counter| counter.family() == family)
}

/// A metric for each counter of a family, with the counter's help text.
fn each_of(family: &str, registry: &mut Registry, snapshot: &Snapshot) {
    for one in of(family) {
        counter(registry, &format!("{family}_{}", one.label()), one.help(), snapshot.count(*one));
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str, count: u64) {
    let counter = PlainCounter::<u64, AtomicU64>::default();
    counter.inc_by(count);
    registry.register(name, help, counter);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>, value: i64) {
    let gauge = Gauge::<i64, AtomicI64>::default();
    gauge.set(value);
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, gauge),
        None => registry.register(name, help, gauge),
    }
}

fn counters(registry: &mut Registry, name: &str, help: &str, rows: impl IntoIterator<Item = Row<u64>>) {
    let family = Family::<Labels, PlainCounter<u64, AtomicU64>>::default();
    for (labels, count) in rows {
        family.get_or_create(&labels).inc_by(count);
    }
    registry.register(name, help, family);
}

fn gauges(registry: &mut Registry, name: &str, help: &str, rows: impl IntoIterator<Item = Row<i64>>) {
    gauges_of(registry, name, help, None, rows);
}

fn gauges_of(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    rows: impl IntoIterator<Item = Row<i64>>,
) {
    let family = Family::<Labels, Gauge<i64, AtomicI64>>::default();
    for (labels, value) in rows {
        family.get_or_create(&labels).set(value);
    }
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, family),
        None => registry.register(name, help, family),
    }
}

/// The type that Prometheus negotiates for native histograms.
const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
/// The type that it negotiates otherwise (OpenMetrics 1.0 §5.1).
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
