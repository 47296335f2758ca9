//! The second pass: dot-ebpf alone, for the BPF target, by the toolchain that builds it.
//!
//! Before: `bpf_object::find` has a toolchain. After: its clippy, or else rustc, found nothing.
//! Never: lints a host crate.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    bpf_object::{self, TARGET, Toolchain},
    build, command,
};

/// Lints dot-ebpf, with and without its debug feature.
pub(super) fn lint(root: &Path) -> Result<()> {
    let toolchain = bpf_object::find()?;
    let clippy = clippy(&toolchain);
    if clippy.is_none() {
        println!(
            "lint: the {} toolchain has no clippy: warnings of rustc only (Debian: apt-get install rust-web-clippy)",
            toolchain.name
        );
    }
    for features in ["", "debug-log"] {
        let mut lint = match &clippy {
            Some(clippy) => {
                let mut lint = Command::new(clippy);
                lint.arg("clippy");
                lint
            }
            None => {
                let mut lint = Command::new(&toolchain.cargo);
                lint.arg("rustc");
                lint
            }
        };
        lint.args(["--release", "--package", "dot-ebpf", "--target", TARGET, "-Z", "build-std=core"]);
        lint.args(["--features", features, "--target-dir"]).arg(build::target(root).join("bpf"));
        lint.args(["--", "-D", "warnings"]).current_dir(root);
        command::run(environment(&mut lint, &toolchain)?)?;
    }
    Ok(())
}

/// Chooses the toolchain by name, whatever the outer cargo was told.
fn environment<'a>(lint: &'a mut Command, toolchain: &Toolchain) -> Result<&'a mut Command> {
    let folder = toolchain.cargo.parent().context("cargo lies in a folder")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&path)))?;
    let arch = std::env::consts::ARCH;
    Ok(command::without_cargo(lint)
        .env("PATH", path)
        .env("CARGO", &toolchain.cargo)
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
        .env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{arch}\"")))
}

/// The clippy beside this cargo: another cargo's would use another compiler.
fn clippy(toolchain: &Toolchain) -> Option<PathBuf> {
    let clippy = toolchain.cargo.with_file_name("cargo-clippy");
    clippy.is_file().then_some(clippy)
}
