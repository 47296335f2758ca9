//! `dotd top --once`: a view as text, for example for a mail.
//!
//! Before: a view. After: lines. Holds: the formats of rates and times that the screen uses too. Never: adapts to the
//! width of a terminal.

use std::fmt::Write as _;

use super::view::{ClientRow, Order, View, chosen};
use crate::{cli::show, control::State, ledger::latency::show_us};

/// Rows of clients, names and drops.
const ROWS_MAX: usize = 20;

/// The whole view.
pub(super) fn text(view: &View, order: Order, filter: &str) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
    };
    line(head(view));
    for (name, rate) in &view.rates {
        line(format!("  {:<22} {:>9}/s", name.replace('_', " "), number(*rate)));
    }
    line(format!("{:<34} {:>11} {:>9} {:>9} {:>9}", "latency", "a second", "p50", "p90", "p99"));
    for row in &view.latency {
        let [p50, p90, p99] = [row.p50_us, row.p90_us, row.p99_us].map(show_us);
        line(format!("  {:<32} {:>11} {p50:>9} {p90:>9} {p99:>9}", row.name, number(row.per_second)));
    }
    line("drops and refusals".to_owned());
    for row in view.drops.iter().take(ROWS_MAX) {
        let key = row.key.unwrap_or_default();
        let what = format!("{} {}", row.what, row.reason);
        line(format!("  {:<6} {what:<36} {:>9}/s {:>12}  {key}", row.by, number(row.per_second), row.total));
    }
    line(format!(
        "{:<24} {}",
        format!("clients by {}", order.name()),
        CLIENT_HEADS.map(|head| format!("{head:>11}")).concat()
    ));
    for row in chosen(&view.clients, order, filter).iter().take(ROWS_MAX) {
        let cells = client_cells(row).map(|cell| format!("{cell:>11}")).concat();
        let ban = if row.is_banned { "  banned" } else { "" };
        line(format!("  {:<22} {cells}{ban}", row.prefix));
    }
    if let Some(names) = &view.names {
        line("names".to_owned());
        names
            .iter()
            .take(ROWS_MAX)
            .for_each(|row| line(format!("  {:<48} {:>9}/s", row.name, number(row.per_second))));
    }
    line(format!(
        "{:<24} {:<10} {:>11} {:>9} {:>11} {:>9} {:>9}",
        "backends", "", "asked", "lost", "SERVFAIL", "p50", "p99"
    ));
    for row in &view.backends {
        let [asked, lost, servfail] = [row.asked, row.lost, row.servfail].map(number);
        let [p50, p99] = [row.p50_us, row.p99_us].map(|us| us.map_or_else(|| "-".to_owned(), show_us));
        line(format!(
            "  {:<22} {:<10} {asked:>11} {lost:>9} {servfail:>11} {p50:>9} {p99:>9}",
            row.name, row.state
        ));
    }
    for (worker, row) in view.workers.iter().enumerate() {
        line(worker_line(worker, row));
    }
    for ban in &view.bans {
        let left = show::duration(i64::try_from(ban.seconds_left).unwrap_or(i64::MAX));
        line(format!("ban {}: {}, {} hits, {left} left", ban.prefix, ban.cause, ban.hits));
    }
    if view.workers_silent > 0 {
        line(format!("{} workers did not answer: their clients are missing", view.workers_silent));
    }
    text
}

/// The first line.
pub(super) fn head(view: &View) -> String {
    let state = if view.state == State::Serving { "serving" } else { "draining" };
    let up = show::duration(i64::try_from(view.uptime_seconds).unwrap_or(i64::MAX));
    format!(
        "dotd {}: {state} for {up}; {} connections, {} bans; the last {:.1} s",
        view.version,
        view.connections_open,
        view.bans.len(),
        view.interval_seconds
    )
}

/// A worker in a line.
pub(super) fn worker_line(worker: usize, row: &crate::xdp::WorkerReport) -> String {
    let state = if row.accepting { "accepting" } else { "closed" };
    format!("worker {worker}: {} connections, {} handshakes wait, {state}", row.open, row.backlog)
}

/// The headings of [`client_cells`].
pub(super) const CLIENT_HEADS: [&str; 5] = ["queries", "handshakes", "cost", "refusals", "octets"];

/// A client's rates.
pub(super) fn client_cells(row: &ClientRow) -> [String; 5] {
    [row.queries, row.handshakes, row.cost, row.refusals, row.octets]
        .map(|rate| rate.map_or_else(|| "-".to_owned(), number))
}

/// A rate in at most six characters.
pub(super) fn number(rate: f64) -> String {
    match rate {
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate if rate < 99_999.5 => format!("{rate:.0}"),
        rate if rate < 99_999_500.0 => format!("{:.0}k", rate / 1e3),
        rate => format!("{:.0}M", rate / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_short() {
        for (rate, shown) in [
            (0.0, "0.0"),
            (9.94, "9.9"),
            (10.4, "10"),
            (99_999.0, "99999"),
            (123_456.0, "123k"),
            (3e8, "300M"),
        ] {
            assert_eq!(number(rate), shown);
        }
    }
}
