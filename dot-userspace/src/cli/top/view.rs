//! The changes between two samples of a running dotd: rates, quantiles, refusals, clients.
//!
//! Before: two samples. After: rows for the screen, for text and for JSON.
//! Holds: differences and states of the samples. Never: asks the running dotd.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::Serialize;

use super::sample::Sample;
use crate::{
    control::{RefusedTotal, State, TopClient, refused},
    ledger::{Counter, Snapshot},
    xdp::{BanRow, WorkerReport},
};

/// All rows.
#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) version: String,
    pub(super) state: State,
    pub(super) uptime_seconds: u64,
    /// Time between the two samples.
    pub(super) interval_seconds: f64,
    pub(super) connections_open: u64,
    /// Rates per second, by name.
    pub(super) rates: BTreeMap<&'static str, f64>,
    pub(super) latency: Vec<LatencyRow>,
    /// Drops and refusals, the most frequent first.
    pub(super) drops: Vec<DropRow>,
    pub(super) clients: Vec<ClientRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) names: Option<Vec<NameRow>>,
    pub(super) backends: Vec<BackendRow>,
    pub(super) workers: Vec<WorkerReport>,
    pub(super) bans: Vec<BanRow>,
    /// Workers whose clients are missing.
    pub(super) workers_silent: usize,
}

/// Quantiles of the interval.
#[derive(Debug, Serialize)]
pub(super) struct LatencyRow {
    pub(super) name: String,
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p90_us: f64,
    pub(super) p99_us: f64,
}

/// A reason of drops or refusals.
#[derive(Debug, Serialize)]
pub(super) struct DropRow {
    /// "xdp" or "engine".
    pub(super) by: &'static str,
    /// The verdict of the kernel half, or the family of the engine's counter.
    pub(super) what: String,
    pub(super) reason: String,
    pub(super) per_second: f64,
    pub(super) total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<&'static str>,
}

/// The rates of a client per second; `None` if it is not among the first by that count.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct ClientRow {
    pub(super) prefix: String,
    pub(super) queries: Option<f64>,
    pub(super) octets: Option<f64>,
    pub(super) handshakes: Option<f64>,
    /// In full handshakes.
    pub(super) cost: Option<f64>,
    pub(super) refusals: Option<f64>,
    pub(super) is_banned: bool,
}

/// A qname of clients.
#[derive(Debug, Serialize)]
pub(super) struct NameRow {
    pub(super) name: String,
    pub(super) per_second: f64,
}

/// A backend.
#[derive(Debug, Serialize)]
pub(super) struct BackendRow {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) asked: f64,
    pub(super) lost: f64,
    pub(super) servfail: f64,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
}

/// Units of the `cost` count in a full handshake.
const UNITS_PER_HANDSHAKE: f64 = dot_common::charge::UNITS_PER_HANDSHAKE as f64;

impl View {
    /// The changes from `before` to `now`.
    pub(super) fn between(before: &Sample, now: &Sample) -> Self {
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        let of = |counter: Counter| rate(before.stats.count(counter), now.stats.count(counter));
        let handshakes = |prefix: &str| {
            let total = |stats: &Snapshot| stats.prefix_total("handshakes", prefix);
            rate(total(&before.stats), total(&now.stats))
        };
        let packets =
            |verdict: &str| rate(before.stats.packets_total(verdict), now.stats.packets_total(verdict));
        let rates = [
            ("connections", of(Counter::Accepted)),
            ("handshakes_full", handshakes("full_")),
            ("handshakes_resumed", handshakes("resumed_")),
            ("handshakes_failed", handshakes("failed_")),
            ("queries", of(Counter::Received)),
            ("queries_cached", of(Counter::Cached)),
            ("queries_forwarded", of(Counter::Forwarded)),
            ("responses_servfail", of(Counter::RcodeServFail)),
            ("packets_dropped", packets("drop")),
            ("packets_answered", packets("answer")),
        ];
        let (latency, backends) = (latency(before, now, seconds), backends(before, now, rate));
        Self {
            version: now.status.version.clone(),
            state: now.status.state,
            uptime_seconds: now.status.uptime_seconds,
            interval_seconds: seconds,
            connections_open: now.stats.count(Counter::Open),
            rates: rates.into(),
            latency,
            drops: drops(&before.stats, &now.stats, rate),
            clients: clients(before, now, rate),
            names: names(before, now, rate),
            backends,
            workers: now.status.xdp.workers.clone(),
            bans: now.bans.clone(),
            workers_silent: now.top.workers_silent,
        }
    }
}

fn latency(before: &Sample, now: &Sample, seconds: f64) -> Vec<LatencyRow> {
    let rows = now.top.durations.iter().filter_map(|sparse| {
        let same =
            |other: &&crate::ledger::Sparse| (&other.of, &other.labels) == (&sparse.of, &sparse.labels);
        let window = sparse.since(before.top.durations.iter().find(same));
        Some(LatencyRow {
            name: window.name(),
            per_second: window.count() as f64 / seconds,
            p50_us: window.quantile_us(0.5)?,
            p90_us: window.quantile_us(0.9)?,
            p99_us: window.quantile_us(0.99)?,
        })
    });
    rows.collect()
}

fn drops(before: &Snapshot, now: &Snapshot, rate: impl Fn(u64, u64) -> f64) -> Vec<DropRow> {
    let known = refused(before);
    let row = |row: RefusedTotal| {
        let same = |other: &&RefusedTotal| {
            (other.by, &other.what, &other.reason) == (row.by, &row.what, &row.reason)
        };
        let from = known.iter().find(same).map_or(0, |other| other.total);
        let RefusedTotal { by, what, reason, total, key } = row;
        DropRow { by, what, reason, per_second: rate(from, total), total, key }
    };
    let mut rows: Vec<_> = refused(now).into_iter().map(row).collect();
    rows.sort_by(|a, b| b.per_second.total_cmp(&a.per_second).then(b.total.cmp(&a.total)));
    rows
}

fn clients(before: &Sample, now: &Sample, rate: impl Fn(u64, u64) -> f64) -> Vec<ClientRow> {
    let known: BTreeMap<&str, &TopClient> =
        before.top.clients.iter().map(|client| (client.prefix.as_str(), client)).collect();
    let banned: Vec<IpNet> = now.bans.iter().filter_map(|ban| ban.prefix.parse().ok()).collect();
    let row = |client: &TopClient| {
        let of = |effort: &str| {
            let to = *client.counts.get(effort)?;
            let from = known.get(client.prefix.as_str()).and_then(|before| before.counts.get(effort));
            // A client that was not in the previous sample may have had up to `excess` before.
            let from = from.or_else(|| client.excess.get(effort)).copied().unwrap_or_default();
            Some(rate(from, to))
        };
        ClientRow {
            prefix: client.prefix.clone(),
            queries: of("queries"),
            octets: of("octets"),
            handshakes: of("handshakes"),
            cost: of("cost").map(|units| units / UNITS_PER_HANDSHAKE),
            refusals: of("refusals"),
            is_banned: client.prefix.parse().is_ok_and(|prefix: IpNet| banned.contains(&prefix)),
        }
    };
    now.top.clients.iter().map(row).collect()
}

fn names(before: &Sample, now: &Sample, rate: impl Fn(u64, u64) -> f64) -> Option<Vec<NameRow>> {
    let known: BTreeMap<&str, u64> =
        before.top.names.iter().flatten().map(|row| (row.name.as_str(), row.queries)).collect();
    let row = |row: &crate::control::TopName| {
        let from = known.get(row.name.as_str()).copied().unwrap_or(row.excess);
        NameRow { name: row.name.clone(), per_second: rate(from, row.queries) }
    };
    let mut rows: Vec<_> = now.top.names.as_ref()?.iter().map(row).collect();
    rows.sort_by(|a, b| b.per_second.total_cmp(&a.per_second));
    Some(rows)
}

fn backends(before: &Sample, now: &Sample, rate: impl Fn(u64, u64) -> f64) -> Vec<BackendRow> {
    let row = |backend: &crate::control::BackendStatus| {
        let of = |label: &str| {
            let count = |stats: &Snapshot| {
                stats
                    .backends
                    .get(&backend.name)
                    .and_then(|counts| counts.get(label))
                    .copied()
                    .unwrap_or_default()
            };
            rate(count(&before.stats), count(&now.stats))
        };
        let is_own = |sparse: &&crate::ledger::Sparse| {
            sparse.of == "backend" && sparse.labels.get("backend").is_some_and(|name| *name == backend.name)
        };
        let window = now.top.durations.iter().filter(is_own).map(|sparse| {
            let same =
                |other: &&crate::ledger::Sparse| (&other.of, &other.labels) == (&sparse.of, &sparse.labels);
            sparse.since(before.top.durations.iter().find(same))
        });
        let window = window.max_by_key(crate::ledger::Sparse::count);
        let quantile = |part| window.as_ref().and_then(|window| window.quantile_us(part));
        BackendRow {
            name: backend.name.clone(),
            state: backend.state.clone(),
            asked: of("asked"),
            lost: of("lost"),
            servfail: of("SERVFAIL"),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
        }
    };
    now.status.backends.iter().map(row).collect()
}

/// The quantity that clients are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Order {
    Queries,
    Handshakes,
    Cost,
    Refusals,
    Octets,
}

impl Order {
    const ALL: [Self; 5] = [Self::Queries, Self::Handshakes, Self::Cost, Self::Refusals, Self::Octets];

    /// The next order.
    pub(super) fn next(self) -> Self {
        let place = Self::ALL.iter().position(|order| *order == self).unwrap_or_default();
        Self::ALL.get(place + 1).copied().unwrap_or(Self::Queries)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Queries => "queries",
            Self::Handshakes => "handshakes",
            Self::Cost => "cost",
            Self::Refusals => "refusals",
            Self::Octets => "octets",
        }
    }

    fn of(self, row: &ClientRow) -> f64 {
        let value = match self {
            Self::Queries => row.queries,
            Self::Handshakes => row.handshakes,
            Self::Cost => row.cost,
            Self::Refusals => row.refusals,
            Self::Octets => row.octets,
        };
        value.unwrap_or(-1.0)
    }
}

/// The clients that match a filter, in an order. A filter is a prefix that contains them, an address in them, or a
/// part of the text.
pub(super) fn chosen(rows: &[ClientRow], order: Order, filter: &str) -> Vec<ClientRow> {
    let net: Option<IpNet> = filter.parse().ok();
    let address: Option<IpAddr> = filter.parse().ok();
    let fits = |row: &&ClientRow| {
        let own: Option<IpNet> = row.prefix.parse().ok();
        let is_within = net.zip(own).is_some_and(|(net, own)| net.contains(&own));
        let has = address.zip(own).is_some_and(|(address, own)| own.contains(&address));
        is_within || has || (net.is_none() && address.is_none() && row.prefix.contains(filter))
    };
    let mut rows: Vec<_> = rows.iter().filter(fits).cloned().collect();
    rows.sort_by(|a, b| order.of(b).total_cmp(&order.of(a)).then_with(|| a.prefix.cmp(&b.prefix)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a filter is a prefix, an address or a part of the text, and rows without a value are last. Method: three clients.
    /// Covers: C-522
    #[test]
    fn rows_are_filtered_and_sorted() {
        let row = |prefix: &str, queries, cost| ClientRow {
            prefix: prefix.into(),
            queries,
            cost,
            ..ClientRow::default()
        };
        let rows = [
            row("192.0.2.7/32", Some(5.0), None),
            row("192.0.2.9/32", Some(9.0), Some(1.0)),
            row("2001:db8:1::/56", None, Some(7.0)),
        ];
        let of = |order, filter: &str| {
            chosen(&rows, order, filter).into_iter().map(|row| row.prefix).collect::<Vec<_>>()
        };
        assert_eq!(of(Order::Queries, ""), ["192.0.2.9/32", "192.0.2.7/32", "2001:db8:1::/56"]);
        assert_eq!(of(Order::Cost, ""), ["2001:db8:1::/56", "192.0.2.9/32", "192.0.2.7/32"]);
        assert_eq!(of(Order::Queries, "192.0.2.0/29"), ["192.0.2.7/32"]);
        assert_eq!(of(Order::Queries, "2001:db8:1::77"), ["2001:db8:1::/56"]);
        assert_eq!(of(Order::Queries, "db8").len() + of(Order::Queries, "nothing").len(), 1);
        let round = (0..5).fold(Order::Queries, |order, _| order.next());
        assert_eq!(round, Order::Queries);
    }
}
