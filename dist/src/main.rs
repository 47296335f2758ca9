//! `dot-dist`: packs a dotd that is built. `cargo xtask dist` builds one and calls this.
//!
//! Before: a program, a checkout. After: the packages lie in a folder, with their checksums.
//! Never: builds dotd, or signs what it packs.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use dot_dist::Order;

/// Pack a dotd as .deb, .rpm, tarball and OCI image layout, with an SBOM and checksums.
#[derive(Debug, Parser)]
#[command(name = "dot-dist", version)]
struct Arguments {
    /// The program to pack
    #[arg(long, value_name = "PATH")]
    bin: PathBuf,
    /// Refuse a program that asks for a newer glibc
    #[arg(long, value_name = "VERSION")]
    glibc_max: Option<String>,
    /// The checkout that the other files come from
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
    /// Where the packages go
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    into: PathBuf,
    /// Time of every file, in seconds of Unix time
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH")]
    epoch: u32,
    /// Revision of the packages of this version
    #[arg(long, default_value_t = 1)]
    revision: u32,
}

fn main() -> ExitCode {
    let Arguments { bin, glibc_max, root, into, epoch, revision } = Arguments::parse();
    match dot_dist::pack(&Order { bin, glibc_max, root, into, epoch, revision }) {
        Ok(files) => {
            for file in files {
                println!("dist: {}", file.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("dot-dist: {error:#}");
            ExitCode::FAILURE
        }
    }
}
