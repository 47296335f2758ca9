//! Reports a run: lines on the terminal, a Markdown file for people, a JSON file for programs.
//!
//! Before: the results of the run. After: endurance.md, endurance.json. Never: reports changes without the losses beside them.

use serde_json::{Value, json};

use super::{Options, scene::Seen};
use crate::peers::{
    machine::Machine,
    markdown::{described, table},
    text::aligned,
};

/// A run: the machine, the options and the results.
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) options: Options,
    pub(super) seen: Seen,
}

impl Report {
    /// A sentence for each fault of the run. An empty list means that no query was lost and no change failed.
    pub(super) fn faults(&self) -> Vec<String> {
        let (tally, changes) = (&self.seen.outcome.tally, &self.seen.changes);
        let mut faults = changes.complaints.clone();
        let counts = [
            ("queries were not answered as expected", tally.sent - tally.answered),
            ("queries were lost with their connection", tally.lost),
            ("responses answered nothing", tally.unknown_id),
            ("errors of clients", tally.errors.values().sum()),
        ];
        faults
            .extend(counts.iter().filter(|count| count.1 > 0).map(|(what, count)| format!("{count} {what}")));
        faults.extend(tally.errors.iter().map(|(what, count)| format!("{count} × {what}")));
        if self.seen.difference != [0; 3] {
            faults.push(format!("the ledger leaves over {:?}", self.seen.difference));
        }
        if tally.sent == 0 {
            faults.push("no query was sent".to_owned());
        }
        faults
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("\n{}", aligned(&self.cells()));
        for fault in self.faults() {
            text += &format!("FAULT  {fault}\n");
        }
        text
    }

    pub(super) fn markdown(&self) -> String {
        let options = &self.options;
        let mut text = format!(
            "# dotd while everything about it changes\n\n\
             Made by `cargo xtask bench endurance`; do not edit.\n\n{}\
             | load | {} queries a second over 80 lasting connections, 20 clients that connect for each query; {} s |\n\
             | backends | two NSDs over {}, which restart in turn |\n\n",
            described(&self.machine),
            options.rate,
            options.seconds,
            options.transport.name(),
        );
        text += &table(&self.cells());
        for fault in self.faults() {
            text += &format!("\nFault: {fault}.\n");
        }
        text
    }

    fn cells(&self) -> Vec<Vec<String>> {
        let (tally, changes) = (&self.seen.outcome.tally, &self.seen.changes);
        let ms = |quantile| format!("{:.1} ms", tally.latency.value_at_quantile(quantile) as f64 / 1e6);
        let rows = [
            ("queries", tally.sent.to_string()),
            ("not answered as expected", (tally.sent - tally.answered).to_string()),
            ("full handshakes", tally.handshakes_full.to_string()),
            ("resumed handshakes", tally.handshakes_resumed.to_string()),
            ("connections that dotd closed first", tally.closed_by_server.to_string()),
            ("reloads", changes.reloads.to_string()),
            ("reloads of a wrong config, refused", changes.refused_reloads.to_string()),
            ("restarts of a backend", changes.restarts.to_string()),
            ("renewals of the certificate", changes.renewals.to_string()),
            ("bans", changes.bans.to_string()),
            ("latency p50, p99", format!("{}, {}", ms(0.5), ms(0.99))),
            ("latency, longest", ms(1.0)),
            ("ledger leaves over", format!("{:?}", self.seen.difference)),
            (
                "engine's memory, before and after",
                format!("{} and {} KiB", self.seen.resident_kib[0], self.seen.resident_kib[1]),
            ),
            ("XDP", self.seen.xdp.clone()),
        ];
        let head = vec!["what".to_owned(), "seen".to_owned()];
        let rows = rows.into_iter().map(|(what, seen)| vec![what.to_owned(), seen]);
        std::iter::once(head).chain(rows).collect()
    }

    pub(super) fn json(&self) -> Value {
        let (tally, changes) = (&self.seen.outcome.tally, &self.seen.changes);
        let us = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1e3;
        json!({
            "seconds": self.options.seconds,
            "rate": self.options.rate,
            "transport": self.options.transport.name(),
            "sent": tally.sent,
            "answered": tally.answered,
            "lost": tally.lost,
            "errors": tally.errors,
            "handshakes_full": tally.handshakes_full,
            "handshakes_resumed": tally.handshakes_resumed,
            "closed_by_server": tally.closed_by_server,
            "reloads": changes.reloads,
            "refused_reloads": changes.refused_reloads,
            "restarts": changes.restarts,
            "renewals": changes.renewals,
            "bans": changes.bans,
            "latency_us": {"p50": us(0.5), "p99": us(0.99), "max": us(1.0)},
            "difference": self.seen.difference.map(|over| over.to_string()),
            "resident_kib": self.seen.resident_kib,
            "xdp": self.seen.xdp,
            "faults": self.faults(),
        })
    }
}
