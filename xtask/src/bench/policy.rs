//! `cargo xtask bench policy`: a policy zone of a million rules in dotd, Unbound and BIND.
//!
//! Before: nothing. After: `dotbench policy` runs in place of this program. Never: returns but with an error.

use std::path::Path;

use anyhow::Result;

use super::{become_program, dotbench, install};

/// Arguments of `cargo xtask bench policy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES:
    cargo xtask bench policy                        about 2 minutes
    cargo xtask bench policy --only dotd,unbound
    cargo xtask bench policy -- --rules 100000 --seconds 10

EXIT STATUS:
    0 when dotd answered every query and its million rules took at most 120 MB and 5 s of CPU, 1 when not,
    130 after Ctrl-C, 2 for a mistake in the command line.")]
pub(super) struct Policy {
    /// Only these programs (dotd, unbound, named)
    #[arg(long, value_name = "NAME,…")]
    only: Option<String>,
    /// Options of the program, after `--`; `-- --help` lists them
    #[arg(last = true)]
    more: Vec<String>,
}

/// Installs and builds what is missing, and becomes the program that measures.
pub(super) fn run(root: &Path, arguments: &Policy) -> Result<()> {
    install()?;
    let mut command = dotbench(root, "policy")?;
    command.args(arguments.only.iter().flat_map(|only| ["--only", only]));
    become_program(command.args(&arguments.more))
}
