//! The outcome as text and as JSON.
//!
//! Before: an [`Outcome`]. After: text or JSON on stdout. Never: rounds in JSON.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{
    cpu::Usage, options::Options, population::POPULATIONS, queries::rcode_name, tally::Tally,
    threads::Outcome,
};

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
const NANOSECONDS_PER_MICROSECOND: f64 = 1e3;

/// As JSON: times in microseconds, unless the name says otherwise.
#[must_use]
pub fn json(options: &Options, outcome: &Outcome) -> Value {
    let tally = &outcome.tally;
    let rcodes: BTreeMap<String, u64> =
        tally.rcodes.iter().map(|(rcode, count)| (rcode_name(*rcode), *count)).collect();
    json!({
        "server": options.server.to_string(),
        "connections": options.connections,
        "depth": options.depth,
        "rate": options.rate,
        "threads": options.threads,
        "mix": options.mix.map(|mix| mix.to_string()),
        "pause_seconds": options.mix.map(|_| options.pause.as_secs_f64()),
        "latency_us_by_population": options.mix.map(|_| populations(tally)),
        "per_connection": options.per_connection,
        "is_resuming": !options.no_resumption,
        "elapsed_seconds": outcome.elapsed.as_secs_f64(),
        "queries_per_second": rate(outcome),
        "sent": tally.sent,
        "answered": tally.answered,
        "unexpected_rcode": tally.unexpected,
        "malformed": tally.malformed,
        "other_question": tally.other_question,
        "truncated": tally.truncated,
        "unknown_id": tally.unknown_id,
        "lost": tally.lost,
        "rcodes": rcodes,
        "handshakes_full": tally.handshakes_full,
        "handshakes_resumed": tally.handshakes_resumed,
        "closed_by_server": tally.closed_by_server,
        "errors": tally.errors,
        "latency_us": times(&tally.latency),
        "handshake_us": times(&tally.handshake),
        "lag_us": options.rate.map(|_| times(&tally.lag)),
        "own_cpu": usage(&outcome.own, tally.answered),
        "server_calls_per_query": per_answer(outcome.calls, tally.answered),
        "server_cpu": outcome.server.as_ref().map(|server| usage(server, tally.answered)),
    })
}

fn populations(tally: &Tally) -> BTreeMap<String, Value> {
    let pairs = POPULATIONS.iter().zip(&tally.by_population);
    pairs.map(|(population, latency)| (population.to_string(), times(latency))).collect()
}

fn times(histogram: &Histogram<u64>) -> Value {
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / NANOSECONDS_PER_MICROSECOND;
    let mut times = serde_json::Map::new();
    for (name, quantile) in QUANTILES {
        times.insert(name.to_owned(), json!(microseconds(histogram.value_at_quantile(quantile))));
    }
    times.insert("mean".to_owned(), json!(histogram.mean() / NANOSECONDS_PER_MICROSECOND));
    times.insert("max".to_owned(), json!(microseconds(histogram.max())));
    times.insert("count".to_owned(), json!(histogram.len()));
    Value::Object(times)
}

fn usage(usage: &Usage, queries: u64) -> Value {
    let threads: Vec<Value> = usage
        .threads
        .iter()
        .map(|thread| {
            let (user, system) = (thread.user.as_secs_f64(), thread.system.as_secs_f64());
            json!({"id": thread.id, "name": thread.name, "user_seconds": user, "system_seconds": system})
        })
        .collect();
    json!({
        "user_seconds": usage.user.as_secs_f64(),
        "system_seconds": usage.system.as_secs_f64(),
        "us_per_query": per_query(usage.total(), queries),
        "user_us_per_query": per_query(usage.user, queries),
        "system_us_per_query": per_query(usage.system, queries),
        "voluntary_switches": usage.switches.voluntary,
        "involuntary_switches": usage.switches.involuntary,
        "threads": threads,
    })
}

/// As text.
#[must_use]
pub fn text(options: &Options, outcome: &Outcome) -> String {
    let tally = &outcome.tally;
    let mut lines = vec![
        format!(
            "load        {} × {} in flight to {}, {}, {} threads, {}",
            options.connections,
            options.depth,
            options.server,
            options.rate.map_or_else(|| "closed loop".to_owned(), |rate| format!("open loop at {rate}/s")),
            options.threads,
            if options.no_resumption { "full handshakes" } else { "tickets kept" }
        ),
        format!(
            "answered    {} of {} in {:.2} s: {:.0} queries/s",
            tally.answered,
            tally.sent,
            outcome.elapsed.as_secs_f64(),
            rate(outcome).unwrap_or(0.0)
        ),
        format!("latency     {}", quantiles(&tally.latency)),
        format!(
            "handshakes  {} full, {} resumed; {}",
            tally.handshakes_full,
            tally.handshakes_resumed,
            quantiles(&tally.handshake)
        ),
    ];
    if let Some(mix) = options.mix {
        lines.push(format!("mix         {mix}"));
        for (population, latency) in POPULATIONS.iter().zip(&tally.by_population) {
            lines.push(format!("  {population:<10}{} answered, {}", latency.len(), quantiles(latency)));
        }
    }
    if options.rate.is_some() {
        lines.push(format!("lag         {}", quantiles(&tally.lag)));
    }
    let rcodes: Vec<String> =
        tally.rcodes.iter().map(|(rcode, count)| format!("{} {count}", rcode_name(*rcode))).collect();
    lines.push(format!("rcodes      {}", rcodes.join(", ")));
    lines.push(format!("cpu         dotload: {}", cpu(&outcome.own, tally.answered)));
    if let (Some(server), Some(pid)) = (&outcome.server, options.server_pid) {
        lines.push(format!("cpu         server {pid}: {}", cpu(server, tally.answered)));
        for thread in server.threads.iter().filter(|thread| thread.user + thread.system > Duration::ZERO) {
            let used = (thread.user + thread.system).as_secs_f64();
            lines.push(format!("              {used:8.2} s  {} ({})", thread.name, thread.id));
        }
    }
    if let Some(each) = per_answer(outcome.calls, tally.answered) {
        lines.push(format!("calls       server: {each:.3} system calls a query"));
    }
    lines.extend(faults(outcome));
    lines.join("\n")
}

/// One line for each kind of fault there was.
fn faults(outcome: &Outcome) -> Vec<String> {
    let tally = &outcome.tally;
    let counts = [
        (tally.unexpected, "responses with an unexpected rcode"),
        (tally.malformed, "malformed responses"),
        (tally.other_question, "responses to another question"),
        (tally.truncated, "truncated responses"),
        (tally.unknown_id, "responses with an unknown ID"),
        (tally.lost, "queries without a response"),
        (tally.closed_by_server, "connections closed by the server"),
    ];
    let counted = counts.iter().filter(|(count, _)| *count > 0);
    let mut lines: Vec<String> = counted.map(|(count, what)| format!("FAULT       {count} {what}")).collect();
    lines.extend(tally.errors.iter().map(|(what, count)| format!("FAULT       {count} × {what}")));
    lines
}

fn quantiles(histogram: &Histogram<u64>) -> String {
    if histogram.is_empty() {
        return "none".to_owned();
    }
    let mut parts: Vec<String> = QUANTILES
        .iter()
        .map(|(name, quantile)| format!("{name} {}", time(histogram.value_at_quantile(*quantile))))
        .collect();
    parts.push(format!("max {}", time(histogram.max())));
    parts.join("  ")
}

fn time(nanoseconds: u64) -> String {
    let milliseconds = nanoseconds as f64 / 1e6;
    if milliseconds < 1.0 {
        format!("{:.0} µs", milliseconds * 1e3)
    } else {
        format!("{milliseconds:.2} ms")
    }
}

fn cpu(usage: &Usage, queries: u64) -> String {
    let each =
        |time: Duration| per_query(time, queries).map_or_else(|| "-".to_owned(), |us| format!("{us:.2}"));
    format!(
        "{} µs a query ({} user, {} system), {:.2} s in all",
        each(usage.total()),
        each(usage.user),
        each(usage.system),
        usage.total().as_secs_f64()
    )
}

/// Microseconds for each query; none without queries.
fn per_query(time: Duration, queries: u64) -> Option<f64> {
    (queries > 0).then(|| time.as_secs_f64() * 1e6 / queries as f64)
}

/// A count for each query; none without queries.
fn per_answer(count: Option<u64>, queries: u64) -> Option<f64> {
    count.filter(|_| queries > 0).map(|count| count as f64 / queries as f64)
}

fn rate(outcome: &Outcome) -> Option<f64> {
    let seconds = outcome.elapsed.as_secs_f64();
    (seconds > 0.0).then(|| outcome.tally.answered as f64 / seconds)
}
