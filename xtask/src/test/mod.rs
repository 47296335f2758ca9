//! `cargo xtask test`: every test of the workspace, and at the end what was skipped and why.
//!
//! Before: a clone. After: a line with three numbers that can be trusted (a test that was skipped counts as skipped, though
//! the test runner calls it passed), how long it took, and which tests took longest.
//! Never: passes when nothing ran.

mod fresh;
mod index;
mod select;
mod tally;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{build, command, setup};
use select::Selection;
use tally::Tally;

/// Tests print and append `SKIPPED <name>: <why>` to the file that this names.
const SKIPPED_FILE: &str = "DOTD_SKIPPED_FILE";
/// Tests with networks and servers of their own: more at once than this only wait for each other.
const THREADS_MAX: usize = 4;

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
    As root every test runs. As an ordinary user those that need network namespaces, BPF or ports
    below 1024 are skipped, and listed at the end. Output of a test is shown when it fails.

EXAMPLES:
    cargo xtask test                       set up, then everything
    cargo xtask test C-17                  the tests of a row of docs/standards.md or docs/attacks.md
    cargo xtask test rfc7766               the tests of a module
    cargo xtask test rfc7766::answers_1000_pipelined_queries
    cargo xtask test dot-userspace/src/dns/framing.rs::cuts_what_was_appended
    cargo xtask test --no-setup framing    only tests whose name holds `framing`, and install nothing
    cargo xtask test --fresh               everything, on a machine without preparation
    cargo test -p dot-common               plain cargo works as well

EXIT STATUS:
    0 when every test that ran passed, 1 when one failed or none ran, 2 for a mistake in the command line.")]
pub(crate) struct Test {
    /// Install nothing; tests whose tools are missing are skipped
    #[arg(long)]
    no_setup: bool,
    /// Run in a Debian 12 that debootstrap makes, from a clone of HEAD: what a newcomer meets (root; an hour)
    #[arg(long, conflicts_with = "no_setup")]
    fresh: bool,
    /// Only these: a row (C-17), a file, FILE::NAME, a module, or a part of a name
    filters: Vec<String>,
}

/// Sets up, runs the tests, prints what was skipped and the closing line.
///
/// # Errors
/// Setup or the build failed, a test failed, or none ran.
pub(crate) fn run(root: &Path, arguments: &Test) -> Result<()> {
    if arguments.fresh {
        return fresh::run(root, &arguments.filters);
    }
    if !arguments.no_setup {
        setup::ensure(setup::Wants { tests: true, ..Default::default() })?;
    }
    let selection = select::select(root, &arguments.filters)?;
    let calls = calls(&selection);
    let begun = Instant::now();
    build(root, &selection, &calls)?;
    let built = begun.elapsed();
    let skipped_file = build::target(root).join("skipped-tests");
    // Left by an earlier run, or not there.
    let _ = std::fs::remove_file(&skipped_file);
    let mut tally = Tally::default();
    let mut is_success = true;
    for call in &calls {
        is_success &= run_tests(root, call, &skipped_file, &mut tally)?;
    }
    for line in std::fs::read_to_string(&skipped_file).unwrap_or_default().lines() {
        tally.skipped_line(line);
    }
    print!("{}", tally.summary());
    println!("built in {} s, tests ran for {} s", built.as_secs(), (begun.elapsed() - built).as_secs());
    let wanted: usize = selection.values().map(std::collections::BTreeSet::len).sum();
    if tally.is_empty() {
        bail!("no test ran");
    }
    if wanted > 0 && tally.begun() != wanted {
        bail!(
            "{wanted} tests were selected and {} ran: xtask/src/test/index.rs misreads a name",
            tally.begun()
        );
    }
    if !is_success || tally.failed() > 0 {
        bail!("tests failed");
    }
    Ok(())
}

/// One call of `cargo test`: what it builds, and the names of the tests that it runs (all where there are none).
struct Call {
    targets: Vec<String>,
    names: Vec<String>,
    /// rustdoc takes no options that are not stable.
    is_documentation: bool,
}

/// The calls that run a selection, everything where nothing was selected.
fn calls(selection: &Selection) -> Vec<Call> {
    if selection.is_empty() {
        let all = |targets: &str, is_documentation| Call {
            targets: vec![targets.to_owned()],
            names: Vec::new(),
            is_documentation,
        };
        return vec![all("--tests", false), all("--doc", true)];
    }
    let call =
        |((package, target), names): (&(String, index::Target), &std::collections::BTreeSet<String>)| {
            let mut targets = vec!["--package".to_owned(), package.clone()];
            targets.extend(target.words());
            Call { targets, names: names.iter().cloned().collect(), is_documentation: false }
        };
    selection.iter().map(call).collect()
}

/// Builds what the calls need, so that the time of the tests is theirs.
fn build(root: &Path, selection: &Selection, calls: &[Call]) -> Result<()> {
    // Integration tests start the real binary, which `cargo test` alone need not have built.
    if selection.is_empty() {
        command::run(command::cargo(root).args(["build", "--bins"]))?;
    } else if selection.keys().any(|(_, target)| matches!(target, index::Target::Test(_))) {
        command::run(command::cargo(root).args(["build", "--package", "dot-userspace", "--bins"]))?;
    }
    // Examples of documentation are built as they run.
    for call in calls.iter().filter(|call| !call.is_documentation) {
        command::run(command::cargo(root).args(["test", "--no-run", "--quiet"]).args(&call.targets))?;
    }
    Ok(())
}

/// Runs cargo test, shows its output without that of tests that passed, and counts.
fn run_tests(root: &Path, call: &Call, skipped_file: &Path, tally: &mut Tally) -> Result<bool> {
    let mut cargo = command::cargo(root);
    cargo.args(["test", "--no-fail-fast"]).args(&call.targets).args(["--", "--show-output"]);
    if !call.is_documentation {
        // The runner says how long each test took if it believes to be of a nightly; only it hears that, for cargo and rustc
        // would build everything again.
        cargo.args(["-Z", "unstable-options", "--report-time"]).env(runner()?, "env RUSTC_BOOTSTRAP=1");
    }
    if !call.names.is_empty() {
        cargo.arg("--exact").args(&call.names);
    }
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        cargo.env("RUST_TEST_THREADS", cores.min(THREADS_MAX).to_string());
    }
    cargo.env(SKIPPED_FILE, skipped_file).stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot start cargo test")?;
    let output = child.stdout.take().context("cargo's output was asked for")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if tally.line(&line) {
            println!("{line}");
        }
    }
    Ok(child.wait()?.success())
}

/// The variable by which cargo is told how to start a program of this machine.
fn runner() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = command::output(Command::new(rustc).arg("-vV"))?;
    let host =
        said.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace(['-', '.'], "_")))
}
