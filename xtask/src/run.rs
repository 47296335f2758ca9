//! `cargo xtask run`: from a clone to a DNS-over-TLS server that answers, in one command.
//!
//! Before: a clone. After: this process is dotd, which handles Ctrl-C and TERM itself.
//! Holds: the config for a first run, which writes nothing outside `target/run`.
//! Never: changes a config that the user names.

use std::{
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    build::{self, Build},
    command, setup,
};

/// Where an ordinary user's dotd listens: a port that needs no right.
const UNPRIVILEGED_LISTEN: &str = "127.0.0.1:8853";

/// Arguments of `cargo xtask run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
AS ROOT:
    Listens on port 853 of every address, loads the XDP program on the interfaces that carry them
    (native, else generic, else off, and says which), and answers from an embedded zone, dotd.test.

AS AN ORDINARY USER:
    Listens on 127.0.0.1:8853, without XDP; the rest is the same.

    Either way certificate and sockets lie in target/run. With -c FILE that file alone decides.

EXAMPLES:
    cargo xtask run                                  then paste the kdig line that it prints
    sudo -E env PATH=$PATH cargo xtask run           as root, with your own Rust
    cargo xtask run --release -- -c my.toml          your config

EXIT STATUS:
    dotd's own: 0 after TERM or Ctrl-C, 1 when it could not start, 2 for a mistake in the command line.")]
pub(crate) struct Run {
    /// Build and run the optimised dotd
    #[arg(long)]
    release: bool,
    /// Arguments of `dotd run`, after `--`
    #[arg(last = true)]
    dotd: Vec<OsString>,
}

/// Sets up, builds, and executes dotd in place of this process. Returns only when that fails.
///
/// # Errors
/// Setup or the build failed, or dotd did not start.
pub(crate) fn run(root: &Path, arguments: &Run) -> Result<()> {
    let binary = build::run(root, &Build { release: arguments.release, pgo: false })?;
    let mut dotd = Command::new(&binary);
    dotd.arg("run");
    if !names_a_config(&arguments.dotd) {
        let is_root = setup::is_root();
        let config = write_config(&build::target(root).join("run"), is_root)?;
        explain(is_root, &config);
        dotd.arg("-c").arg(config);
    }
    dotd.args(&arguments.dotd);
    let error = command::without_cargo(&mut dotd).exec();
    bail!("cannot start {}: {error}", binary.display())
}

/// Whether the user names a config (`-c x`, `-cx`, `--config x`, `--config=x`)?
fn names_a_config(arguments: &[OsString]) -> bool {
    arguments.iter().any(|argument| {
        let argument = argument.to_string_lossy();
        argument == "--config" || argument.starts_with("--config=") || is_short_config(&argument)
    })
}

fn is_short_config(argument: &str) -> bool {
    argument.starts_with("-c") && !argument.starts_with("--")
}

fn write_config(folder: &Path, is_root: bool) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    let path = folder.join("dotd.toml");
    fs::write(&path, config(&folder, is_root)).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The config for a first run: only keys that must differ from the defaults.
fn config(folder: &Path, is_root: bool) -> String {
    let folder = quoted(&folder.to_string_lossy());
    let mut text = format!(
        "# Written by `cargo xtask run`; your own: cargo xtask run -- -c FILE\n\
         [server]\nstate_dir = {folder}\nrun_dir = {folder}\n"
    );
    if !is_root {
        text += &format!("[listen]\ndot = [\"{UNPRIVILEGED_LISTEN}\"]\n[xdp]\nmode = \"off\"\n");
    }
    text
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn explain(is_root: bool, config: &Path) {
    println!("run: config {}", config.display());
    if !is_root {
        println!("run: you are an ordinary user. Root is needed for port 853 and for the XDP program;");
        println!(
            "run: without it dotd serves DNS over TLS on {UNPRIVILEGED_LISTEN}, filtered by nothing but itself."
        );
        println!("run: all of it: sudo -E env PATH=\"$PATH\" cargo xtask run");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a user's config is never replaced. Method: every form that clap accepts, and other arguments.
    #[test]
    fn sees_a_config_of_the_user() {
        for given in [&["-c", "x"][..], &["-cx"], &["--config", "x"], &["--config=x"]] {
            let arguments: Vec<OsString> = given.iter().map(OsString::from).collect();
            assert!(names_a_config(&arguments), "{given:?}");
        }
        assert!(!names_a_config(&[]));
        assert!(!names_a_config(&["--color".into()]));
    }

    /// Goal: the config for an ordinary user needs no right; both configs stay within their folder. Method: read the
    /// text.
    #[test]
    fn config_keeps_to_its_folder() {
        let folder = Path::new("/tmp/a \"b\"");
        let ordinary = config(folder, false);
        assert!(ordinary.contains("state_dir = \"/tmp/a \\\"b\\\"\""), "{ordinary}");
        assert!(ordinary.contains("127.0.0.1:8853") && ordinary.contains("mode = \"off\""), "{ordinary}");
        assert!(!config(folder, true).contains("[xdp]"));
    }
}
