//! `cargo xtask test-kernels`: tests the kernel half on the kernels of users, not only on this machine's.
//!
//! Before: tests of the loader and of the programs, built by cargo. After: Debian's kernels were booted by QEMU, each
//! loaded every program, attached them to real interfaces and passed these tests; a table shows the verifier's cost of
//! each program.
//! Holds: the lists of kernels and tests. Never: needs hardware virtualisation; commits a binary, or keeps one outside
//! the user's cache.

mod cpio;
mod debian;
mod guest;
mod machine;

use std::{path::Path, time::Instant};

use anyhow::{Result, bail};

use crate::{build, setup};
pub(crate) use cpio::Archive;
pub(crate) use debian::kernel;
use guest::Guest;
pub(crate) use machine::listen;

/// Debian's stable kernel, and the one of its next release and of this one's backports.
const SERIES: &[&str] = &["6.1", "6.12"];
/// The tests in the guest: each program loads and stays within its budget; the loader attaches, takes over and works
/// without rights; every verdict is right.
const TESTS: &[&str] = &["xdp_object", "xdp_attach", "xdp_paths", "xdp_verdicts"];

/// Arguments of `cargo xtask test-kernels`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
    Fetches Debian's cloud kernels by name with apt-get download (62 MB, once, into
    ${XDG_CACHE_HOME:-~/.cache}/dotd/kernels), packs the test modules xdp_object, xdp_attach, xdp_paths and
    xdp_verdicts into a small initramfs, and boots each kernel with it under QEMU without hardware virtualisation.
    Needs Debian (or its package archive) on x86-64; no root.

EXAMPLES:
    cargo xtask test-kernels               6.1 and 6.12
    cargo xtask test-kernels --only 6.1
    cargo xtask test-kernels --only 6.1 --test xdp_object
                                           what the programs cost its verifier, in half a minute
    cargo xtask test-kernels --verbose     with all that the guest says

EXIT STATUS:
    0 when every test passed on every kernel, 1 when not or when a kernel could not be had, 2 for a
    mistake in the command line.")]
pub(crate) struct TestKernels {
    /// Only this series
    #[arg(long, value_name = "SERIES", value_parser = clap::builder::PossibleValuesParser::new(SERIES))]
    only: Option<String>,
    /// Only this test module
    #[arg(long, value_name = "TEST", value_parser = clap::builder::PossibleValuesParser::new(TESTS))]
    test: Option<String>,
    /// Install nothing
    #[arg(long)]
    no_setup: bool,
    /// Show all that the guest says
    #[arg(long)]
    verbose: bool,
}

/// Runs the tests on each kernel.
///
/// # Errors
/// A program is missing, or a test failed on a kernel.
pub(crate) fn run(root: &Path, arguments: &TestKernels) -> Result<()> {
    if !arguments.no_setup {
        setup::ensure(setup::Wants { tests: true, kernels: true, ..Default::default() })?;
    }
    for program in ["qemu-system-x86_64", "busybox", "ip", "strip", "ldd"] {
        if !setup::is_command(program) {
            bail!("{program} is missing: cargo xtask setup --kernels (as root) installs it");
        }
    }
    let folder = build::target(root).join("kernels");
    let wanted: Vec<&str> = chosen(TESTS, arguments.test.as_deref());
    let program = guest::build_tests(root)?;
    let mut failures = Vec::new();
    let mut table = Vec::new();
    for series in chosen(SERIES, arguments.only.as_deref()) {
        let began = Instant::now();
        let kernel = kernel(series)?;
        let initramfs = folder.join(format!("{}.cpio", kernel.name));
        Guest { program: &program, tests: &wanted, modules: &kernel.modules }.pack(&folder, &initramfs)?;
        let said = machine::boot(&kernel.image, &initramfs, arguments.verbose)?;
        println!("{}: {}, {} s", kernel.name, said.summary(), began.elapsed().as_secs());
        table.extend(said.programs.iter().map(|line| format!("{:<10} {line}", kernel.series)));
        failures
            .extend(said.failures(&wanted).into_iter().map(|failure| format!("{}: {failure}", kernel.name)));
    }
    println!("\nwhat the programs cost the verifier");
    table.iter().for_each(|line| println!("  {line}"));
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
}

/// All of them, or the one that was named.
fn chosen<'a>(all: &[&'a str], only: Option<&str>) -> Vec<&'a str> {
    all.iter().copied().filter(|name| only.is_none_or(|only| only == *name)).collect()
}
