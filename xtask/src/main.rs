//! The project's own tool: one verb sets up a machine, one builds, one runs, one tests, two check.
//!
//! Before: a clone, and a Rust toolchain. After: everything README.md promises. Each verb has one file.
//! Never: depends on another crate of the workspace, so that it builds when they do not.

// dot-userspace/build.rs includes the same file: what is public there is private here.
#[allow(unreachable_pub)]
mod bpf_object;
mod command;
mod setup;
mod tidy;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Everything a developer or a first-time user of dotd does, one verb each.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what this project needs and the machine lacks; says so first
    Setup(setup::Setup),
    /// Check the rules of the house that rustc and clippy do not know
    Tidy(tidy::Tidy),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match top().and_then(|root| run(&root, arguments.verb)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(root: &Path, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Setup(arguments) => setup::run(&arguments)?,
        Verb::Tidy(arguments) => tidy::run(root, &arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The top of the repository: the folder above this crate's.
fn top() -> Result<PathBuf> {
    let manifest =
        std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    Path::new(&manifest).parent().map(Path::to_path_buf).context("xtask lies in a folder of the workspace")
}
