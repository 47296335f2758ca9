//! The results of the attack: a table on the terminal, a Markdown file, a JSON file, a picture.
//!
//! Before: rows. After: attack.md, attack.json, attack.svg. Never: shows a latency without the failures beside it.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Options,
    scene::{Row, Side},
};
use crate::{
    peers::{
        machine::Machine,
        markdown::{described, table},
        stage::LeftOut,
        summary::short,
        text::aligned,
    },
    plot::{self, Bar, Panel, bars},
};

/// All of it.
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) options: Options,
    pub(super) rows: Vec<Row>,
    pub(super) left_out: LeftOut,
}

/// A line of progress.
pub(super) fn tell(row: &Row) {
    eprintln!(
        "attack  {:<14} p99 {:>8} ms alone {:>8} ms under {:>5.0} handshakes/s, CPU {:.2} cores",
        row.name,
        short(row.quiet.p99_us / 1e3),
        short(row.attacked.p99_us / 1e3),
        row.flood_per_second,
        row.attacked.cores
    );
}

impl Report {
    pub(super) fn text(&self) -> String {
        format!("\nInnocent clients alone → under the flood; times in ms\n{}", aligned(&self.cells()))
    }

    pub(super) fn markdown(&self) -> String {
        let options = &self.options;
        let mut text = format!(
            "# dotd and its peers under a flood\n\n\
             Made by `cargo xtask bench attack`; do not edit. Compare within this file only.\n\n{}\
             | flood | {} connections at once from {} addresses, a full handshake and one query each, as many as it gets |\n\
             | innocents | 20 lasting connections with {} queries a second, 5 clients that connect for each query; {} s |\n\n\
             Front end on its core behind a veth pair, NSD, flood and innocents on the other; the flood at low priority. *CPU*: \
             cores that the front end's process had. *core busy*: its core, the kernel's work for it included. *haproxy-limit*: \
             50 new connections a second of one address; *dnsdist-limit*: 4 at once of one address; *dotd*: XDP off; *dotd-xdp*: \
             native, 50 SYN a second of one address; *dotd-cost*: handshake budgets as well.\n\n",
            described(&self.machine),
            options.attackers,
            options.addresses,
            options.rate,
            options.seconds
        );
        text += &table(&self.cells());
        for (name, why) in &self.left_out {
            text += &format!("\nLeft out: {name} ({why}).\n");
        }
        text + "\n![What innocents wait, and CPU](attack.svg)\n"
    }

    /// One row for each front end; alone → under the flood.
    fn cells(&self) -> Vec<Vec<String>> {
        let head = [
            "front end",
            "p50 ms",
            "p99 ms",
            "handshake p99 ms",
            "failures",
            "CPU",
            "core busy",
            "flood's handshakes/s",
            "its failures/s",
        ];
        let mut cells = vec![head.map(str::to_owned).to_vec()];
        for row in &self.rows {
            let both = |of: &dyn Fn(&Side) -> String| format!("{} → {}", of(&row.quiet), of(&row.attacked));
            cells.push(vec![
                row.name.to_owned(),
                both(&|side| short(side.p50_us / 1e3)),
                both(&|side| short(side.p99_us / 1e3)),
                both(&|side| short(side.handshake_p99_us / 1e3)),
                both(&|side| side.failures.to_string()),
                both(&|side| short(side.cores)),
                both(&|side| format!("{:.0} %", side.core_busy * 100.0)),
                format!("{:.0}", row.flood_per_second),
                format!("{:.0}", row.refused_per_second),
            ]);
        }
        cells
    }

    pub(super) fn json(&self) -> Value {
        let side = |side: &Side| {
            json!({
                "p50_us": side.p50_us, "p99_us": side.p99_us, "handshake_p99_us": side.handshake_p99_us,
                "failures": side.failures, "cores": side.cores, "core_busy": side.core_busy,
            })
        };
        let row = |row: &Row| {
            json!({
                "name": row.name, "version": row.version,
                "alone": side(&row.quiet), "attacked": side(&row.attacked),
                "flood_handshakes_per_second": row.flood_per_second,
                "flood_failures_per_second": row.refused_per_second,
            })
        };
        let left_out = self.left_out.iter().map(|(name, why)| json!({"name": name, "why": why}));
        json!({
            "kernel": self.machine.kernel,
            "begun_unix_seconds": self.machine.begun,
            "attackers": self.options.attackers,
            "addresses": self.options.addresses,
            "innocent_queries_per_second": self.options.rate,
            "seconds": self.options.seconds,
            "fronts": self.rows.iter().map(row).collect::<Vec<Value>>(),
            "left_out": left_out.collect::<Vec<Value>>(),
        })
    }

    pub(super) fn draw(&self, path: &Path) -> Result<()> {
        let panel = |title: &str, parts: &dyn Fn(&Row) -> [f64; 2]| Panel {
            title: title.to_owned(),
            bars: self.rows.iter().map(|row| bar(row, parts(row))).collect(),
        };
        // The cost alone is dark, the part that the flood adds is light.
        let added = |quiet: f64, attacked: f64| [quiet, (attacked - quiet).max(0.0)];
        let panels = [
            panel("innocents' p99, ms", &|row| added(row.quiet.p99_us / 1e3, row.attacked.p99_us / 1e3)),
            panel("innocents' handshake p99, ms", &|row| {
                added(row.quiet.handshake_p99_us / 1e3, row.attacked.handshake_p99_us / 1e3)
            }),
            panel("CPU of the front end, cores", &|row| added(row.quiet.cores, row.attacked.cores)),
        ];
        bars(
            path,
            "A flood of one-query connections: alone (dark), and what the flood adds (light)",
            3,
            &panels,
        )
    }
}

fn bar(row: &Row, parts: [f64; 2]) -> Bar {
    let side = match row.name.split('-').next() {
        Some("dotd") => plot::Side::Ours,
        Some("floor") => plot::Side::Floor,
        _ => plot::Side::Theirs,
    };
    Bar { label: row.name.to_owned(), side, parts }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::peers::machine::Cores;

    /// Goal: alone and attacked are not mixed up, in any of the three. Method: one row with known figures.
    #[test]
    fn tells_both_sides() {
        let quiet = Side { p99_us: 1000.0, cores: 0.25, ..Side::default() };
        let attacked = Side { p99_us: 8000.0, failures: 3, cores: 1.0, ..Side::default() };
        let row = Row {
            name: "dotd",
            version: "1".to_owned(),
            quiet,
            attacked,
            flood_per_second: 700.0,
            refused_per_second: 5.0,
        };
        let report = Report {
            machine: Machine::look(Cores { front: 0, load: 1 }),
            options: Options::parse_from(["attack"]),
            rows: vec![row],
            left_out: vec![("named", "not installed".to_owned())],
        };
        assert!(report.markdown().contains("| dotd | 0.00 → 0.00 | 1.00 → 8.00 |"), "{}", report.markdown());
        assert!(
            report.markdown().contains("| 0 → 3 | 0.25 → 1.00 |") && report.text().contains("1.00 → 8.00")
        );
        assert_eq!(report.json()["fronts"][0]["attacked"]["failures"], 3);
    }
}
