//! `cargo xtask setup`: names, then installs, what this project needs and the machine lacks.
//!
//! Before: a clone, and cargo. After: `build`, `run` and, with `--tests`, `test` find every program that they call.
//! Holds: the order: check, decide, report, install, check again.
//! Never: asks a question, starts a service, or installs a program that exists: a second run changes nothing.

mod apt;
#[cfg(test)]
mod asked;
mod linker;
mod machine;
mod plan;
mod runner;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Result, bail};

use machine::Machine;
pub(crate) use machine::{Wants, is_command, is_root};
use plan::{Plan, Step};
pub(crate) use runner::program as runner_program;

/// Arguments of `cargo xtask setup`.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
WHAT IT NEEDS:
    A C compiler (the cryptography is C), and a Rust compiler that builds the kernel half for BPF.
    Two ways lead there, the first that the machine has or can have is taken:
      1. a rustup nightly with the component rust-src, and bpf-linker;
      2. Debian's packages rustc-web, cargo-web, rust-web-src and llvm-22-dev, and a bpf-linker that
         cargo builds into ${XDG_CACHE_HOME:-~/.cache}/dotd.
    apt packages need root; an ordinary user is shown the commands instead.

EXAMPLES:
    cargo xtask setup --dry-run      say what would be installed, and change nothing
    cargo xtask setup                what `build` and `run` need
    cargo xtask setup --tests        also the DNS clients and servers that the tests talk to
    cargo xtask setup --benches      also valgrind and the runner of instruction counts
    cargo xtask setup --kernels      also QEMU and the tools that `test-kernels` uses
    cargo xtask setup --fresh        also debootstrap, which `test --fresh` uses

EXIT STATUS:
    0 when all is there, 1 when something could not be installed.")]
pub(crate) struct Setup {
    /// Also install what the tests and the linter use
    #[arg(long)]
    pub(crate) tests: bool,
    /// Also install what `bench micro` uses
    #[arg(long)]
    pub(crate) benches: bool,
    /// Also install what `test-kernels` uses
    #[arg(long)]
    pub(crate) kernels: bool,
    /// Also install what `test --fresh` uses
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Only say what would be installed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The function for other verbs: silent when nothing is missing.
///
/// # Errors
/// As [`run`].
pub(crate) fn ensure(wants: Wants) -> Result<()> {
    if Machine::look(wants).is_complete() {
        return Ok(());
    }
    run(&Setup {
        tests: wants.tests,
        benches: wants.benches,
        kernels: wants.kernels,
        fresh: wants.fresh,
        dry_run: false,
    })
}

/// Installs these packages without starting their services; packages that apt does not offer are reported.
///
/// # Errors
/// apt refused.
pub(crate) fn install_packages(names: &BTreeSet<String>) -> Result<()> {
    let mut packages = apt::Packages::new(is_command("apt-get"));
    if is_command("apt-get") && !names.iter().all(|name| packages.is_known(name)) {
        packages.update()?;
    }
    let (known, unknown): (BTreeSet<String>, BTreeSet<String>) =
        names.iter().cloned().partition(|name| packages.is_known(name));
    for name in unknown {
        println!("setup: {name} is not on offer here");
    }
    if !known.is_empty() {
        report_refused(&packages.install(&known)?);
    }
    Ok(())
}

/// Reports and installs what is missing.
///
/// # Errors
/// Something that the build needs could not be installed. Missing test tools are only reported: the tests that need
/// them are skipped.
pub(crate) fn run(arguments: &Setup) -> Result<()> {
    let wants = Wants {
        tests: arguments.tests,
        benches: arguments.benches,
        kernels: arguments.kernels,
        fresh: arguments.fresh,
    };
    let machine = Machine::look(wants);
    if machine.is_complete() {
        println!("setup: all there ({})", machine.toolchain_name());
        return Ok(());
    }
    let mut packages = apt::Packages::new(machine.has_apt);
    let mut plan = plan::decide(&machine, &|name| packages.is_known(name));
    if plan.lacks_packages() && machine.has_apt && machine.is_root && !arguments.dry_run {
        println!("setup: this machine's package lists do not know all we need: apt-get update");
        packages.update()?;
        plan = plan::decide(&machine, &|name| packages.is_known(name));
    }
    println!("setup: to install");
    print!("{plan}");
    if arguments.dry_run {
        if !plan.impossible.is_empty() && machine.has_apt {
            println!("setup: apt's lists may be empty or old; without --dry-run they are fetched first");
        }
        return Ok(());
    }
    let is_allowed = machine.is_root || plan.packages().is_empty();
    if is_allowed {
        install(&plan, &mut packages)?;
    } else {
        explain_root(&machine, &plan);
    }
    verify(wants)
}

fn install(plan: &Plan, packages: &mut apt::Packages) -> Result<()> {
    let wanted = plan.packages();
    if !wanted.is_empty() {
        report_refused(&packages.install(&wanted)?);
    }
    for step in &plan.steps {
        match step {
            Step::Packages { .. } => {}
            Step::RustSources { has_nightly } => linker::add_rust_sources(*has_nightly)?,
            Step::Linker { llvm, folder } => linker::build(*llvm, folder.as_deref())?,
            Step::Runner => runner::build()?,
        }
    }
    Ok(())
}

/// Names the packages that apt refused. [`verify`] decides whether they were needed.
fn report_refused(names: &BTreeSet<String>) {
    for name in names {
        println!(
            "setup: apt cannot install {name} here (see above); nothing was removed to make room for it. To see why: \
             apt-get install --dry-run {name}"
        );
    }
}

/// The message for an ordinary user, who cannot install packages: the exact commands, and what still works.
fn explain_root(machine: &Machine, plan: &Plan) {
    let sudo = if machine.has_sudo { "sudo " } else { "" };
    let names: BTreeSet<_> = plan.packages();
    let names: Vec<_> = names.into_iter().collect();
    println!("setup: apt needs root and you are an ordinary user. Run this{}:", machine.root_hint());
    println!("    {sudo}apt-get update");
    println!("    {sudo}apt-get install --no-install-recommends {}", names.join(" "));
    if plan.installs_services() {
        println!(
            "  (DNS servers start as services on port 53 when installed so; `cargo xtask setup --tests`"
        );
        println!("   as root installs them without starting them)");
    }
    println!("  then `cargo xtask setup` again, as yourself.");
}

/// Checks again. The tools of the build must be there now; tools that only tests need may be missing.
fn verify(wants: Wants) -> Result<()> {
    let machine = Machine::look(wants);
    for tool in &machine.missing_tools {
        println!("setup: still missing: {} ({}); what needs it will be skipped", tool.command, tool.purpose);
    }
    if !machine.has_c_compiler {
        bail!(
            "no C compiler: install gcc (Debian, Ubuntu: apt-get install gcc libc6-dev) and run setup again"
        );
    }
    match &machine.toolchain {
        Ok(toolchain) => println!("setup: ready ({})", toolchain.name),
        Err(missing) => bail!(
            "no compiler for the kernel half: {}. Without it nothing here builds; way out: {}",
            missing.reasons.join("; "),
            machine.way_out()
        ),
    }
    Ok(())
}

/// The user's cache folder, after the XDG base directory specification.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    std::env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from).or_else(home)
}
