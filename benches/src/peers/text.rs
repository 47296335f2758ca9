//! The tables on a terminal.
//!
//! Before: a report. After: columns that line up. Never: prints everything; the rest is in the report's files.

use super::{
    goals,
    record::Report,
    summary::{short, spread},
    workloads::Work,
};

/// Costs, ratios and weights.
pub(crate) fn tables(report: &Report) -> String {
    let mut text = format!(
        "\nCPU µs of the front end for each query or handshake, median (min–max) of {}\n",
        report.pace.rounds
    );
    text += &aligned(&costs(report));
    text += "\nThe same as a ratio to the best peer; dotd and the floor are none\n";
    text += &aligned(&ratios(report));
    if !report.calls.is_empty() {
        text += "\nSystem calls of the front end for each answered query\n";
        text += &aligned(&calls(report));
    }
    if !report.idle.is_empty() {
        text += "\nKiB for each idle connection\n";
        text += &aligned(&weights(report));
    }
    text += "\nGoals\n";
    text += &aligned(&goals::rows(report));
    for fault in report.faults() {
        text += &format!("FAULT  {fault}\n");
    }
    text
}

/// A row for each peer, a column for each kind of work.
pub(crate) fn costs(report: &Report) -> Vec<Vec<String>> {
    let works: Vec<&Work> = report.works().collect();
    rows(report, &works, &|peer, work| spread(report.spread(peer, work, |figures| figures.cpu_us)))
}

/// As [`costs`], in relation to the best peer.
pub(crate) fn ratios(report: &Report) -> Vec<Vec<String>> {
    let works: Vec<&Work> = report.works().collect();
    rows(report, &works, &|peer, work| report.to_best_peer(peer, work).map_or_else(none, short))
}

/// System calls, for the work that they were counted at.
pub(crate) fn calls(report: &Report) -> Vec<Vec<String>> {
    let works: Vec<&Work> = report.works().filter(|work| work.counts_calls).collect();
    rows(report, &works, &|peer, work| report.calls(peer, work).map_or_else(none, short))
}

/// Idle connections.
pub(crate) fn weights(report: &Report) -> Vec<Vec<String>> {
    let mut rows = vec![row(&["front end", "PSS", "RSS", "anonymous", "connections"])];
    for idle in &report.idle {
        let figures = [idle.pss_kib, idle.rss_kib, idle.anonymous_kib].map(short);
        let mut row = vec![idle.peer.to_owned()];
        row.extend(figures);
        row.push(idle.connections.to_string());
        rows.push(row);
    }
    rows
}

fn rows(report: &Report, works: &[&Work], cell: &dyn Fn(&str, &Work) -> String) -> Vec<Vec<String>> {
    let mut head = row(&["front end", "kind"]);
    head.extend(works.iter().map(|work| work.name.to_owned()));
    let mut rows = vec![head];
    for peer in &report.peers {
        let mut row = row(&[peer.entry.name, peer.entry.kind.name()]);
        row.extend(works.iter().map(|work| cell(peer.entry.name, work)));
        rows.push(row);
    }
    rows
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

pub(crate) fn none() -> String {
    "–".to_owned()
}

/// Columns as wide as their widest cell; the first to the left, the others to the right.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::record::tests::report;

    /// Goal: columns line up though cells hold letters of two octets. Method: one short table.
    #[test]
    fn columns_line_up() {
        let rows = [row(&["a", "µs"]), row(&["long", "1.00 (1–2)"]), row(&["b"])];
        assert_eq!(aligned(&rows), "a             µs\nlong  1.00 (1–2)\nb\n");
    }

    /// Goal: the table has the cost of each, and its ratio to another one. Method: known costs.
    #[test]
    fn tables_hold_costs_and_ratios() {
        let text = tables(&report());
        let dotd: Vec<&str> = text.lines().filter(|line| line.starts_with("dotd ")).collect();
        assert!(dotd[0].ends_with("6.00") && dotd[1].ends_with("1.20"), "{text}");
        assert!(dotd[2].ends_with("1.50") && dotd[3].contains("12.0"), "{text}");
        assert!(text.contains("0.60  ≤ 0.6      met") && !text.contains("FAULT"), "{text}");
    }
}
