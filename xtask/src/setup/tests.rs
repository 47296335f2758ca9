//! Setup's decisions on other machines, and its promise about /usr/sbin/policy-rc.d.
//!
//! Before: nothing. After: a plan that forgets a machine, or a policy file left behind, fails here.
//! Never: installs; the policy file is one in a folder of the test's own.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    apt,
    machine::{Machine, Nightly, TOOLS, llvm_of},
    plan::{self, Plan, Step},
};
use crate::bpf_object::Missing;

/// Root on a machine with apt, rustup and cc, and none of the project's tools.
fn bare() -> Machine {
    Machine {
        is_root: true,
        has_sudo: false,
        has_apt: true,
        has_rustup: true,
        has_c_compiler: true,
        has_cxx_compiler: false,
        llvms: Vec::new(),
        toolchain: Err(Missing { reasons: Vec::new() }),
        nightly: None,
        has_debian_rustc: false,
        has_linker: false,
        lacks_clippy: false,
        lacks_runner: false,
        missing_tools: Vec::new(),
    }
}

fn packages(plan: &Plan) -> Vec<String> {
    plan.packages().into_iter().collect()
}

/// Goal: a fresh Debian takes way 2, whole. Method: apt knows every name.
#[test]
fn debian_takes_its_own_packages() {
    let plan = plan::decide(&Machine { has_c_compiler: false, ..bare() }, &|_| true);
    assert_eq!(
        packages(&plan),
        ["cargo-web", "g++", "gcc", "libc6-dev", "llvm-22-dev", "rust-web-src", "rustc-web"]
    );
    assert!(matches!(plan.steps.last(), Some(Step::Linker { llvm: 22, folder: Some(_) })), "{plan:?}");
    assert!(plan.impossible.is_empty(), "{plan:?}");
}

/// Goal: only what is missing is installed. Method: way 2 with its compiler, then with its linker.
#[test]
fn installs_only_what_is_missing() {
    let no_linker = plan::decide(&Machine { has_debian_rustc: true, ..bare() }, &|_| true);
    assert_eq!(packages(&no_linker), ["g++", "llvm-22-dev"]);
    let compilers = Machine { has_debian_rustc: true, has_cxx_compiler: true, llvms: vec![22], ..bare() };
    let only_linker = plan::decide(&compilers, &|_| true);
    assert!(matches!(only_linker.steps[..], [Step::Linker { llvm: 22, .. }]), "{only_linker:?}");
    let no_rustc = plan::decide(&Machine { has_linker: true, ..bare() }, &|_| true);
    assert_eq!(packages(&no_rustc), ["cargo-web", "rust-web-src", "rustc-web"]);
    assert!(!no_rustc.steps.iter().any(|step| matches!(step, Step::Linker { .. })), "{no_rustc:?}");
}

/// Goal: a nightly with its sources is completed rather than doubled. Method: apt has LLVM 21 to 23; the
/// linker's LLVM must be no older than the compiler's.
#[test]
fn complete_nightly_gets_a_linker_of_its_llvm() {
    let machine = Machine { nightly: Some(Nightly { llvm: 23, has_sources: true }), ..bare() };
    let plan = plan::decide(&machine, &|_| true);
    assert_eq!(packages(&plan), ["g++", "llvm-23-dev"]);
    assert!(plan.steps.contains(&Step::Linker { llvm: 23, folder: None }), "{plan:?}");
}

/// Goal: without Debian's packages rustup is the way. Method: an apt that knows only LLVM 23 (as that of apt.llvm.org),
/// a nightly without sources, then none.
#[test]
fn other_systems_take_rustup() {
    let is_known = |name: &str| name == "llvm-23-dev" || name == "g++";
    for nightly in [Some(Nightly { llvm: 22, has_sources: false }), None] {
        let plan = plan::decide(&Machine { nightly, ..bare() }, &is_known);
        assert_eq!(plan.steps[0], Step::RustSources { has_nightly: nightly.is_some() });
        assert!(plan.steps.contains(&Step::Linker { llvm: 23, folder: None }), "{plan:?}");
        assert!(plan.lacks_packages(), "way 1 is second choice: package lists are refreshed first");
    }
}

/// Goal: tools that are not available are reported. Method: no rustup and an apt that knows nothing.
#[test]
fn says_what_cannot_be_had() {
    let machine = Machine { has_rustup: false, missing_tools: TOOLS.iter().collect(), ..bare() };
    let plan = plan::decide(&machine, &|_| false);
    assert!(plan.steps.is_empty(), "{plan:?}");
    assert_eq!(plan.impossible.len(), 1 + TOOLS.len(), "{plan:?}");
}

/// Goal: a tool's second package name is taken where the first is unknown (Ubuntu's bpftool).
#[test]
fn tool_comes_in_another_package() {
    let bpftool = TOOLS.iter().filter(|tool| tool.command == "bpftool").collect();
    let machine = Machine { missing_tools: bpftool, has_debian_rustc: true, has_linker: true, ..bare() };
    let plan = plan::decide(&machine, &|name| name == "linux-tools-common");
    assert_eq!(packages(&plan), ["linux-tools-common"]);
}

/// Goal: the output of apt and rustc is parsed correctly. Method: their real output.
#[test]
fn reads_other_programs() {
    assert!(apt::has_candidate("nsd:\n  Installed: (none)\n  Candidate: 4.6.1-1\n"));
    assert!(!apt::has_candidate("nsd:\n  Installed: (none)\n  Candidate: (none)\n"));
    assert!(!apt::has_candidate(""));
    assert_eq!(llvm_of("rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n"), Some(22));
    assert_eq!(llvm_of("rustc 1.96.0\n"), None);
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a folder for the test");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Best effort: a folder that stays in /tmp does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the test's folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// Goal: while the command runs every service start is refused, and afterwards nothing is left, whether it
/// succeeds, fails or is killed by TERM. Method: commands that call the policy file themselves.
#[test]
fn policy_file_is_gone_on_every_path() {
    let folder = Folder::new("policy");
    let policy = folder.0.join("policy-rc.d");
    let ask = format!("{} nsd start; test $? -eq 101", policy.display());
    for (script, is_success) in
        [(ask.as_str(), true), ("exit 3", false), ("kill -TERM $PPID; sleep 0.1", false)]
    {
        let status = apt::keep_services_down(&policy).args(["sh", "-c", script]).status().expect("sh");
        assert_eq!(status.success(), is_success, "{script}: {status}");
        assert_eq!(names(&folder.0), [] as [&str; 0], "{script}");
    }
}

/// Goal: a policy file of the machine's own is restored afterwards, also when an earlier run was killed. Method: an
/// existing file, then the state after such a kill.
#[test]
fn policy_file_of_the_machine_is_kept() {
    let folder = Folder::new("policy-kept");
    let policy = folder.0.join("policy-rc.d");
    std::fs::write(&policy, "#!/bin/sh\nexit 7\n").expect("a policy file");
    std::fs::set_permissions(&policy, std::fs::Permissions::from_mode(0o700)).expect("its mode");
    let run = || apt::keep_services_down(&policy).arg("false").status().expect("sh");
    let is_back = || {
        let asked = Command::new(&policy).status().expect("the machine's policy");
        asked.code() == Some(7) && names(&folder.0) == ["policy-rc.d"]
    };
    assert!(!run().success() && is_back());
    let mut killed = apt::keep_services_down(&policy);
    let status = killed.args(["sh", "-c", "kill -KILL $PPID"]).status().expect("sh");
    assert!(!status.success() && !is_back(), "the kill left our file in place");
    assert!(!run().success() && is_back());
}
