//! Cost over count: a table, a file for programs, lines.
//!
//! Before: points. After: scale.md, scale.json, scale-connections.svg and scale-cache.svg.
//! Never: draws a line through one point.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Over, steps::Point};
use crate::{
    peers::{
        machine::Machine,
        markdown::{described, table},
        summary::short,
        text::{aligned, none},
    },
    plot::{Series, lines},
};

/// Pictures: of what, file, axis.
const PICTURES: [(Over, &str, &str); 2] = [
    (Over::Connections, "scale-connections.svg", "connections, one query in flight on each"),
    (Over::Cache, "scale-cache.svg", "cached answers"),
];

/// All of it.
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) seconds: u32,
    pub(super) points: Vec<Point>,
    pub(super) left_out: Vec<String>,
}

impl Report {
    pub(super) fn text(&self) -> String {
        format!("\nCPU of the front end for each query, over counts\n{}", aligned(&self.cells()))
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!(
            "# What a query costs when there is more of everything\n\n\
             Made by `cargo xtask bench scale`; do not edit. Compare within this file only.\n\n{}\
             | load | {} s for each row; connections: one query in flight on each; cache: 10 × 100, every name cached; \
             workers: 100 × 10, the load beside them on the second core |\n\n",
            described(&self.machine),
            self.seconds
        );
        text += &table(&self.cells());
        for why in &self.left_out {
            text += &format!("\nLeft out: {why}.\n");
        }
        for (over, file, axis) in PICTURES.iter().filter(|picture| self.is_line(picture.0)) {
            text += &format!("\n![{over:?}: µs for each query over {axis}]({file})\n");
        }
        text
    }

    fn cells(&self) -> Vec<Vec<String>> {
        let head = ["over", "count", "front end", "CPU µs", "× the first", "queries/s", "not answered"];
        let mut cells = vec![head.map(str::to_owned).to_vec()];
        for point in &self.points {
            let first =
                self.points.iter().find(|other| other.over == point.over && other.front == point.front);
            cells.push(vec![
                format!("{:?}", point.over).to_lowercase(),
                point.count.to_string(),
                point.front.to_owned(),
                short(point.cpu_us),
                first.map_or_else(none, |first| short(point.cpu_us / first.cpu_us)),
                format!("{:.0}", point.queries_per_second),
                point.faults.to_string(),
            ]);
        }
        cells
    }

    pub(super) fn json(&self) -> Value {
        let point = |point: &Point| {
            json!({
                "over": format!("{:?}", point.over).to_lowercase(), "count": point.count, "front": point.front,
                "cpu_us": point.cpu_us, "queries_per_second": point.queries_per_second, "faults": point.faults,
            })
        };
        json!({
            "kernel": self.machine.kernel,
            "begun_unix_seconds": self.machine.begun,
            "seconds": self.seconds,
            "points": self.points.iter().map(point).collect::<Vec<Value>>(),
            "left_out": self.left_out,
        })
    }

    /// Has it two counts at least?
    fn is_line(&self, over: Over) -> bool {
        let mut counts = self.points.iter().filter(|point| point.over == over).map(|point| point.count);
        let first = counts.next();
        counts.any(|count| Some(count) != first)
    }

    pub(super) fn draw(&self, folder: &Path) -> Result<()> {
        for (over, file, axis) in PICTURES.iter().filter(|picture| self.is_line(picture.0)) {
            let mut series: Vec<Series> = Vec::new();
            for point in self.points.iter().filter(|point| point.over == *over) {
                let at = (f64::from(point.count), point.cpu_us);
                match series.iter_mut().find(|series| series.label == point.front) {
                    Some(series) => series.points.push(at),
                    None => series.push(Series { label: point.front.to_owned(), points: vec![at] }),
                }
            }
            lines(&folder.join(file), "CPU for each query", axis, "µs", &series)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::machine::Cores;

    /// Goal: each count is set in relation to the first of its kind, and only what is a line is drawn. Method: two
    /// counts of connections, one of workers.
    #[test]
    fn sets_in_relation_to_the_first() {
        let point = |over, count, cpu_us| Point {
            over,
            count,
            front: "dotd",
            cpu_us,
            queries_per_second: 1000.0,
            faults: 0,
        };
        let points = vec![
            point(Over::Connections, 10, 8.0),
            point(Over::Connections, 100, 10.0),
            point(Over::Workers, 1, 5.0),
        ];
        let machine = Machine::look(Cores { front: 0, load: 1 });
        let report = Report { machine, seconds: 1, points, left_out: vec!["dotd: no cache".to_owned()] };
        let folder = tempfile::tempdir().expect("a folder");
        report.draw(folder.path()).expect("drawn");
        let text = report.markdown();
        assert!(text.contains("| connections | 100 | dotd | 10.0 | 1.25 | 1000 | 0 |"), "{text}");
        assert!(text.contains("scale-connections.svg") && !text.contains("scale-cache.svg"), "{text}");
        assert!(folder.path().join("scale-connections.svg").is_file() && text.contains("no cache"));
    }
}
