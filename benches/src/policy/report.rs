//! Reports the costs of a policy zone in each program: a table on the terminal, a Markdown file, a JSON file.
//!
//! Before: rows. After: policy.md, policy.json, and whether the goal was met. Never: shows a cost without the queries that failed.

use serde_json::{Value, json};

use super::{
    Options,
    scene::{Figures, Row},
};
use crate::peers::{
    LeftOut,
    machine::Machine,
    markdown::{described, table},
    summary::short,
    text::aligned,
};

/// Most memory of a million rules in dotd, in octets: 120 MB, shared by all workers.
const OCTETS_MAX: f64 = 120e6;
/// Most CPU time for reading them.
const SECONDS_MAX: f64 = 5.0;
/// The goal holds for up to so many rules.
const RULES_OF_GOAL: u32 = 1_000_000;

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
        "policy  {:<8} {:>6.0} MiB  {:>6.2} s CPU  {:>6.2} s",
        row.name,
        mib(row.all.kib),
        row.all.cpu.as_secs_f64(),
        row.all.wall.as_secs_f64()
    );
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

impl Report {
    /// Whether every query was answered, and dotd stayed within memory and time.
    pub(super) fn is_met(&self) -> bool {
        let is_answered = self.rows.iter().all(|row| row.one.faults + row.all.faults == 0);
        let mut ours = self.rows.iter().filter(|row| row.name == "dotd");
        let is_within =
            |row: &Row| row.all.kib as f64 * 1024.0 <= OCTETS_MAX && row.all.cpu.as_secs_f64() <= SECONDS_MAX;
        is_answered && (self.options.rules > RULES_OF_GOAL || ours.all(is_within))
    }

    fn verdict(&self) -> &'static str {
        if self.is_met() { "met" } else { "NOT met" }
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "\nA policy zone of {} rules; in brackets: with one rule\n{}\ngoal: dotd at most {:.0} MB in all and {SECONDS_MAX} s of CPU to \
             load, and every query answered: {}\n",
            self.options.rules,
            aligned(&self.cells()),
            OCTETS_MAX / 1e6,
            self.verdict()
        );
        self.left_out.iter().for_each(|(name, why)| text += &format!("left out: {name} ({why})\n"));
        text
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!(
            "# A response policy zone in dotd, Unbound and BIND\n\n\
             Made by `cargo xtask bench policy`; do not edit. Compare within this file only.\n\n{}\
             | zone | {} rules of the form `host-xxxxxxxx.test CNAME .` |\n\
             | load | 10 connections with 100 queries in flight each, {} s |\n\n\
             One program at a time, one worker on one core. In brackets: the same with a zone of one rule. *memory*: PSS of all its \
             processes once the zone holds. *load*: from its start until the zone's last name gets NXDOMAIN. *hit*: a name of the zone, \
             in an order without a pattern ({}). *miss*: a name without a rule, which Unbound and BIND answer from a zone of \
             their own and dotd from its cache. The goal of dotd: at most {:.0} MB in all, {SECONDS_MAX} s of CPU to load: {}.\n\n{}",
            described(&self.machine),
            self.options.rules,
            self.options.seconds,
            "with one rule: always the same name",
            OCTETS_MAX / 1e6,
            self.verdict(),
            table(&self.cells())
        );
        self.left_out.iter().for_each(|(name, why)| text += &format!("\nLeft out: {name} ({why}).\n"));
        text
    }

    fn cells(&self) -> Vec<Vec<String>> {
        let head = [
            "program",
            "version",
            "memory MiB",
            "load CPU s",
            "load s",
            "hit µs CPU",
            "miss µs CPU",
            "failed",
        ];
        let mut cells = vec![head.map(str::to_owned).to_vec()];
        for row in &self.rows {
            let both =
                |of: &dyn Fn(&Figures) -> f64| format!("{} ({})", short(of(&row.all)), short(of(&row.one)));
            cells.push(vec![
                row.name.to_owned(),
                row.version.clone(),
                both(&|figures| mib(figures.kib)),
                both(&|figures| figures.cpu.as_secs_f64()),
                both(&|figures| figures.wall.as_secs_f64()),
                both(&|figures| figures.hit_us),
                both(&|figures| figures.miss_us),
                (row.one.faults + row.all.faults).to_string(),
            ]);
        }
        cells
    }

    pub(super) fn json(&self) -> Value {
        let figures = |figures: &Figures| {
            json!({
                "pss_kib": figures.kib, "load_cpu_seconds": figures.cpu.as_secs_f64(),
                "load_seconds": figures.wall.as_secs_f64(), "hit_cpu_us": figures.hit_us, "miss_cpu_us": figures.miss_us,
                "faults": figures.faults,
            })
        };
        let row = |row: &Row| json!({"name": row.name, "version": row.version, "one_rule": figures(&row.one), "all_rules": figures(&row.all)});
        json!({
            "kernel": self.machine.kernel,
            "begun_unix_seconds": self.machine.begun,
            "rules": self.options.rules,
            "seconds": self.options.seconds,
            "is_met": self.is_met(),
            "programs": self.rows.iter().map(row).collect::<Vec<Value>>(),
            "left_out": self.left_out.iter().map(|(name, why)| json!({"name": name, "why": why})).collect::<Vec<Value>>(),
        })
    }
}
