//! `cargo xtask bench micro` and `bench --check`: instructions and nanoseconds of each step of a query.
//!
//! Before: valgrind and gungraun-runner, which setup brings. After: micro.md and micro.json in benches/report, or with
//! `--check` a verdict on what is committed there. Never: judges nanoseconds: instructions are the same on a busy
//! machine, time is not.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{build, command, setup};

/// An increase by more than this part of the committed instructions fails the check.
const TOLERANCE: f64 = 0.05;
const JSON: &str = "benches/report/micro.json";
const MARKDOWN: &str = "benches/report/micro.md";

/// Arguments of `cargo xtask bench micro`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES:
    cargo xtask bench micro                 both, and the report
    cargo xtask bench micro --no-time       instructions alone: the same on a busy machine
    cargo xtask bench --check               compares instructions with the report, changes nothing

EXIT STATUS:
    0 when measured, 1 when not.")]
pub(super) struct Micro {
    /// Do not measure time; the report keeps the nanoseconds it has
    #[arg(long)]
    no_time: bool,
}

/// Figures by step.
type Figures = BTreeMap<String, f64>;

/// Measures and writes the report.
pub(super) fn run(root: &Path, arguments: &Micro) -> Result<()> {
    let before = committed(root).unwrap_or_default();
    let instructions = count(root)?;
    let kept = before.iter().filter_map(|(name, step)| Some((name.clone(), step.1?))).collect();
    let nanoseconds = if arguments.no_time { kept } else { time(root)? };
    let steps: BTreeMap<&String, Value> = instructions
        .iter()
        .map(|(name, count)| (name, json!({"instructions": count, "nanoseconds": nanoseconds.get(name)})))
        .collect();
    let rows = rows(&before, &instructions, &nanoseconds);
    print!("{rows}");
    let markdown = format!(
        "# What each step of a query costs\n\n\
         Made by `cargo xtask bench micro`; do not edit. Instructions of one run under callgrind, nanoseconds the median of \
         many on a machine that may do other work. `framing_100`, `rate_100` and `stage_100` do their step a hundred times. *before*: what \
         the report held until then.\n\n{rows}"
    );
    write(&root.join(JSON), &format!("{:#}\n", json!(steps)))?;
    write(&root.join(MARKDOWN), &markdown)
}

/// Compares instructions with the report.
///
/// # Errors
/// A step takes more than allowed, is not in the report, or is gone.
pub(super) fn check(root: &Path) -> Result<()> {
    let before = committed(root)?;
    let instructions = count(root)?;
    print!("{}", rows(&before, &instructions, &BTreeMap::new()));
    let complaints = complaints(&before, &instructions);
    if complaints.is_empty() {
        println!("bench: no step takes over {:.0} % more than committed", TOLERANCE * 100.0);
        return Ok(());
    }
    bail!(
        "{}; if that is meant, `cargo xtask bench micro` writes a new {JSON} to commit",
        complaints.join("; ")
    )
}

/// The complaints; none means success.
fn complaints(before: &BTreeMap<String, (f64, Option<f64>)>, now: &Figures) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, count) in now {
        match before.get(name) {
            None => complaints.push(format!("{name} is not in {JSON}")),
            Some((then, _)) if *count > then * (1.0 + TOLERANCE) => complaints.push(format!(
                "{name} takes {count} instructions, {:+.1} % on {then}",
                (count / then - 1.0) * 100.0
            )),
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    complaints.extend(gone.map(|name| format!("{name} is in {JSON} and was not counted")));
    complaints
}

/// Instructions and, where it has them, nanoseconds of the committed report.
fn committed(root: &Path) -> Result<BTreeMap<String, (f64, Option<f64>)>> {
    let path = root.join(JSON);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("no {}: `cargo xtask bench micro` makes it", path.display()))?;
    let value: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    let steps = value.as_object().into_iter().flatten();
    Ok(steps
        .filter_map(|(name, step)| {
            Some((name.clone(), (step["instructions"].as_f64()?, step["nanoseconds"].as_f64())))
        })
        .collect())
}

/// Runs every step under callgrind.
fn count(root: &Path) -> Result<Figures> {
    setup::ensure(setup::Wants { benches: true, ..Default::default() })?;
    let runner = setup::runner_program().filter(|program| program.is_file());
    let runner = runner.context("no gungraun-runner: `cargo xtask setup --benches` builds it")?;
    let home = build::target(root).join("gungraun");
    // Results of an earlier run would be read as results of this one.
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
    }
    let mut cargo = bench(root, "instructions");
    cargo.args(["--", "--save-summary=json"]);
    command::run(cargo.env("GUNGRAUN_RUNNER", runner).env("GUNGRAUN_HOME", &home))?;
    let mut figures = Figures::new();
    for file in summaries(&home) {
        let text = fs::read_to_string(&file)?;
        let (name, count) =
            instructions_of(&text).with_context(|| format!("{} holds no count", file.display()))?;
        figures.insert(name, count);
    }
    if figures.is_empty() {
        bail!("no counts in {}", home.display());
    }
    Ok(figures)
}

fn bench(root: &Path, name: &str) -> Command {
    let mut cargo = command::cargo(root);
    cargo.args(["bench", "--package", "dot-benches", "--bench", name]);
    cargo
}

/// Every summary below a folder.
fn summaries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = entries.flat_map(|entry| {
        let path = entry.path();
        match path.is_dir() {
            true => summaries(&path),
            false if entry.file_name() == "summary.json" => vec![path],
            false => Vec::new(),
        }
    });
    found.collect()
}

/// The name of a step and its instructions, from gungraun's summary.
fn instructions_of(summary: &str) -> Option<(String, f64)> {
    let summary: Value = serde_json::from_str(summary).ok()?;
    let count = find(&summary["profiles"], "Ir")?["values"]["new"].as_f64()?;
    Some((summary["function_name"].as_str()?.to_owned(), count))
}

/// The first value of this key, depth first.
fn find<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|value| find(value, key))),
        Value::Array(values) => values.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

/// Medians of divan's table.
fn time(root: &Path) -> Result<Figures> {
    let mut cargo = bench(root, "time");
    let output = cargo.args(["--", "--color", "never"]).output().context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Figures = text.lines().filter_map(median_of).collect();
    if !output.status.success() || figures.is_empty() {
        bail!("`cargo bench --bench time` failed: {}{text}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(figures)
}

/// `├─ triage   41.2 ns │ 95 ns │ 41.5 ns │ 42 ns │ 100 │ 3200`: name, fastest, slowest, median, …
fn median_of(line: &str) -> Option<(String, f64)> {
    let mut columns = line.trim_start_matches(['├', '╰', '─', ' ']).split('│').map(str::trim);
    let name = columns.next()?.split_whitespace().next()?;
    let (figure, unit) = columns.nth(1)?.split_once(' ')?;
    let factor = match unit {
        "ps" => 1e-3,
        "ns" => 1.0,
        "µs" => 1e3,
        "ms" => 1e6,
        _ => return None,
    };
    Some((name.to_owned(), figure.parse::<f64>().ok()? * factor))
}

/// The table, in Markdown.
fn rows(before: &BTreeMap<String, (f64, Option<f64>)>, now: &Figures, nanoseconds: &Figures) -> String {
    let mut text = "| step | instructions | before | change | ns |\n|---|---|---|---|---|\n".to_owned();
    for (name, count) in now {
        let then = before.get(name).map(|(then, _)| *then);
        let told =
            |figure: Option<f64>, tell: &dyn Fn(f64) -> String| figure.map_or_else(|| "–".into(), tell);
        text += &format!(
            "| {name} | {count} | {} | {} | {} |\n",
            told(then, &|then| then.to_string()),
            told(then, &|then| format!("{:+.1} %", (count / then - 1.0) * 100.0)),
            told(nanoseconds.get(name).copied(), &|ns| format!("{ns:.1}"))
        );
    }
    text
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("bench: {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an increase of more than a twentieth is a complaint, and so is a step on one side alone. Method: one step
    /// just within, one beyond, one new, one gone.
    #[test]
    fn complains_of_regressions() {
        let before = [("a", 1000.0), ("b", 1000.0), ("gone", 1.0)];
        let before = before.map(|(name, count)| (name.to_owned(), (count, None))).into();
        let now = [("a", 1050.0), ("b", 1051.0), ("new", 1.0)];
        let complaints = complaints(&before, &now.map(|(name, count)| (name.to_owned(), count)).into());
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        assert!(complaints[0].starts_with("b takes 1051 instructions, +5.1 %"), "{complaints:?}");
        assert!(complaints[1].starts_with("new is not in") && complaints[2].starts_with("gone is in"));
    }

    /// Goal: divan's medians are read in every unit, and its other lines are ignored. Method: lines as divan prints
    /// them.
    #[test]
    fn reads_divan() {
        let read = |line| median_of(line).map(|(name, ns)| (name, ns.round()));
        assert_eq!(
            read(
                "├─ triage        41.2 ns       │ 95.1 ns       │ 42.4 ns       │ 43 ns         │ 100     │ 3200"
            ),
            Some(("triage".to_owned(), 42.0))
        );
        assert_eq!(
            read(
                "╰─ framing_100   1.2 µs        │ 9.1 µs        │ 1.5 µs        │ 1.6 µs        │ 100     │ 100"
            ),
            Some(("framing_100".to_owned(), 1500.0))
        );
        assert_eq!(
            read(
                "time             fastest       │ slowest       │ median        │ mean          │ samples │ iters"
            ),
            None
        );
        assert_eq!(read("Timer precision: 20 ns"), None);
    }

    /// Goal: the count of this run is taken, not that of an earlier one. Method: summaries with one and with two.
    #[test]
    fn reads_gungraun() {
        let summary = |values: &str| {
            format!(
                r#"{{"function_name":"triage","profiles":[{{"summaries":{{"total":{{"summary":{{"Callgrind":
                {{"Dr":{{"values":{{"new":2}}}},"Ir":{{"values":{values}}}}}}}}}}}}}]}}"#
            )
        };
        let expected = Some(("triage".to_owned(), 812.0));
        assert_eq!(instructions_of(&summary(r#"{"new":812}"#)), expected);
        assert_eq!(instructions_of(&summary(r#"{"new":812,"old":900}"#)), expected);
        assert_eq!(instructions_of("{}"), None);
    }
}
