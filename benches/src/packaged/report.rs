//! Reports both configs: lines on the terminal, a Markdown file for people, a JSON file for programs.
//!
//! Before: the results of the run. After: packaged.md, packaged.json. Never: leaves out a round.

use serde_json::{Value, json};

use super::{Options, scene::Row};
use crate::peers::{
    machine::Machine,
    markdown::{described, table},
    text::aligned,
};

/// A run: the machine, the options and the results.
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) options: Options,
    pub(super) rows: Vec<Row>,
}

const HEAD: [&str; 5] = ["packaged config", "queries/s", "of XDP off", "CPU µs a query", "lost"];

impl Report {
    fn cells(&self) -> Vec<Vec<String>> {
        let head = HEAD.map(str::to_owned).to_vec();
        let rows = self.rows.iter().map(|row| {
            vec![
                row.name.to_owned(),
                format!("{:.0}", median(&row.rates)),
                format!("{:.3}", self.ratio(row)),
                format!("{:.2}", median(&row.costs_us)),
                row.failures.to_string(),
            ]
        });
        std::iter::once(head).chain(rows).collect()
    }

    /// The median over rounds of a config's rate beside that of the first config in the same round: what changes on the machine
    /// between rounds is in both.
    fn ratio(&self, row: &Row) -> f64 {
        let Some(first) = self.rows.first() else { return 0.0 };
        let ratios: Vec<f64> = row.rates.iter().zip(&first.rates).map(|(own, other)| own / other).collect();
        median(&ratios)
    }

    pub(super) fn text(&self) -> String {
        format!("\n{}", aligned(&self.cells()))
    }

    pub(super) fn markdown(&self) -> String {
        let Options { rounds, seconds, connections, depth, .. } = &self.options;
        let mut text = format!(
            "# The packaged config under load, with XDP and without\n\n\
             Made by `cargo xtask bench packaged`; do not edit.\n\n{}\
             | load | {connections} connections with {depth} queries in flight each, over a veth pair between two namespaces; \
             {rounds} rounds of {seconds} s for each config, medians |\n\n",
            described(&self.machine),
        );
        text += &table(&self.cells());
        text += "\ndotd has packaging/dotd.toml. Its core has NSD at 127.0.0.1:53 too, and the kernel processes there what comes in (RPS); \
                 the clients have the other core. Goal: 0.97 of XDP off.\n";
        text
    }

    pub(super) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "name": row.name,
                    "version": row.version,
                    "queries_per_second": row.rates,
                    "cpu_us_per_query": row.costs_us,
                    "of_xdp_off": self.ratio(row),
                    "failures": row.failures,
                })
            })
            .collect();
        json!({
            "rounds": self.options.rounds,
            "seconds": self.options.seconds,
            "connections": self.options.connections,
            "depth": self.options.depth,
            "configs": rows,
        })
    }
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
