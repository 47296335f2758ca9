//! apt, without starting services: the packages on offer, and the call that installs.
//!
//! Before: `plan` names packages. After: they are installed, and no service was started.
//! Never: removes a package, adds a source, or leaves a trace in /usr/sbin/policy-rc.d.

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Result, bail};

use crate::command;

/// Runs a command while a policy file forbids every service start; see the script's head.
const KEEP_SERVICES_DOWN: &str = include_str!("keep_services_down.sh");
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// The packages that apt offers; each name is looked up once.
pub(super) struct Packages {
    has_apt: bool,
    known: RefCell<BTreeMap<String, bool>>,
    is_updated: OnceCell<()>,
}

impl Packages {
    pub(super) fn new(has_apt: bool) -> Self {
        Self { has_apt, known: RefCell::default(), is_updated: OnceCell::new() }
    }

    /// Whether apt can install this package.
    pub(super) fn is_known(&self, name: &str) -> bool {
        if !self.has_apt {
            return false;
        }
        let ask = || {
            let policy = Command::new("apt-cache").args(["policy", name]).env("LC_ALL", "C").output();
            policy.is_ok_and(|policy| has_candidate(&String::from_utf8_lossy(&policy.stdout)))
        };
        *self.known.borrow_mut().entry(name.to_owned()).or_insert_with(ask)
    }

    /// Fetches the package lists, once in each run.
    pub(super) fn update(&mut self) -> Result<()> {
        if self.is_updated.set(()).is_ok() {
            command::run(Command::new("apt-get").args(["-q", "update"]))?;
            self.known.borrow_mut().clear();
        }
        Ok(())
    }

    /// Installs, without starting services, and returns the packages that could not be installed.
    ///
    /// A failure may be due to old lists, so a second attempt follows an update. If that fails too, each package is
    /// tried by itself: one that conflicts with what the machine has (a newer qemu-utils, say) stops no other.
    pub(super) fn install(&mut self, names: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        if install(names).is_ok() {
            return Ok(BTreeSet::new());
        }
        println!("setup: that failed; once more with fresh package lists");
        self.update()?;
        if install(names).is_ok() {
            return Ok(BTreeSet::new());
        }
        println!("setup: that failed too; each package by itself");
        let fails = |name: &&String| install(&BTreeSet::from([(*name).clone()])).is_err();
        Ok(names.iter().filter(fails).cloned().collect())
    }
}

/// One call of apt for these packages.
fn install(names: &BTreeSet<String>) -> Result<()> {
    println!(
        "+ apt-get install --no-install-recommends {}",
        names.iter().cloned().collect::<Vec<_>>().join(" ")
    );
    let mut install = keep_services_down(Path::new(POLICY));
    install.args(["apt-get", "-q", "-y", "--no-install-recommends", "--no-remove", "install"]);
    install.args(names).env("DEBIAN_FRONTEND", "noninteractive");
    let status = command::status(&mut install)?;
    if !status.success() {
        bail!("apt-get ended with {status}");
    }
    Ok(())
}

/// A command line that runs the appended command while `policy` forbids service starts.
pub(super) fn keep_services_down(policy: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", KEEP_SERVICES_DOWN, "keep_services_down"]).arg(policy);
    shell
}

/// Whether `apt-cache policy` names a version that can be installed.
pub(super) fn has_candidate(policy: &str) -> bool {
    policy
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate:"))
        .any(|version| version.trim() != "(none)")
}
