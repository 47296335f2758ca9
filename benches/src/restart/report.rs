//! Reports the cases: lines on the terminal, a Markdown file for people, a JSON file for programs.
//!
//! Before: the results of the run. After: restart.md, restart.json. Never: leaves out a case that failed.

use serde_json::{Value, json};

use super::{Options, cases::Case, scene::Row};
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
    pub(super) left_out: Vec<(&'static Case, String)>,
}

const HEAD: [&str; 9] = [
    "front end",
    "version",
    "change",
    "queries",
    "queries lost",
    "connections made",
    "not made",
    "sessions closed",
    "longest wait",
];

impl Report {
    fn cells(&self) -> Vec<Vec<String>> {
        let head = HEAD.map(str::to_owned).to_vec();
        let rows = self.rows.iter().map(|row| {
            let (tally, case) = (&row.tally, row.case);
            vec![
                case.entry.name.to_owned(),
                row.version.clone(),
                case.change.name().to_owned(),
                tally.sent.to_string(),
                row.unanswered().to_string(),
                (tally.handshakes_full + tally.handshakes_resumed).to_string(),
                row.refused().to_string(),
                row.closed().to_string(),
                format!("{:.0} ms", tally.latency.max() as f64 / 1e6),
            ]
        });
        std::iter::once(head).chain(rows).collect()
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("\n{}", aligned(&self.cells()));
        for (case, why) in &self.left_out {
            text += &format!("left out: {}, {}: {why}\n", case.entry.name, case.change.name());
        }
        text
    }

    pub(super) fn markdown(&self) -> String {
        let options = &self.options;
        let mut text = format!(
            "# Front ends that are restarted, reloaded and upgraded under load\n\n\
             Made by `cargo xtask bench restart`; do not edit.\n\n{}\
             | load | {} queries a second over {} lasting connections, {} clients that connect for each query; {} s, the change \
             after a third |\n\n",
            described(&self.machine),
            options.rate,
            options.connections - options.connections / 10,
            options.connections / 10,
            options.seconds,
        );
        text += &table(&self.cells());
        text += "\n\"Not made\": attempts to connect that failed; a client tries again. \"Longest wait\": from when a query was due to \
                 its answer.\n";
        for (case, why) in &self.left_out {
            text += &format!("\nLeft out: {}, {}: {why}.\n", case.entry.name, case.change.name());
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "front": row.case.entry.name,
                "version": row.version,
                "change": row.case.change.name(),
                "sent": row.tally.sent,
                "lost": row.unanswered(),
                "handshakes": row.tally.handshakes_full + row.tally.handshakes_resumed,
                "connections_not_made": row.refused(),
                "sessions_closed": row.closed(),
                "longest_wait_us": row.tally.latency.max() as f64 / 1e3,
                "change_ms": row.change.as_secs_f64() * 1e3,
                "errors": row.tally.errors,
            })
        });
        json!({
            "seconds": self.options.seconds,
            "rate": self.options.rate,
            "connections": self.options.connections,
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}
