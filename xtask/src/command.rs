//! Runs programs: shows the command line, and checks the exit status.
//!
//! Before: a verb built a `Command`. After: it ran, or an error names the line and how it ended.
//! Never: hides output, or starts a shell by itself.

use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Shows the command line, runs it to its end, and asks for success.
///
/// # Errors
/// The program did not start, or failed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("+ {}", line(command));
    run_quietly(command)
}

/// Runs a program to its end and requires success; prints nothing itself.
///
/// # Errors
/// It did not start, or ended otherwise.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

/// Runs to its end and returns what it prints.
///
/// # Errors
/// It did not start, ended otherwise than well, or prints no UTF-8.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{} ended with {}", line(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} prints no UTF-8"))
}

/// Runs to the end.
///
/// # Errors
/// It did not start.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))
}

/// cargo by its name: rustup's choice of toolchain is in the environment.
pub(crate) fn cargo(root: &std::path::Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // `cargo run` sets variables about xtask; a build script that depends on these would run again.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(describes_xtask) {
            command.env_remove(name);
        }
    }
    command.current_dir(root);
    command
}

/// Removes what the outer cargo set, so that another toolchain can be used.
pub(crate) fn without_cargo(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let is_ours = name.to_str().is_some_and(|name| {
            describes_xtask(name) || matches!(name, "CARGO" | "RUSTUP_TOOLCHAIN" | "RUSTC" | "RUSTFLAGS")
        });
        if is_ours {
            command.env_remove(name);
        }
    }
    command
}

fn describes_xtask(name: &str) -> bool {
    const PREFIXES: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || name == "LD_LIBRARY_PATH"
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
