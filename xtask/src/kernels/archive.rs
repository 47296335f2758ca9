//! Debian's archive, asked for another suite than this machine's.
//!
//! Before: a suite's name. After: the names of its packages, and packages by name.
//! Holds: apt's own lists and cache for that suite, in the user's cache folder. Never: changes apt's settings or lists of this
//! machine; fetches what is not signed by Debian's key.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::command;

pub(crate) const MIRROR: &str = "http://deb.debian.org/debian";
/// The key ring of the package debian-archive-keyring, under the names that it has had.
const KEYS: &[&str] =
    &["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];

/// The key ring that Debian's archive is signed with.
///
/// # Errors
/// This machine has none.
fn keys() -> Result<&'static str> {
    let found = KEYS.iter().find(|path| Path::new(path).is_file());
    found
        .copied()
        .with_context(|| format!("none of {} is here: install debian-archive-keyring", KEYS.join(", ")))
}

/// Where packages come from.
pub(crate) enum Packages {
    /// The lists of this machine.
    Machine,
    /// Lists of one suite.
    Suite(PathBuf),
}

impl Packages {
    /// Fetches the lists of a suite (10 MB), or takes this machine's.
    pub(super) fn open(cache: &Path, suite: Option<&str>) -> Result<Self> {
        match suite {
            Some(suite) => Self::of_suite(cache.join("apt").join(suite), suite, "amd64"),
            None => Ok(Self::Machine),
        }
    }

    /// Fetches the lists of a suite for an architecture, as Debian names it, into a folder.
    pub(crate) fn of_suite(folder: PathBuf, suite: &str, architecture: &str) -> Result<Self> {
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(below)).with_context(|| folder.display().to_string())?;
        }
        let line = format!("deb [arch={architecture} signed-by={}] {MIRROR} {suite} main\n", keys()?);
        fs::write(folder.join("sources.list"), line)?;
        let archive = Self::Suite(folder);
        command::run(archive.apt("apt-get").args(["-q", "update"]))?;
        Ok(archive)
    }

    /// An apt program that sees this archive alone.
    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        if let Self::Suite(folder) = self {
            for (option, value) in [
                ("Dir::Etc::sourcelist", folder.join("sources.list")),
                ("Dir::Etc::sourceparts", "/dev/null".into()),
                ("Dir::State::lists", folder.join("lists")),
                ("Dir::Cache", folder.join("cache")),
            ] {
                apt.arg("-o").arg(format!("{option}={}", value.display()));
            }
            apt.args(["-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=root"]);
            apt.args(["-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"]);
        }
        apt
    }

    /// Packages whose names match.
    pub(super) fn search(&self, pattern: &str) -> Result<Vec<String>> {
        let search = self.apt("apt-cache").args(["search", "--names-only", pattern]).output();
        let search = search.context("cannot start apt-cache: this needs Debian's archive")?;
        let lines = String::from_utf8_lossy(&search.stdout).into_owned();
        Ok(lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }

    /// Fetches these packages into a folder, and unpacks them into its `tree`.
    pub(crate) fn unpack(&self, names: &[String], work: &Path) -> Result<()> {
        fs::create_dir_all(work.join("tree")).with_context(|| work.display().to_string())?;
        command::run(self.apt("apt-get").args(["-q", "download"]).args(names).current_dir(work))?;
        let files = fs::read_dir(work)?.flatten().map(|entry| entry.path());
        let packages: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect();
        if packages.len() != names.len() {
            bail!("apt-get download {} left {} packages", names.join(" "), packages.len());
        }
        for package in packages {
            command::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(work.join("tree")))?;
        }
        Ok(())
    }
}
