//! `cargo xtask test-kernels`: tests the kernel half on the kernels and cards of users, not only on this machine's.
//!
//! Before: tests of the loader and of the programs, built by cargo. After: Debian's kernels were booted by QEMU, each
//! loaded every program, attached them to real interfaces and cards and passed these tests; tables show the verifier's cost of
//! each program, and what each card's driver does.
//! Holds: the lists of machines and tests. Never: needs hardware virtualisation; commits a binary, or keeps one outside
//! the user's cache.

mod archive;
mod cards;
mod cpio;
mod debian;
mod guest;
mod machine;

use std::{path::Path, time::Instant};

use anyhow::{Result, bail};

use crate::{build, setup};
pub(crate) use archive::{MIRROR, Packages};
pub(crate) use cpio::Archive;
use debian::Flavour;
pub(crate) use debian::kernel;
use guest::Guest;
use machine::Said;
pub(crate) use machine::listen;

/// A guest.
struct Machine {
    name: &'static str,
    /// The kernel's series; "": the suite's newest.
    series: &'static str,
    /// The suite whose kernel it is; none: what apt offers here.
    suite: Option<&'static str>,
    flavour: Flavour,
    tests: &'static [&'static str],
}

/// Kernels without cards: the interfaces that the tests make suffice. Debian's stable kernel, and the one of its next release
/// and of this one's backports. Then kernels with cards: of Debian 12, of 13, of unstable, and one with PREEMPT_RT.
const MACHINES: &[Machine] = &[
    Machine { name: "6.1", series: "6.1", suite: None, flavour: Flavour::Cloud, tests: TESTS },
    Machine { name: "6.12", series: "6.12", suite: None, flavour: Flavour::Cloud, tests: TESTS },
    Machine { name: "cards-12", series: "6.1", suite: Some("bookworm"), flavour: Flavour::Any, tests: CARDS },
    Machine { name: "cards-13", series: "6.12", suite: Some("trixie"), flavour: Flavour::Any, tests: CARDS },
    Machine { name: "cards-unstable", series: "", suite: Some("sid"), flavour: Flavour::Any, tests: ALL },
    Machine {
        name: "cards-rt",
        series: "6.12",
        suite: Some("trixie"),
        flavour: Flavour::Realtime,
        tests: ALL,
    },
];
const NAMES: [&str; 6] = ["6.1", "6.12", "cards-12", "cards-13", "cards-unstable", "cards-rt"];

/// The tests in the guest: each program loads and stays within its budget; the loader attaches, takes over and works
/// without rights; every verdict is right.
const TESTS: &[&str] = &["xdp_object", "xdp_attach", "xdp_paths", "xdp_verdicts"];
const CARDS: &[&str] = &["xdp_object", "xdp_cards"];
const ALL: &[&str] = &["xdp_object", "xdp_attach", "xdp_paths", "xdp_verdicts", "xdp_cards"];

/// Arguments of `cargo xtask test-kernels`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
    Fetches Debian's kernels by name with apt-get download (400 MB, once, into
    ${XDG_CACHE_HOME:-~/.cache}/dotd/kernels), packs the test modules xdp_object, xdp_attach, xdp_paths,
    xdp_verdicts and xdp_cards into a small initramfs, and boots each kernel with it under QEMU without hardware
    virtualisation. Machines cards-* have network cards: virtio_net with two queues, e1000e and vmxnet3.
    Needs Debian (or its package archive) on x86-64; no root, but for cards a user namespace.

EXAMPLES:
    cargo xtask test-kernels               6.1 and 6.12; Debian 12's, 13's and unstable's with cards; PREEMPT_RT
    cargo xtask test-kernels --only 6.1
    cargo xtask test-kernels --only cards-13 --test xdp_cards
    cargo xtask test-kernels --only 6.1 --test xdp_object
                                           what the programs cost its verifier, in half a minute
    cargo xtask test-kernels --verbose     with all that the guest says

EXIT STATUS:
    0 when every test passed on every kernel, 1 when not or when a kernel could not be had, 2 for a
    mistake in the command line.")]
pub(crate) struct TestKernels {
    /// Only this machine
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(NAMES))]
    only: Option<String>,
    /// Only this test module
    #[arg(long, value_name = "TEST", value_parser = clap::builder::PossibleValuesParser::new(ALL))]
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
    for program in ["qemu-system-x86_64", "busybox", "ip", "strip", "ldd", "unshare"] {
        if !setup::is_command(program) {
            bail!("{program} is missing: cargo xtask setup --kernels (as root) installs it");
        }
    }
    let folder = build::target(root).join("kernels");
    let program = guest::build_tests(root)?;
    let (mut failures, mut costs, mut cards) = (Vec::new(), Vec::new(), Vec::new());
    for machine in MACHINES.iter().filter(|machine| is_wanted(arguments.only.as_deref(), machine.name)) {
        let tests: Vec<&str> =
            machine.tests.iter().copied().filter(|test| is_wanted(arguments.test.as_deref(), test)).collect();
        if tests.is_empty() {
            continue;
        }
        let name = machine.name;
        match walk(machine, &folder, &program, &tests, arguments.verbose) {
            Ok(said) => {
                costs.extend(said.programs.iter().map(|line| format!("{name:<15} {line}")));
                cards.extend(said.cards.iter().map(|line| format!("{name:<15} {line}")));
                failures
                    .extend(said.failures(&tests).into_iter().map(|failure| format!("{name}: {failure}")));
            }
            // The other machines still have something to say.
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
    }
    println!("\nwhat the programs cost the verifier");
    costs.iter().for_each(|line| println!("  {line}"));
    println!("\nwhat cards' drivers do");
    cards.iter().for_each(|line| println!("  {line}"));
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
}

/// Boots one machine with its tests.
fn walk(machine: &Machine, folder: &Path, program: &Path, tests: &[&str], is_verbose: bool) -> Result<Said> {
    let began = Instant::now();
    let kernel = debian::of_suite(machine.series, machine.suite, machine.flavour)?;
    let initramfs = folder.join(format!("{}.cpio", kernel.name));
    Guest { program, tests, modules: &kernel.modules }.pack(folder, &initramfs)?;
    let has_cards = machine.flavour != Flavour::Cloud;
    let said = machine::boot(&kernel.image, &initramfs, has_cards, is_verbose);
    let _ = std::fs::remove_file(&initramfs);
    let said = said?;
    println!("{}, {}: {}, {} s", machine.name, kernel.name, said.summary(), began.elapsed().as_secs());
    Ok(said)
}

/// Whether this one was named, or none.
fn is_wanted(only: Option<&str>, name: &str) -> bool {
    only.is_none_or(|only| only == name)
}

#[cfg(test)]
mod tests {
    use super::{ALL, MACHINES, NAMES};

    /// Goal: the command line offers every machine and every test. Method: compares the tables.
    #[test]
    fn tables_agree() {
        assert!(MACHINES.iter().map(|machine| machine.name).eq(NAMES));
        assert!(MACHINES.iter().flat_map(|machine| machine.tests).all(|test| ALL.contains(test)));
    }
}
