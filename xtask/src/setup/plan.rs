//! Decides what to install, from the facts about the machine and the packages that apt offers.
//!
//! Before: `machine::Machine`. After: `setup` prints the plan, then follows it.
//! Holds: the choice of a BPF compiler, and the reason for each package.
//! Never: touches the machine: the same facts give the same plan.

use std::{collections::BTreeSet, fmt, path::PathBuf};

use super::machine::{Machine, Nightly, Tool};

/// LLVM of Debian's rustc-web, for which the cached linker is built.
pub(super) const DEBIAN_LLVM: u32 = 22;
/// The LLVM versions that bpf-linker 0.13 can be built against.
pub(super) const LINKER_LLVMS: [u32; 3] = [21, 22, 23];
/// Debian's compiler, its cargo and the sources of `core`. Conflicts with Debian's package `rustup`.
const DEBIAN_RUST: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// One thing to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// apt packages.
    Packages { names: Vec<String>, why: &'static str },
    /// The component rust-src, and a nightly if there is none.
    RustSources { has_nightly: bool },
    /// bpf-linker, built by cargo against this LLVM; into a folder, or where cargo installs programs.
    Linker { llvm: u32, folder: Option<PathBuf> },
    /// gungraun-runner, built by cargo into our cache folder.
    Runner,
}

/// Everything to install, and everything that is not available.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// One line for each tool that is not available here, with the reason why it is wanted.
    pub(super) impossible: Vec<String>,
}

/// Makes the plan. `is_known` says whether apt can install a package.
pub(super) fn decide(machine: &Machine, is_known: &dyn Fn(&str) -> bool) -> Plan {
    let mut plan = Plan::default();
    if !machine.has_c_compiler {
        plan.want(&["gcc", "libc6-dev"], "C compiler: the cryptography and the allocator are C", is_known);
    }
    if machine.toolchain.is_err() {
        toolchain(machine, is_known, &mut plan);
    }
    if machine.lacks_clippy {
        plan.want(&["rust-web-clippy"], "clippy for the kernel half (cargo xtask lint)", is_known);
    }
    for tool in &machine.missing_tools {
        plan.tool(tool, is_known);
    }
    if machine.lacks_runner {
        plan.steps.push(Step::Runner);
    }
    plan
}

/// The cheapest way to a BPF compiler on this machine.
fn toolchain(machine: &Machine, is_known: &dyn Fn(&str) -> bool, plan: &mut Plan) {
    let has_debian = machine.has_debian_rustc || DEBIAN_RUST.iter().all(|name| is_known(name));
    match machine.nightly {
        Some(nightly) if nightly.has_sources && linker_llvm(machine, nightly, is_known).is_some() => {
            nightly_linker(machine, nightly, is_known, plan);
        }
        _ if has_debian && (machine.has_linker || machine.llvms.contains(&DEBIAN_LLVM) || is_known(&llvm_package(DEBIAN_LLVM))) => {
            debian(machine, is_known, plan);
        }
        nightly if machine.has_rustup => {
            if !nightly.is_some_and(|nightly| nightly.has_sources) {
                plan.steps.push(Step::RustSources { has_nightly: nightly.is_some() });
            }
            // A nightly that is not installed yet has the newest LLVM.
            let newest = Nightly { llvm: LINKER_LLVMS[LINKER_LLVMS.len() - 1], has_sources: true };
            nightly_linker(machine, nightly.unwrap_or(newest), is_known, plan);
        }
        _ => plan.impossible.push(
            "a compiler for the kernel half: no rustup here, and apt does not offer rustc-web and llvm-22-dev".into(),
        ),
    }
}

fn debian(machine: &Machine, is_known: &dyn Fn(&str) -> bool, plan: &mut Plan) {
    if !machine.has_debian_rustc {
        plan.want(&DEBIAN_RUST, "Rust 1.96 with library sources: compiles the kernel half", is_known);
    }
    if !machine.has_linker {
        plan.llvm(machine, DEBIAN_LLVM, is_known);
        let folder = super::cache_folder().map(|cache| cache.join(super::linker::ROOT));
        plan.steps.push(Step::Linker { llvm: DEBIAN_LLVM, folder });
    }
}

fn nightly_linker(machine: &Machine, nightly: Nightly, is_known: &dyn Fn(&str) -> bool, plan: &mut Plan) {
    match linker_llvm(machine, nightly, is_known) {
        Some(llvm) => {
            plan.llvm(machine, llvm, is_known);
            plan.steps.push(Step::Linker { llvm, folder: None });
        }
        None => plan.impossible.push(format!(
            "bpf-linker: it needs LLVM {} or newer and apt offers none (https://apt.llvm.org does; or a released \
             binary of bpf-linker on PATH)",
            nightly.llvm
        )),
    }
}

/// The oldest LLVM that is installed or on offer, that bpf-linker supports, and that can read this compiler's bitcode.
fn linker_llvm(machine: &Machine, nightly: Nightly, is_known: &dyn Fn(&str) -> bool) -> Option<u32> {
    let is_to_be_had = |llvm: &u32| machine.llvms.contains(llvm) || is_known(&llvm_package(*llvm));
    LINKER_LLVMS.into_iter().filter(|llvm| *llvm >= nightly.llvm).find(is_to_be_had)
}

fn llvm_package(llvm: u32) -> String {
    format!("llvm-{llvm}-dev")
}

impl Plan {
    /// Every apt package of every step.
    pub(super) fn packages(&self) -> BTreeSet<String> {
        let names = |step: &Step| match step {
            Step::Packages { names, .. } => names.clone(),
            _ => Vec::new(),
        };
        self.steps.iter().flat_map(names).collect()
    }

    /// Whether apt does not know one of the wanted packages: its lists may be old or empty.
    pub(super) fn lacks_packages(&self) -> bool {
        !self.impossible.is_empty() || self.steps.iter().any(|step| matches!(step, Step::RustSources { .. }))
    }

    /// Installing these by hand starts services.
    pub(super) fn installs_services(&self) -> bool {
        const SERVICES: [&str; 9] = [
            "bind9",
            "dnsdist",
            "haproxy",
            "knot",
            "knot-resolver",
            "nsd",
            "pdns-backend-bind",
            "pdns-recursor",
            "unbound",
        ];
        self.packages().iter().any(|name| SERVICES.contains(&name.as_str()))
    }

    fn want(&mut self, names: &[&str], why: &'static str, is_known: &dyn Fn(&str) -> bool) {
        let (known, unknown): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| is_known(name));
        for name in unknown {
            self.impossible.push(format!("{name}: apt does not offer it ({why})"));
        }
        if !known.is_empty() {
            let names = known.into_iter().map(str::to_owned).collect();
            self.steps.push(Step::Packages { names, why });
        }
    }

    /// The missing packages for a build of bpf-linker.
    fn llvm(&mut self, machine: &Machine, llvm: u32, is_known: &dyn Fn(&str) -> bool) {
        if !machine.llvms.contains(&llvm) {
            self.want(&[&llvm_package(llvm)], "LLVM that bpf-linker is built against", is_known);
        }
        if !machine.has_cxx_compiler {
            self.want(&["g++"], "C++ library that LLVM needs to be linked", is_known);
        }
    }

    /// The first of the tool's packages that is on offer.
    fn tool(&mut self, tool: &Tool, is_known: &dyn Fn(&str) -> bool) {
        let offered = tool.packages.iter().find(|name| is_known(name));
        self.want(&[offered.unwrap_or(&tool.packages[0])], tool.purpose, is_known);
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            match step {
                Step::Packages { names, why } => writeln!(f, "  apt     {}: {why}", names.join(" "))?,
                Step::RustSources { has_nightly: true } => {
                    writeln!(f, "  rustup  rust-src for nightly: `core` is built for BPF from source")?;
                }
                Step::RustSources { has_nightly: false } => {
                    writeln!(f, "  rustup  nightly with rust-src: compiles the kernel half")?;
                }
                Step::Runner => {
                    writeln!(
                        f,
                        "  cargo   gungraun-runner {}: runs instruction counts (about a minute)",
                        super::runner::VERSION
                    )?;
                }
                Step::Linker { llvm, folder } => {
                    let into = folder.as_ref().map(|folder| format!(" into {}", folder.display()));
                    let into = into.unwrap_or_default();
                    writeln!(
                        f,
                        "  cargo   bpf-linker with LLVM {llvm}{into}: links the kernel half (about 40 s)"
                    )?;
                }
            }
        }
        self.impossible.iter().try_for_each(|line| writeln!(f, "  cannot  {line}"))
    }
}
