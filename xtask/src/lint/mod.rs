//! `cargo xtask lint`: checks format, clippy, documentation and dependencies; every warning is an error.
//!
//! Before: a tree that compiles. After: CI finds nothing to complain about in the form.
//! Holds: the two passes. Host crates and the BPF crate are never linted together: one pass would unify
//! their features and pull std into the BPF build.
//! Never: changes a file (`cargo fmt` does).

mod kernel;

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{command, setup};

/// Arguments of `cargo xtask lint`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
WHAT IT RUNS:
    format    cargo fmt --all --check
    clippy    host crates with all targets, warnings are errors
    kernel    the same for dot-ebpf with its own toolchain (rustc's warnings where that has no clippy)
    doc       cargo doc with private items, warnings are errors
    deny      cargo deny check bans licenses sources, where cargo-deny is installed

EXAMPLES:
    cargo xtask lint                 all of it; every step runs, also after one that found something
    cargo xtask lint format kernel   only these

EXIT STATUS:
    0 when nothing was found, 1 when something was, 2 for a mistake in the command line.")]
pub(crate) struct Lint {
    /// Only these steps
    #[arg(value_enum)]
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    Format,
    Clippy,
    Kernel,
    Doc,
    Deny,
}

const ALL: [Step; 5] = [Step::Format, Step::Clippy, Step::Kernel, Step::Doc, Step::Deny];

/// Runs the steps, all of them, and fails if one of them found something.
///
/// # Errors
/// At least one step found something or could not run.
pub(crate) fn run(root: &Path, arguments: &Lint) -> Result<()> {
    setup::ensure(setup::Wants::default())?;
    let mut failed = Vec::new();
    for step in ALL {
        if !arguments.steps.is_empty() && !arguments.steps.contains(&step) {
            continue;
        }
        let result = match step {
            Step::Format => command::run(command::cargo(root).args(["fmt", "--all", "--check"])),
            Step::Clippy => clippy(root),
            Step::Kernel => kernel::lint(root),
            Step::Doc => doc(root),
            Step::Deny => deny(root),
        };
        if let Err(error) = result {
            failed.push(format!("{error:#}"));
        }
    }
    if failed.is_empty() {
        println!("lint: nothing found");
        return Ok(());
    }
    bail!("lint: {}", failed.join("; "))
}

fn clippy(root: &Path) -> Result<()> {
    let mut clippy = command::cargo(root);
    clippy.args([
        "clippy",
        "--keep-going",
        "--workspace",
        "--exclude",
        "dot-ebpf",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    command::run(&mut clippy)
}

fn doc(root: &Path) -> Result<()> {
    let mut doc = command::cargo(root);
    doc.args(["doc", "--workspace", "--exclude", "dot-ebpf", "--no-deps", "--document-private-items"]);
    // Private items are documented in the same run, so links to them work.
    command::run(doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"))
}

fn deny(root: &Path) -> Result<()> {
    if !setup::is_command("cargo-deny") {
        println!("SKIPPED lint deny: cargo-deny is not installed (cargo install cargo-deny --locked)");
        return Ok(());
    }
    // Advisories come from the network and change independently of this tree, so they are not checked here.
    let mut deny = Command::new("cargo-deny");
    command::run(deny.current_dir(root).args(["--workspace", "check", "bans", "licenses", "sources"]))
}
