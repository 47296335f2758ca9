//! `dotd config show` and `dotd config diff`: the config in effect, where each value comes from, and what a reload
//! would change.
//!
//! Before: an operator asks. After: TOML that `dotd check` accepts, or a line for each key that differs.
//! Never: changes anything; compares with a file that has mistakes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde_json::json;

use super::{
    arguments::ControlArguments,
    ask,
    error::CliError,
    examples::{CONFIG_DIFF_EXAMPLES, CONFIG_SHOW_EXAMPLES},
    print, socket,
};
use crate::{
    config::{self, Config, Placed, flat},
    control::ConfigStatus,
    start::{families, needed_for},
};

/// What to do with the config.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Print every key of the config in effect, as TOML
    ///
    /// A key that needs a restart is shown with the value in effect. The file may have changed since dotd read it:
    /// see `dotd config diff`.
    #[command(after_help = CONFIG_SHOW_EXAMPLES)]
    Show {
        /// Show after each value where it comes from: file, line and column, or the default
        #[arg(long)]
        source: bool,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Show what a reload with a file would change, and which changes need a restart
    ///
    /// Relative paths in the file mean what they would mean in the place of the file that the running dotd reads.
    #[command(after_help = CONFIG_DIFF_EXAMPLES)]
    Diff {
        /// The file [default: the file that the running dotd would read]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        control: ControlArguments,
    },
}

/// Runs one of the verbs.
pub(super) fn run(verb: ConfigVerb, config: Option<&Path>) -> Result<(), CliError> {
    match verb {
        ConfigVerb::Show { source, control } => {
            let (_, runs) = ask::ask::<ConfigStatus>(&socket(&control, config), "/config")?;
            print(&show(runs, source, control.json))
        }
        ConfigVerb::Diff { file, control } => {
            let (_, runs) = ask::ask::<ConfigStatus>(&socket(&control, config), "/config")?;
            let served = runs.file.as_ref().map(PathBuf::from);
            let file = file.or(served).or(config.map(Path::to_path_buf));
            let mut new = in_its_place(file.as_deref(), runs.file.as_deref())?;
            families::leave_out(&mut new, families::is_here);
            print(&diff(&runs.config, &new, control.json))
        }
    }
}

/// The config of a file, with the paths that it would have in the place of `served`, the file that the running dotd reads: a reload reads
/// no other.
fn in_its_place(file: Option<&Path>, served: Option<&str>) -> Result<Config, CliError> {
    let (Some(read), Some(served)) = (config::read(file)?, served) else { return Ok(config::load(file)?) };
    // Its mistakes have the name that was typed.
    config::parse(&read.text, &read.file)?;
    Ok(config::parse(&read.text, served)?)
}

fn show(runs: ConfigStatus, with_source: bool, is_json: bool) -> String {
    let keys = flat::keys(&runs.config);
    let (file, text) = (runs.file.unwrap_or_default(), runs.text.unwrap_or_default());
    // A key that is absent from the file has no place of its own. Its mistakes get the place of the table around it.
    let placed = Placed::of(runs.config, text, file);
    let source = |key: &flat::Key| {
        if !placed.says(&key.path) {
            return "default".to_owned();
        }
        placed.place(&key.path).trim_end_matches(": ").to_owned()
    };
    if is_json {
        let rows = keys.iter().map(|key| {
            let value = json!({ "key": key.path, "value": key.value });
            let with = |mut value: serde_json::Value| {
                value["source"] = json!(source(key));
                value
            };
            if with_source { with(value) } else { value }
        });
        return format!("{}\n", json!({ "config": placed.config, "keys": rows.collect::<Vec<_>>() }));
    }
    flat::file(&keys, |key| with_source.then(|| source(key)))
}

/// One key that differs.
struct Difference<'a> {
    key: &'a str,
    runs: Option<&'a str>,
    new: Option<&'a str>,
    waits: bool,
}

fn diff(runs: &Config, new: &Config, is_json: bool) -> String {
    let waiting = needed_for(runs, new);
    let (old_keys, new_keys) = (flat::keys(runs), flat::keys(new));
    let mut all: BTreeMap<&str, (Option<&str>, Option<&str>)> = BTreeMap::new();
    for key in &old_keys {
        all.entry(&key.path).or_default().0 = Some(&key.value);
    }
    for key in &new_keys {
        all.entry(&key.path).or_default().1 = Some(&key.value);
    }
    let differ = all
        .into_iter()
        .filter(|(_, (runs, new))| runs != new)
        .map(|(key, (runs, new))| Difference { key, runs, new, waits: waiting.contains(&key) });
    if is_json {
        let rows = differ.map(
            |one| json!({ "key": one.key, "runs": one.runs, "new": one.new, "waits_for_restart": one.waits }),
        );
        return format!("{}\n", json!({ "changes": rows.collect::<Vec<_>>() }));
    }
    let lines: String = differ.map(|one| line(&one)).collect();
    if lines.is_empty() { "no key differs\n".to_owned() } else { lines }
}

fn line(one: &Difference<'_>) -> String {
    let waits = if one.waits { " (needs a restart)" } else { "" };
    let key = one.key;
    match (one.runs, one.new) {
        (Some(runs), Some(new)) => format!("{key}: {runs} -> {new}{waits}\n"),
        (Some(runs), None) => format!("{key}: {runs} is gone{waits}\n"),
        (None, Some(new)) => format!("{key}: {new} is new{waits}\n"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each key that a reload would change is listed once, and keys that need a restart are marked; equal files
    /// have no differences. Method: a file with keys of both kinds, and one more backend.
    #[test]
    fn what_a_reload_would_change_is_said() {
        let parse = |text: &str| config::parse(text, "/etc/dotd/dotd.toml").unwrap();
        let runs = parse("[[backend]]\naddress = \"127.0.0.1:53\"\n");
        assert_eq!(diff(&runs, &runs, false), "no key differs\n");
        let new = parse(
            "[server]\nworkers = 3\n[session]\nidle_timeout = \"7s\"\n[[backend]]\naddress = \"127.0.0.1:53\"\n\
             [[backend]]\naddress = \"127.0.0.1:54\"\n",
        );
        let text = diff(&runs, &new, false);
        assert!(text.contains("server.workers: \"auto\" -> 3 (needs a restart)\n"), "{text}");
        assert!(text.contains("session.idle_timeout: \"30s\" -> \"7s\"\n"), "{text}");
        assert!(text.contains("backend.1.address: \"127.0.0.1:54\" is new\n"), "{text}");
        assert!(diff(&new, &runs, false).contains("backend.1.address: \"127.0.0.1:54\" is gone\n"));
        let rows: serde_json::Value = serde_json::from_str(&diff(&runs, &new, true)).unwrap();
        assert!(rows["changes"].as_array().is_some_and(|rows| rows.len() > 3), "{rows}");
    }

    /// Goal: a file is compared as if it stood where the running dotd reads its own, whatever path it is named by. Method: a relative path
    /// in a file of another folder; a mistake.
    #[test]
    fn a_file_is_read_in_its_place() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("new.toml");
        let text = "[server]\nstate_dir = \"state\"\n";
        std::fs::write(&file, text).unwrap();
        let runs = config::parse(text, "/etc/dotd/dotd.toml").unwrap();
        let new = in_its_place(Some(&file), Some("/etc/dotd/dotd.toml")).unwrap();
        assert_eq!(diff(&runs, &new, false), "no key differs\n");
        std::fs::write(&file, "[server]\nnonsense = 1\n").unwrap();
        let said = in_its_place(Some(&file), Some("/etc/dotd/dotd.toml")).unwrap_err().to_string();
        assert!(said.contains("new.toml:2:1"), "{said}");
    }
}
