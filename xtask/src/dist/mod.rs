//! `cargo xtask dist`: packages of this commit, in target/dist.
//!
//! Before: a clone. After: .deb, .rpm, tarball, OCI image, SBOM and checksums, by the package dot-dist.
//! Holds: the time of every file in them, which is that of the commit.
//! Never: installs or signs a package.

mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{
    build::{
        self,
        release::{self, Library},
        sysroot,
    },
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

    The same commit gives the same packages, in whatever folder they are made: every file has the commit's
    time, or that of SOURCE_DATE_EPOCH. --verify shows it. The program is linked with glibc 2.31, which is fetched
    from Debian 11 once, and runs with every later one: Debian 11, Ubuntu 20.04, RHEL 9 and newer.
    It has the list of its crates inside: cargo audit bin /usr/bin/dotd.

EXAMPLES:
    cargo xtask dist                                  build --release, and pack
    cargo xtask dist --bin target/pgo/dotd            pack a program that is there
    cargo xtask dist --bin target/debug/dotd --revision 2
    cargo xtask dist --this-glibc                     link with this machine's glibc
    cargo xtask dist --verify                         build and pack HEAD in two folders, and compare

EXIT STATUS:
    0 when packed, 1 when not or when --verify sees a difference, 2 for a mistake in the command line.")]
pub(crate) struct Dist {
    /// Pack this program instead of building one
    #[arg(long, value_name = "PATH")]
    bin: Option<PathBuf>,
    /// Link with the glibc of this machine instead of 2.31
    #[arg(long, conflicts_with = "bin")]
    this_glibc: bool,
    /// Build and pack the commit HEAD twice, in two folders, and compare
    #[arg(long, conflicts_with = "bin")]
    verify: bool,
    /// Revision of the packages of this version
    #[arg(long, default_value_t = 1)]
    revision: u32,
    /// Where the packages go [default: target/dist]
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

impl Dist {
    fn library(&self) -> Library {
        if self.this_glibc { Library::Machines } else { Library::Old }
    }
}

/// A program to pack.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) bin: PathBuf,
    /// The newest glibc that it may ask for.
    pub(crate) glibc_max: Option<&'static str>,
}

/// Builds and packs.
///
/// # Errors
/// A step failed.
pub(crate) fn run(root: &Path, arguments: &Dist) -> Result<()> {
    if arguments.verify {
        return verify::run(root, arguments);
    }
    let target = build::target(root);
    let program = match &arguments.bin {
        Some(bin) => Program { bin: bin.clone(), glibc_max: None },
        None => make(root, &target.join("for-packages"), arguments.library())?,
    };
    let into = arguments.into.clone().unwrap_or_else(|| target.join("dist"));
    pack(root, root, &program, &into, arguments.revision)
}

/// Builds the program of a checkout.
fn make(checkout: &Path, target: &Path, library: Library) -> Result<Program> {
    let bin = release::dotd(checkout, target, library)?;
    Ok(Program { bin, glibc_max: (library == Library::Old).then_some(sysroot::GLIBC) })
}

/// Packs a program with the other files of a checkout, by the package dot-dist of the checkout at `root`.
///
/// # Errors
/// A tool or a file is missing, or the program asks for a newer glibc than it may.
pub(crate) fn pack(
    root: &Path,
    checkout: &Path,
    program: &Program,
    into: &Path,
    revision: u32,
) -> Result<()> {
    for tool in ["objcopy", "ldd"] {
        if !setup::is_command(tool) {
            bail!("{tool} is missing: install binutils and libc-bin");
        }
    }
    let here = std::env::current_dir().context("no working directory")?;
    let mut cargo = command::cargo(root);
    cargo.args(["run", "--quiet", "--package", "dot-dist", "--", "--root"]).arg(checkout);
    cargo.arg("--bin").arg(here.join(&program.bin)).arg("--into").arg(here.join(into));
    cargo.args(program.glibc_max.iter().flat_map(|version| ["--glibc-max", version]));
    cargo.args(["--epoch", &release::epoch(checkout)?, "--revision", &revision.to_string()]);
    command::run(&mut cargo)
}
