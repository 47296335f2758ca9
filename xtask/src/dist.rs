//! `cargo xtask dist`: packages of this commit, in target/dist.
//!
//! Before: a clone. After: .deb, .rpm, tarball, OCI image, SBOM and checksums, by the package dot-dist.
//! Holds: the time of every file in them, which is that of the commit.
//! Never: installs or signs a package.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{
    build::{self, Build},
    command, setup,
};

/// Arguments of `cargo xtask dist`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
WHAT IT MAKES, in target/dist:
    dotd_VERSION-REVISION_amd64.deb     for Debian and Ubuntu: apt install ./FILE
    dotd-VERSION-REVISION.x86_64.rpm    for Fedora and RHEL: dnf install ./FILE
    dotd-VERSION-x86_64-linux.tar.gz    the same files: tar -xf FILE --strip-components=1 -C /
    dotd-VERSION-x86_64-linux.oci.tar   an OCI image layout: podman load -i FILE
    dotd-VERSION.cdx.json               the crates in it, their licences and checksums (CycloneDX)
    SHA256SUMS

    The same program and the same commit give the same packages: every file has the commit's time, or
    that of SOURCE_DATE_EPOCH. Packages ask for the glibc of the machine that built the program, or a newer one.

EXAMPLES:
    cargo xtask dist                                  build --release, and pack
    cargo xtask dist --bin target/pgo/dotd            pack a program that is there
    cargo xtask dist --bin target/debug/dotd --revision 2

EXIT STATUS:
    0 when packed, 1 when not, 2 for a mistake in the command line.")]
pub(crate) struct Dist {
    /// Pack this program instead of building one
    #[arg(long, value_name = "PATH")]
    bin: Option<PathBuf>,
    /// Revision of the packages of this version
    #[arg(long, default_value_t = 1)]
    revision: u32,
    /// Where the packages go [default: target/dist]
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

/// Builds and packs.
///
/// # Errors
/// A step failed.
pub(crate) fn run(root: &Path, arguments: &Dist) -> Result<()> {
    let bin = match &arguments.bin {
        Some(bin) => bin.clone(),
        None => build::run(root, &Build { release: true, pgo: false })?,
    };
    let into = arguments.into.clone().unwrap_or_else(|| build::target(root).join("dist"));
    pack(root, &bin, &into, arguments.revision)
}

/// Packs an existing program.
///
/// # Errors
/// A tool or a file is missing.
pub(crate) fn pack(root: &Path, bin: &Path, into: &Path, revision: u32) -> Result<()> {
    for program in ["strip", "ldd"] {
        if !setup::is_command(program) {
            bail!("{program} is missing: install binutils and libc-bin");
        }
    }
    let here = std::env::current_dir().context("no working directory")?;
    let mut cargo = command::cargo(root);
    cargo.args(["run", "--quiet", "--package", "dot-dist", "--", "--root"]).arg(root);
    cargo.arg("--bin").arg(here.join(bin)).arg("--into").arg(here.join(into));
    cargo.args(["--epoch", &epoch(root)?, "--revision", &revision.to_string()]);
    command::run(&mut cargo)
}

/// SOURCE_DATE_EPOCH, or the time of the commit.
fn epoch(root: &Path) -> Result<String> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(epoch);
    }
    let mut git = std::process::Command::new("git");
    let time = command::output(git.args(["log", "-1", "--format=%ct"]).current_dir(root));
    Ok(time.context("set SOURCE_DATE_EPOCH where there is no git")?.trim().to_owned())
}
