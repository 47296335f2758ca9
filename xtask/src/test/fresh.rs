//! `cargo xtask test --fresh`: the same command on a new machine.
//!
//! Before: root, debootstrap, rustup's cargo. After: the closing line is that of a new Debian 12 with a clone of HEAD.
//! Holds: what the new machine gets from this one: kernel, network, names, authorities, the Rust toolchain read-only.
//! Never: uses this machine's target folder, packages or mounts; leaves the new root behind.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{build, command, setup};

/// Makes the machine, runs the test command there, and removes the machine.
const SCRIPT: &str = include_str!("fresh.sh");

/// The name of a new root, with the process that made it.
const PREFIX: &str = "fresh-";

/// Runs `cargo xtask test` with these filters in a fresh Debian.
///
/// # Errors
/// The user is not root, the machine could not be made, or the tests failed there.
pub(super) fn run(root: &Path, filters: &[String]) -> Result<()> {
    if !setup::is_root() {
        bail!("--fresh makes a Debian in a folder and namespaces for it: run it as root");
    }
    setup::ensure(setup::Wants { fresh: true, ..Default::default() })?;
    let home = |name: &str, folder: &str| {
        let user = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(folder));
        std::env::var_os(name).map(PathBuf::from).or_else(user).filter(|path| path.is_dir())
    };
    let rustup = home("RUSTUP_HOME", ".rustup").context("no rustup here (https://rustup.rs)")?;
    let cargo = home("CARGO_HOME", ".cargo").context("no cargo of rustup's here (https://rustup.rs)")?;
    remove_left_behind(&build::target(root));
    let folder = Folder(build::target(root).join(format!("{PREFIX}{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).with_context(|| format!("cannot make {}", folder.0.display()))?;
    let mut namespace = Command::new("unshare");
    namespace.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
    namespace.args(["sh", "-c", SCRIPT, "fresh.sh"]).args([&folder.0, root, &rustup, &cargo]).args(filters);
    println!("fresh: a Debian 12 in {}; the work begins with its packages", folder.0.display());
    let status = command::status(&mut namespace)?;
    if !status.success() {
        bail!("the tests failed on a fresh machine ({status})");
    }
    Ok(())
}

/// Removes the roots of processes that were killed before they could.
fn remove_left_behind(target: &Path) {
    for entry in std::fs::read_dir(target).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_dead = name.strip_prefix(PREFIX).is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if is_dead {
            drop(Folder(entry.path()));
        }
    }
}

/// The new root; it is removed when its namespace has ended, so that nothing is mounted there any more.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) =
            command::run_quietly(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&self.0))
        {
            eprintln!("fresh: {} is left: {error:#}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the folder of a killed run is removed, that of a running one stays. Method: a folder of each, and one of
    /// cargo's.
    #[test]
    fn removes_what_a_killed_run_left() {
        let target = std::env::temp_dir().join(format!("xtask-fresh-{}", std::process::id()));
        let folder = |name: &str| target.join(name);
        let ours = format!("{PREFIX}{}", std::process::id());
        for name in [&format!("{PREFIX}{}", u32::MAX), &ours, "debug"] {
            std::fs::create_dir_all(folder(name).join("inside")).expect("a folder for the test");
        }
        remove_left_behind(&target);
        let mut left: Vec<_> = std::fs::read_dir(&target)
            .expect("still there")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        std::fs::remove_dir_all(&target).expect("our own");
        assert_eq!(left, ["debug", &ours]);
    }
}
