//! `cargo xtask build` and `cargo xtask build-ebpf`: dotd, and its kernel half alone.
//!
//! Before: a clone. After: `target/<profile>/dotd`, or `target/bpf/…/dot-ebpf` for inspection.
//! Never: runs the program that it builds, except to make a profile.

mod pgo;
pub(crate) mod release;
pub(crate) mod sysroot;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{bpf_object, command, setup};

/// Arguments of `cargo xtask build`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES:
    cargo xtask build                  target/debug/dotd, quick to build
    cargo xtask build --release        target/release/dotd, for production and for measuring
    cargo xtask build --pgo            target/pgo/dotd, the same with a profile: twice the time, and it
                                       serves `bench peers` on loopback for a minute (needs NSD)

    The kernel half is compiled and embedded on the way: dotd is one file. Names of folders are left out of
    a release build, so that it is the same wherever it is made; RUSTFLAGS and CFLAGS are kept.

EXIT STATUS:
    0 when built, 1 when not, 2 for a mistake in the command line.")]
pub(crate) struct Build {
    /// Optimise: link-time optimisation over everything, minutes instead of seconds
    #[arg(long)]
    pub(crate) release: bool,
    /// Optimise with a profile of dotd under load: build, load, build again
    #[arg(long, conflicts_with = "release")]
    pub(crate) pgo: bool,
}

/// Arguments of `cargo xtask build-ebpf`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES:
    cargo xtask build-ebpf                           the object that dotd embeds, with debug sections
    cargo xtask build-ebpf --features debug-log      with packet logs through aya-log
    llvm-objdump -S target/bpf/bpfel-unknown-none/release/dot-ebpf

EXIT STATUS:
    0 when built, 1 when not, 2 for a mistake in the command line.")]
pub(crate) struct BuildEbpf {
    /// Features of dot-ebpf, separated by commas
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
}

/// Sets up what is missing, builds dotd, and returns its path.
///
/// # Errors
/// Setup or the build failed.
pub(crate) fn run(root: &Path, arguments: &Build) -> Result<PathBuf> {
    let binary = if arguments.pgo { pgo::run(root)? } else { compile(root, arguments.release)? };
    let octets =
        std::fs::metadata(&binary).with_context(|| format!("{} is not there", binary.display()))?.len();
    println!("build: {} ({octets} octets)", binary.display());
    Ok(binary)
}

fn compile(root: &Path, is_release: bool) -> Result<PathBuf> {
    if is_release {
        return release::dotd(root, &target(root), release::Library::Machines);
    }
    setup::ensure(setup::Wants::default())?;
    let mut cargo = command::cargo(root);
    command::run(cargo.args(["build", "--package", "dot-userspace", "--bin", "dotd"]))?;
    Ok(target(root).join("debug/dotd"))
}

/// Sets up what is missing and builds the kernel half alone.
///
/// # Errors
/// Setup or the build failed.
pub(crate) fn run_ebpf(root: &Path, arguments: &BuildEbpf) -> Result<()> {
    setup::ensure(setup::Wants::default())?;
    let toolchain = bpf_object::find()?;
    println!("build-ebpf: {}, {}", toolchain.name, toolchain.rustc.display());
    let features: Vec<&str> = arguments.features.iter().map(String::as_str).collect();
    let object = bpf_object::build(root, &toolchain, &features)?;
    let octets = std::fs::metadata(&object)?.len();
    println!("build-ebpf: {} ({octets} octets with debug sections)", object.display());
    Ok(())
}

/// Cargo's target folder.
pub(crate) fn target(root: &Path) -> PathBuf {
    // A relative path is relative to the folder in which cargo was called, and cargo runs xtask there.
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
