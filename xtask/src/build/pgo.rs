//! `cargo xtask build --pgo`: compiles dotd a second time, with a profile of its own work.
//!
//! Before: a clone, NSD, and the `llvm-profdata` of rustc's LLVM. After: `target/pgo/dotd`.
//! Holds: the order: instrument, give it the work of `bench peers`, merge, compile.
//! Never: touches `target/release`: measurements use the build that every user makes.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{bench, command, setup};

/// The work for the profile: each kind for a second, over UDP, TCP and from the cache.
const TRAINING: [&str; 6] = ["--quick", "--only", "dotd", "--no-calls", "--idle", "0"];

/// The compiler whose profiles are written and read.
#[derive(Debug, PartialEq, Eq)]
struct Rustc {
    sysroot: PathBuf,
    host: String,
    llvm: u32,
}

/// Builds, trains and builds again; the path of the last one.
///
/// # Errors
/// Something is missing, a build failed, or the instrumented dotd wrote no profile.
pub(super) fn run(root: &Path) -> Result<PathBuf> {
    setup::ensure(setup::Wants::default())?;
    if !setup::is_command("nsd") {
        bail!(
            "the profile is of real work, and needs NSD as its backend: apt-get install nsd (as root: cargo xtask setup --tests)"
        );
    }
    let rustc = Rustc::ask(root)?;
    let merger = rustc.merger(&Path::exists)?;
    let folder = super::target(root).join("pgo");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    let profiles = empty(&folder.join("profiles"))?;
    println!("pgo: 1 of 4, dotd that counts where it goes");
    let counting = compile(root, &folder, &rustc.host, &flag("profile-generate", &profiles))?;
    println!("pgo: 2 of 4, the programs that give it work");
    let mut training = bench::program(root, "peers", &counting)?;
    println!("pgo: 3 of 4, work; its figures are of the dotd that counts, and say nothing");
    command::run(training.args(TRAINING))?;
    let profile = folder.join("dotd.profdata");
    merge(&merger, &profiles, &profile)?;
    println!("pgo: 4 of 4, dotd with the profile");
    let built = compile(root, &folder, &rustc.host, &flag("profile-use", &profile))?;
    let binary = folder.join("dotd");
    fs::copy(&built, &binary).with_context(|| format!("cannot write {}", binary.display()))?;
    Ok(binary)
}

/// An empty folder that every user may write to, because dotd is an ordinary user when it ends.
fn empty(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o1777))?;
    Ok(folder.to_path_buf())
}

fn flag(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(format!("-C{name}="));
    flag.push(path);
    flag
}

/// Compiles dotd with this flag; naming the target keeps the flag from build scripts.
fn compile(root: &Path, folder: &Path, host: &str, flag: &OsString) -> Result<PathBuf> {
    let mut cargo = command::cargo(root);
    cargo.args(["build", "--release", "--package", "dot-userspace", "--bin", "dotd", "--target", host]);
    cargo.arg("--target-dir").arg(folder);
    // Separated by 0x1f, as cargo has them: a path may hold a space.
    let flags = std::env::var_os("CARGO_ENCODED_RUSTFLAGS").filter(|flags| !flags.is_empty());
    let mut all = flags.map_or_else(OsString::new, |mut flags| {
        flags.push("\x1f");
        flags
    });
    all.push(flag);
    command::run(cargo.env("CARGO_ENCODED_RUSTFLAGS", all))?;
    Ok(folder.join(host).join("release/dotd"))
}

/// Merges the profiles of all ended processes into one.
fn merge(merger: &Path, profiles: &Path, profile: &Path) -> Result<()> {
    let left: Vec<PathBuf> =
        fs::read_dir(profiles)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    if left.is_empty() {
        bail!(
            "the dotd that counts left no profile in {}: it was killed before it could",
            profiles.display()
        );
    }
    command::run(Command::new(merger).args(["merge", "-o"]).arg(profile).args(left))
}

impl Rustc {
    fn ask(root: &Path) -> Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let ask =
            |arguments: &[&str]| command::output(Command::new(&rustc).args(arguments).current_dir(root));
        let (version, sysroot) = (ask(&["-vV"])?, ask(&["--print", "sysroot"])?);
        Self::from_answers(&version, &sysroot)
    }

    fn from_answers(version: &str, sysroot: &str) -> Result<Self> {
        let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name));
        let host = field("host: ").context("rustc -vV names no host")?.to_owned();
        let llvm = field("LLVM version: ").and_then(|version| version.split('.').next()?.parse().ok());
        Ok(Self { sysroot: sysroot.trim().into(), host, llvm: llvm.context("rustc -vV names no LLVM")? })
    }

    /// The merge tool of the same LLVM: it refuses or misreads profiles of another version.
    fn merger(&self, is_there: &dyn Fn(&Path) -> bool) -> Result<PathBuf> {
        let (host, llvm) = (&self.host, self.llvm);
        let places = [
            self.sysroot.join("lib/rustlib").join(host).join("bin/llvm-profdata"),
            format!("/usr/bin/llvm-profdata-{llvm}").into(),
            format!("/usr/lib/llvm-{llvm}/bin/llvm-profdata").into(),
        ];
        places.into_iter().find(|place| is_there(place)).with_context(|| {
            format!("no llvm-profdata of LLVM {llvm}: rustup component add llvm-tools, or apt-get install llvm-{llvm}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: &str =
        "rustc 1.95.0 (x 2026-04-14)\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.2\n";

    /// Goal: the merge tool has the version of rustc's LLVM, rustup's before apt's; without one the error names the
    /// remedy. Method: machines with the right tool, with that of another version, and without one.
    #[test]
    fn merger_of_the_same_llvm() {
        let rustc = Rustc::from_answers(VERSION, "/rust\n").unwrap();
        assert_eq!((rustc.llvm, rustc.host.as_str()), (22, "x86_64-unknown-linux-gnu"));
        let component = "/rust/lib/rustlib/x86_64-unknown-linux-gnu/bin/llvm-profdata";
        assert_eq!(rustc.merger(&|_| true).unwrap(), Path::new(component));
        let apts = Path::new("/usr/bin/llvm-profdata-22");
        assert_eq!(rustc.merger(&|path| path == apts).unwrap(), apts);
        let other = rustc.merger(&|path| path == Path::new("/usr/bin/llvm-profdata-14")).unwrap_err();
        assert!(other.to_string().contains("llvm-22"), "{other}");
        assert!(Rustc::from_answers("rustc 1.95.0\n", "/rust").is_err());
    }
}
