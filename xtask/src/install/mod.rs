//! `cargo xtask test-install`: the package on Debian with systemd as process 1, from `dpkg -i` to `dpkg -P`.
//!
//! Before: a dotd, packed twice. After: each suite was booted under QEMU with its kernel, and `walk.sh` went through an
//! operator's steps there; a table shows the results.
//! Holds: the suites and their kernels. Never: touches this machine's services, packages or network.

mod root;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    build, dist,
    kernels::{Archive, kernel, listen},
    setup,
};

/// Suites, each with the series of its kernel.
const SUITES: &[(&str, &str)] = &[("bookworm", "6.1"), ("trixie", "6.12")];
/// A walk takes about eight minutes on an idle machine.
const TIME_MAX: Duration = Duration::from_secs(2_700);
const WALK: &str = include_str!("walk.sh");
const INIT: &str = include_str!("init.sh");
const UNIT: &str = "[Unit]\nDescription=The walk\n[Service]\nExecStart=/walk/walk.sh\n[Install]\nWantedBy=multi-user.target\n";
const NSD: &str = "server:\n  ip-address: 127.0.0.1\n  server-count: 1\nzone:\n  name: walk.test\n  zonefile: /etc/nsd/walk.zone\n";
const ZONE: &str = "$ORIGIN walk.test.\n$TTL 300\n@ SOA ns.walk.test. admin.walk.test. 1 3600 600 86400 300\n@ NS ns\nns A 127.0.0.1\n\
    www A 192.0.2.80\n";

/// Arguments of `cargo xtask test-install`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
    Packs dotd twice, makes a Debian with debootstrap (100 MB from its archive, once, kept in
    ${XDG_CACHE_HOME:-~/.cache}/dotd/roots), boots it under QEMU with Debian's kernel and systemd as process 1, and
    walks: install, check, start, kdig, reload, renewal, drain, disable, restart, upgrade, kill, watchdog, stop, remove,
    purge. Needs root for debootstrap. A suite takes some eight minutes.

EXAMPLES:
    cargo xtask test-install                              Debian 12 and 13, with a release build
    cargo xtask test-install --suite bookworm --bin target/debug/dotd
    cargo xtask test-install --suite trixie --verbose     with all that the guest says
    cargo xtask test-install --first old/dotd_0.1.0-1_amd64.deb --bin target/debug/dotd

EXIT STATUS:
    0 when every step on every suite was as it should be, 1 when not, 2 for a mistake in the command line.")]
pub(crate) struct TestInstall {
    /// Only this suite
    #[arg(long, value_name = "SUITE", value_parser = clap::builder::PossibleValuesParser::new(["bookworm", "trixie"]))]
    suite: Option<String>,
    /// Pack this program instead of building one
    #[arg(long, value_name = "PATH")]
    bin: Option<PathBuf>,
    /// Install this package first, of an earlier build, in place of one packed from the same program
    #[arg(long, value_name = "DEB")]
    first: Option<PathBuf>,
    /// Install nothing
    #[arg(long)]
    no_setup: bool,
    /// Show all that the guest says
    #[arg(long)]
    verbose: bool,
}

/// Packs, boots, and prints the results as a table.
///
/// # Errors
/// A program is missing, or a step failed in a suite.
pub(crate) fn run(root: &Path, arguments: &TestInstall) -> Result<()> {
    if !arguments.no_setup {
        setup::ensure(setup::Wants { kernels: true, fresh: true, ..Default::default() })?;
    }
    let bin = match &arguments.bin {
        Some(bin) => bin.clone(),
        None => build::run(root, &build::Build { release: true, pgo: false })?,
    };
    let program = dist::Program { bin, glibc_max: None };
    let folder = Folder::new(root)?;
    let packages = [1, 2].map(|revision| -> Result<Vec<u8>> {
        if let (1, Some(first)) = (revision, &arguments.first) {
            return fs::read(first).with_context(|| first.display().to_string());
        }
        let into = folder.0.join(revision.to_string());
        dist::pack(root, root, &program, &into, revision)?;
        let files = fs::read_dir(&into)?.flatten().map(|entry| entry.path());
        let package = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
        fs::read(package.context("dist left no .deb")?).context("the package")
    });
    let [first, second] = packages;
    let (first, second) = (first?, second?);
    let mut failures = Vec::new();
    for (suite, series) in SUITES {
        if arguments.suite.as_ref().is_some_and(|only| only != suite) {
            continue;
        }
        let began = Instant::now();
        let kernel = kernel(series)?;
        let initramfs = folder.0.join(format!("{suite}.cpio"));
        pack(suite, &kernel.modules, [&first, &second], &initramfs)?;
        let seen = boot(&kernel.image, &initramfs, arguments.verbose)?;
        fs::remove_file(&initramfs)?;
        println!("\n{suite}: {} in {} s\n\n{}", seen.system, began.elapsed().as_secs(), seen.table());
        failures.extend(seen.failures().into_iter().map(|failure| format!("{suite}: {failure}")));
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
}

/// The suite's root file system, followed by the files for the walk.
fn pack(suite: &str, modules: &[PathBuf], packages: [&[u8]; 2], into: &Path) -> Result<()> {
    let mut more = Archive::default();
    more.device("dev/console", [5, 1]);
    more.file("/init", INIT.as_bytes());
    more.file("/walk/walk.sh", WALK.as_bytes());
    more.file("/etc/nsd/walk.zone", ZONE.as_bytes());
    more.file("/etc/nsd/nsd.conf.d/walk.conf", NSD.as_bytes());
    more.file("/walk/busybox", &fs::read(which("busybox")?)?);
    for (package, number) in packages.into_iter().zip(1..) {
        more.file(&format!("/walk/dotd_{number}.deb"), package);
    }
    let mut order = String::new();
    for module in modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        more.file(&format!("/modules/{name}"), &fs::read(module)?);
        order += &format!("{name}\n");
    }
    more.file("/modules/order", order.as_bytes());
    more.file("/etc/systemd/system/walk.service", UNIT.as_bytes());
    more.link("/etc/systemd/system/multi-user.target.wants/walk.service", "/etc/systemd/system/walk.service");
    more.write(into).with_context(|| into.display().to_string())?;
    let rest = fs::read(into)?;
    fs::copy(root::archive(suite)?, into)?;
    let mut file = fs::OpenOptions::new().append(true).open(into)?;
    std::io::Write::write_all(&mut file, &rest)?;
    Ok(())
}

fn which(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/bin", "/bin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("no {name} here"))
}

/// Boots a suite, and reads the output of the walk.
fn boot(image: &Path, initramfs: &Path, is_verbose: bool) -> Result<Seen> {
    let mut qemu = Command::new("qemu-system-x86_64");
    // No hardware virtualisation: it works everywhere, and a guest within a guest may lack instructions that it claims. A
    // processor of 2010: some libraries take an emulated newer one for a broken one, and abort.
    qemu.args(["-accel", "tcg", "-cpu", "Westmere", "-smp", "2", "-m", "3072", "-nographic", "-no-reboot"]);
    qemu.args(["-net", "none", "-append"]);
    // No login on the console: it waits for a device that only udev announces.
    qemu.arg("console=ttyS0 panic=-1 quiet systemd.show_status=0 systemd.getty_auto=0");
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(initramfs);
    let mut seen = Seen::default();
    let last = listen(qemu, TIME_MAX, is_verbose, |line| seen.hear(line))?;
    if !seen.is_done || !seen.failures().is_empty() {
        println!("{last}");
    }
    Ok(seen)
}

/// The results of a walk.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    system: String,
    /// The name of a step, whether it succeeded, and its output.
    steps: Vec<(String, bool, String)>,
    is_done: bool,
}

impl Seen {
    fn hear(&mut self, line: &str) {
        // The kernel's messages may precede the walk's in the same line.
        let Some(at) = line.find("DOTD ") else { return };
        let parts: Vec<&str> = line[at + 5..].split('|').collect();
        match parts.as_slice() {
            ["system", system, kernel, systemd] => {
                self.system = format!("{system}, Linux {kernel}, {systemd}")
            }
            ["step", name, state, seen] => {
                self.steps.push(((*name).to_owned(), *state == "ok", (*seen).trim().to_owned()));
            }
            ["done"] => self.is_done = true,
            _ => {}
        }
    }

    /// The steps as Markdown.
    fn table(&self) -> String {
        let row = |(name, is_ok, seen): &(String, bool, String)| {
            format!("| {name} | {} | {seen} |\n", if *is_ok { "ok" } else { "FAILED" })
        };
        self.steps
            .iter()
            .map(row)
            .fold("| step | result | seen |\n|---|---|---|\n".to_owned(), |all, row| all + &row)
    }

    /// The failures.
    fn failures(&self) -> Vec<String> {
        let failed = self.steps.iter().filter(|(_, is_ok, _)| !is_ok);
        let mut failures: Vec<_> = failed.map(|(name, _, seen)| format!("{name}: {seen}")).collect();
        if !self.is_done {
            failures.push("the walk did not come to its end".to_owned());
        }
        failures
    }
}

/// Files beside the archives; removed with this value.
struct Folder(PathBuf);

impl Folder {
    fn new(root: &Path) -> Result<Self> {
        let path = build::target(root).join(format!("install-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a walk that stops, or fails a step, fails. Method: the output of a guest.
    #[test]
    fn a_walk_is_understood() {
        let mut seen = Seen::default();
        seen.hear("[  1.0] random: DOTD system|Debian 12|6.1.0|systemd 252");
        seen.hear("DOTD step|start|ok|user dotd");
        assert_eq!(seen.failures(), ["the walk did not come to its end"]);
        seen.hear("DOTD done");
        assert!(seen.failures().is_empty());
        assert_eq!(seen.table(), "| step | result | seen |\n|---|---|---|\n| start | ok | user dotd |\n");
        seen.hear("DOTD step|stop|FAILED|XDP stays; ");
        assert_eq!(seen.failures(), ["stop: XDP stays;"]);
    }

    /// Goal: what the guest runs is a script. Method: the shell parses each.
    #[test]
    fn the_scripts_parse() {
        for script in ["walk.sh", "init.sh"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/install").join(script);
            assert!(Command::new("sh").arg("-n").arg(&path).status().expect("sh").success(), "{script}");
        }
    }
}
