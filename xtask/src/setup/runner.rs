//! gungraun-runner: the program that runs a benchmark under valgrind and keeps its counts.
//!
//! Before: cargo. After: `bench micro` finds it in the project's cache folder. Never: installs another version than
//! that of the library in Cargo.toml, which would refuse it.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::command;

/// Version of the library `gungraun`.
pub(super) const VERSION: &str = "0.20.0";

/// Its path, also before it is installed; `None` without a home folder.
pub(crate) fn program() -> Option<PathBuf> {
    folder().map(|folder| folder.join("bin/gungraun-runner"))
}

fn folder() -> Option<PathBuf> {
    super::cache_folder().map(|cache| cache.join(format!("dotd/gungraun-runner-{VERSION}")))
}

/// Builds it.
pub(super) fn build() -> Result<()> {
    let folder = folder().context("no HOME and no XDG_CACHE_HOME: set one")?;
    let mut install = Command::new("cargo");
    install.args(["install", "--quiet", "gungraun-runner", "--version", VERSION, "--locked", "--root"]);
    // In the cache folder, not here: the workspace's settings must not apply to a foreign program.
    install.arg(folder).current_dir(std::env::temp_dir());
    command::run(command::without_cargo(&mut install))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: library and runner have the same version: the runner refuses any other. Method: the workspace's manifest.
    #[test]
    fn is_the_librarys_version() {
        let manifest = include_str!("../../../Cargo.toml");
        assert!(manifest.contains(&format!("gungraun = {{ version = \"={VERSION}\"")), "{VERSION}");
    }
}
