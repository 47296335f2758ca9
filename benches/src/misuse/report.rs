//! What innocent clients wait beside a flood of random names: a table on the terminal, a Markdown file, a JSON file.
//!
//! Before: rows. After: misuse.md, misuse.json, and whether the goal was met. Never: shows a latency without the failures beside it.

use serde_json::{Value, json};

use super::{Options, scene::Row};
use crate::{
    attack::scene::Side,
    peers::{
        machine::Machine,
        markdown::{described, table},
        summary::short,
        text::aligned,
    },
};

/// With `[misuse]` the innocents' p99 may be this many times that without a flood.
const TIMES_MAX: f64 = 2.0;

/// All of it.
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) options: Options,
    pub(super) rows: Vec<Row>,
}

/// A line of progress.
pub(super) fn tell(row: &Row) {
    eprintln!(
        "misuse  {:<8} p99 {:>8} ms alone {:>8} ms beside {:>6.0} queries/s, of which {:.0} % REFUSED",
        row.name,
        short(row.quiet.p99_us / 1e3),
        short(row.attacked.p99_us / 1e3),
        row.flood_per_second,
        row.refused_part * 100.0
    );
}

/// How many times longer the innocents wait.
fn times(row: &Row) -> f64 {
    row.attacked.p99_us / row.quiet.p99_us.max(f64::MIN_POSITIVE)
}

impl Report {
    /// Whether no innocent query failed and p99 stayed within its limit, in each case that does something.
    pub(super) fn is_met(&self) -> bool {
        let mut acting = self.rows.iter().skip(1);
        acting.all(|row| row.attacked.failures == 0 && times(row) <= TIMES_MAX)
    }

    pub(super) fn text(&self) -> String {
        let verdict = if self.is_met() { "met" } else { "NOT met" };
        format!(
            "\nInnocent clients alone → beside the flood; times in ms\n{}\ngoal with [misuse]: no failure, p99 at most \
             {TIMES_MAX} times that without a flood: {verdict}\n",
            aligned(&self.cells())
        )
    }

    pub(super) fn markdown(&self) -> String {
        let options = &self.options;
        format!(
            "# Innocent clients beside a flood of random names\n\n\
             Made by `cargo xtask bench misuse`; do not edit. Compare within this file only.\n\n{}\
             | flood | one client address, {} connections with {} queries in flight each, for random names of one domain |\n\
             | innocents | 20 lasting connections with {} queries a second for names of that domain, 5 clients that connect for each query; {} s |\n\n\
             dotd without a cache on its core behind a veth pair; NSD, flood and innocents on the other; the flood at low priority. \
             *off*: no `[misuse]`; *refuse*: `random_names = \"refuse\"`; *delay*: `queries = \"delay\"` as well. The goal: with \
             `[misuse]` no innocent query fails, and their p99 is at most twice that without a flood.\n\n{}",
            described(&self.machine),
            options.connections,
            options.depth,
            options.rate,
            options.seconds,
            table(&self.cells())
        )
    }

    fn cells(&self) -> Vec<Vec<String>> {
        let head =
            ["[misuse]", "p50 ms", "p99 ms", "p99 ×", "failures", "CPU", "flood's queries/s", "REFUSED"];
        let mut cells = vec![head.map(str::to_owned).to_vec()];
        for row in &self.rows {
            let both = |of: &dyn Fn(&Side) -> String| format!("{} → {}", of(&row.quiet), of(&row.attacked));
            cells.push(vec![
                row.name.to_owned(),
                both(&|side| short(side.p50_us / 1e3)),
                both(&|side| short(side.p99_us / 1e3)),
                format!("{:.2}", times(row)),
                both(&|side| side.failures.to_string()),
                both(&|side| short(side.cores)),
                format!("{:.0}", row.flood_per_second),
                format!("{:.0} %", row.refused_part * 100.0),
            ]);
        }
        cells
    }

    pub(super) fn json(&self) -> Value {
        let side = |side: &Side| json!({"p50_us": side.p50_us, "p99_us": side.p99_us, "failures": side.failures, "cores": side.cores});
        let row = |row: &Row| {
            json!({
                "name": row.name, "version": row.version, "alone": side(&row.quiet), "attacked": side(&row.attacked),
                "p99_times": times(row), "flood_queries_per_second": row.flood_per_second,
                "refused_part": row.refused_part,
            })
        };
        json!({
            "kernel": self.machine.kernel,
            "begun_unix_seconds": self.machine.begun,
            "innocent_queries_per_second": self.options.rate,
            "seconds": self.options.seconds,
            "is_met": self.is_met(),
            "cases": self.rows.iter().map(row).collect::<Vec<Value>>(),
        })
    }
}
