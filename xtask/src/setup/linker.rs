//! bpf-linker and the library sources: the parts that come from crates.io and rustup instead of apt.
//!
//! Before: `plan` chose the LLVM. After: `bpf_object::find` finds both.
//! Never: changes programs that the user's own cargo has installed, except in way 1, whose linker is the user's.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use crate::command;

/// Version of bpf-linker that works with aya 0.14.
const VERSION: &str = "0.13.0";
/// Its folder under the user's cache; `bpf_object::LINKER_FOLDER` is the `bin` in it.
pub(super) const ROOT: &str = "dotd/bpf-linker-0.13.0-llvm-22";

/// Builds bpf-linker against an LLVM of apt's.
pub(super) fn build(llvm: u32, folder: Option<&Path>) -> Result<()> {
    let prefix = format!("/usr/lib/llvm-{llvm}");
    if !Path::new(&prefix).join("bin/llvm-config").exists() {
        bail!("{prefix}/bin/llvm-config is not there: install llvm-{llvm}-dev first");
    }
    let mut install = Command::new("cargo");
    install.args([
        "install",
        "--quiet",
        "bpf-linker",
        "--version",
        VERSION,
        "--locked",
        "--no-default-features",
    ]);
    install.args(["--features", &format!("llvm-{llvm}")]);
    if let Some(folder) = folder {
        install.arg("--root").arg(folder);
    }
    // In the cache folder, not here: the workspace's settings must not apply to a foreign program.
    install.current_dir(std::env::temp_dir()).env("LLVM_PREFIX", prefix);
    command::run(command::without_cargo(&mut install))
}

/// Adds rust-src to nightly, and a nightly if there is none.
pub(super) fn add_rust_sources(has_nightly: bool) -> Result<()> {
    let mut rustup = Command::new("rustup");
    if has_nightly {
        rustup.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
    } else {
        rustup.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
    }
    command::run(command::without_cargo(&mut rustup))
}
