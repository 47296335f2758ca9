//! The report as pictures: CPU, waiting, memory and system calls, a panel for each kind of work.
//!
//! Before: a report. After: SVG files beside peers.md. Never: a figure that peers.md does not hold.

use std::path::Path;

use anyhow::Result;

use super::{
    catalog::{Entry, Kind},
    record::Report,
    workloads::Work,
};
use crate::plot::{Bar, Panel, Side, bars};

/// Files that [`draw`] makes, and what they show.
pub(crate) const FILES: [(&str, &str); 3] = [
    ("peers-cpu.svg", "CPU of the front end for each query or handshake, µs: user (dark) and system (light)"),
    ("peers-latency.svg", "Waiting, ms: p50 (dark), and from there to p99 (light)"),
    ("peers-memory.svg", "Memory and system calls of the front end"),
];
const COLUMNS: usize = 3;

/// Draws all that the run has figures for.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn draw(report: &Report, folder: &Path) -> Result<()> {
    let works: Vec<&Work> = report.works().collect();
    let panels = |parts: &dyn Fn(&str, &Work) -> Option<[f64; 2]>| -> Vec<Panel> {
        works.iter().map(|work| panel(report, work.name, &|name| parts(name, work))).collect()
    };
    let cpu = panels(&|name, work| {
        let user = report.spread(name, work, |figures| figures.user_share)?.median;
        let all = report.cpu(name, work)?;
        Some([all * user, all * (1.0 - user)])
    });
    let latency = panels(&|name, work| {
        let p50 = report.spread(name, work, |figures| figures.p50_us)?.median / 1e3;
        let p99 = report.spread(name, work, |figures| figures.p99_us)?.median / 1e3;
        Some([p50, (p99 - p50).max(0.0)])
    });
    let weight =
        |name: &str| report.idle.iter().find(|idle| idle.peer == name).map(|idle| [idle.pss_kib, 0.0]);
    let mut memory = vec![panel(report, "KiB for each idle connection", &weight)];
    for work in works.iter().filter(|work| work.counts_calls) {
        let title = format!("{}: system calls for each query", work.name);
        memory.push(panel(report, &title, &|name| report.calls(name, work).map(|calls| [calls, 0.0])));
    }
    for ((name, about), panels) in FILES.iter().zip([cpu, latency, memory]) {
        bars(&folder.join(name), about, COLUMNS, &panels)?;
    }
    Ok(())
}

/// Bars of all peers that have a figure.
fn panel(report: &Report, title: &str, parts: &dyn Fn(&str) -> Option<[f64; 2]>) -> Panel {
    let bar = |entry: &Entry| {
        Some(Bar { label: entry.name.to_owned(), side: side(entry.kind), parts: parts(entry.name)? })
    };
    Panel { title: title.to_owned(), bars: report.peers.iter().filter_map(|peer| bar(peer.entry)).collect() }
}

fn side(kind: Kind) -> Side {
    match kind {
        Kind::Relay | Kind::Answers => Side::Theirs,
        Kind::Ours | Kind::OursCached => Side::Ours,
        Kind::Floor => Side::Floor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::record;

    /// Goal: each file is there and names every peer that has a figure in it. Method: a made-up report.
    #[test]
    fn draws_every_file() {
        let folder = tempfile::tempdir().expect("a folder");
        draw(&record::tests::report(), folder.path()).expect("drawn");
        let names = |file: &str, name: &str| {
            let svg = std::fs::read_to_string(folder.path().join(file)).expect(file);
            svg.lines().any(|line| line.trim() == name)
        };
        assert!(names("peers-cpu.svg", "nginx") && names("peers-latency.svg", "dotd"));
        assert!(names("peers-memory.svg", "dotd") && !names("peers-memory.svg", "nginx"));
    }
}
