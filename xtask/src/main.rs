//! The project's own tool: one verb sets up a machine, one builds, one runs, one tests, one measures,
//! two check.
//!
//! Before: a clone, and a Rust toolchain. After: everything README.md promises. Each verb has one file.
//! Never: depends on another crate of the workspace, so that it builds when they do not.

mod bench;
// dot-userspace/build.rs includes the same file, so items that are public there are unused here.
#[allow(unreachable_pub)]
mod bpf_object;
mod build;
mod command;
mod dist;
mod fuzz;
mod install;
mod kernels;
mod lint;
mod run;
mod setup;
mod test;
mod tidy;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Everything that a developer or a first-time user of dotd does, one verb each.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, arg_required_else_help = true)]
#[command(after_help = "\
EXAMPLES:
    cargo xtask run         from a clone to a DNS-over-TLS server that answers
    cargo xtask test        from a clone to every test passed
    cargo xtask lint && cargo xtask tidy      before a commit

    `cargo xtask <verb> --help` has more examples. Each verb installs what it lacks and says so.

EXIT STATUS:
    0 fine, 1 failed (one line on stderr), 2 a mistake in the command line.")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what this project needs and the machine lacks; says so first
    Setup(setup::Setup),
    /// Build dotd, kernel half and engine in one file
    Build(build::Build),
    /// Build the kernel half alone, for inspection
    BuildEbpf(build::BuildEbpf),
    /// Pack dotd: .deb, .rpm, tarball, OCI image, SBOM, checksums
    Dist(dist::Dist),
    /// Set up, build and start dotd; prints a client's command line to try
    Run(run::Run),
    /// Set up and run every test; lists what was skipped and why
    Test(test::Test),
    /// Boot older kernels under QEMU and run the kernel half's tests there
    TestKernels(kernels::TestKernels),
    /// Boot Debian with systemd under QEMU, and install, use and remove the package there
    TestInstall(install::TestInstall),
    /// Measure dotd: beside its peers, under a flood, at every size, step by step, frame by frame
    Bench(bench::Bench),
    /// Run the fuzz targets under libFuzzer
    Fuzz(fuzz::Fuzz),
    /// Format, clippy, documentation, dependencies: every warning is an error
    Lint(lint::Lint),
    /// Check the project's own rules, which rustc and clippy do not know
    Tidy(tidy::Tidy),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match top().and_then(|root| execute(&root, arguments.verb)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(root: &Path, verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup(arguments) => setup::run(&arguments)?,
        Verb::Build(arguments) => build::run(root, &arguments).map(|_| ())?,
        Verb::BuildEbpf(arguments) => build::run_ebpf(root, &arguments)?,
        Verb::Dist(arguments) => dist::run(root, &arguments)?,
        Verb::Run(arguments) => run::run(root, &arguments)?,
        Verb::Test(arguments) => test::run(root, &arguments)?,
        Verb::TestKernels(arguments) => kernels::run(root, &arguments)?,
        Verb::TestInstall(arguments) => install::run(root, &arguments)?,
        Verb::Bench(arguments) => bench::run(root, &arguments)?,
        Verb::Fuzz(arguments) => fuzz::run(root, &arguments)?,
        Verb::Lint(arguments) => lint::run(root, &arguments)?,
        Verb::Tidy(arguments) => tidy::run(root, &arguments)?,
    }
    Ok(())
}

/// The top of the repository: the folder that contains this crate's.
fn top() -> Result<PathBuf> {
    let manifest =
        std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    Path::new(&manifest).parent().map(Path::to_path_buf).context("xtask lies in a folder of the workspace")
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    /// The arguments behind each `cargo xtask` in a text: up to the end of the code span, the line, or a comment.
    fn command_lines(text: &str) -> Vec<Vec<String>> {
        let found = text.lines().flat_map(|line| line.split("cargo xtask ").skip(1));
        let words = |rest: &str| {
            let end = rest
                .find(['`', '#', '&', '|', ')'])
                .unwrap_or(rest.len())
                .min(rest.find("  ").unwrap_or(rest.len()));
            rest[..end].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        found.map(words).filter(|words| !words.iter().any(|word| word.starts_with('<'))).collect()
    }

    /// Goal: every command line in help and pages works. Method: every command line of xtask in them is parsed; in help
    /// those among the examples.
    #[test]
    fn examples_parse() {
        fn help(command: &mut clap::Command) -> String {
            let own = command.render_long_help().to_string();
            let own = own.split_once("EXAMPLES").map(|(_, examples)| examples.to_owned()).unwrap_or_default();
            command.get_subcommands_mut().map(help).fold(own, |text, more| text + &more)
        }
        let mut texts = vec![help(&mut Arguments::command())];
        for folder in [".", "docs", "docs/guide", "docs/internals", "examples"] {
            let entries = std::fs::read_dir(top().unwrap().join(folder)).unwrap();
            let pages = entries
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|end| end == "md"));
            texts.extend(pages.map(|page| std::fs::read_to_string(page).unwrap()));
        }
        let lines: Vec<_> = texts.iter().flat_map(|text| command_lines(text)).collect();
        assert!(lines.len() > 60, "{} examples", lines.len());
        for line in lines {
            let words = std::iter::once("cargo xtask").chain(line.iter().map(String::as_str));
            let kind = Arguments::try_parse_from(words).err().map(|error| error.kind());
            assert!(matches!(kind, None | Some(ErrorKind::DisplayHelp)), "{line:?}: {kind:?}");
        }
    }
}
