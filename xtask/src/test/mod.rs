//! `cargo xtask test`: every test of the workspace, and at the end what was skipped and why.
//!
//! Before: a clone. After: a last line with three numbers that can be trusted: a test that was skipped
//! counts as skipped, though the test runner calls it passed.
//! Never: passes when nothing ran.

mod fresh;
mod tally;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
};

use anyhow::{Context, Result, bail};

use crate::{build, command, setup};
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
    cargo xtask test --no-setup framing    only tests whose name holds `framing`, and install nothing
    cargo xtask test --fresh               everything, on a machine that nobody prepared
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
    /// Only tests whose names hold one of these
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
    // The tests start the real binary, which `cargo test` alone need not have built.
    command::run(command::cargo(root).args(["build", "--bins"]))?;
    let skipped_file = build::target(root).join("skipped-tests");
    // Left by an earlier run, or not there.
    let _ = std::fs::remove_file(&skipped_file);
    let mut tally = Tally::default();
    let is_success = run_tests(root, arguments, &skipped_file, &mut tally)?;
    for line in std::fs::read_to_string(&skipped_file).unwrap_or_default().lines() {
        tally.skipped_line(line);
    }
    print!("{}", tally.summary());
    if tally.is_empty() {
        bail!("no test ran{}", if arguments.filters.is_empty() { "" } else { ": no name holds the filter" });
    }
    if !is_success || tally.failed() > 0 {
        bail!("tests failed");
    }
    Ok(())
}

/// Runs cargo test, shows its output without that of tests that passed, and counts.
fn run_tests(root: &Path, arguments: &Test, skipped_file: &Path, tally: &mut Tally) -> Result<bool> {
    let mut cargo = command::cargo(root);
    cargo.args(["test", "--no-fail-fast", "--", "--show-output"]).args(&arguments.filters);
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
