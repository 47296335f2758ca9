//! Release builds: the same octets in whatever folder they are made, and programs that older systems run.
//!
//! Before: a checkout, and the folder for what is built. After: dotd for this machine's C library, or for glibc 2.31.
//! Holds: the names that stand for folders in what is built.
//! Never: changes debug builds, whose paths lead a debugger to the sources.
//!
//! Source: reproducible-builds.org/docs/build-path; rustc's `--remap-path-prefix`, gcc's `-ffile-prefix-map`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::sysroot;
use crate::{command, setup};

/// The C library that a program is linked with. It runs with that one and every later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    /// That of this machine.
    Machines,
    /// glibc 2.31, of Debian 11.
    Old,
}

/// The compiler's facts that a release build depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rustc {
    sysroot: PathBuf,
    /// The commit that rustc names its own sources by, where they are not installed.
    commit: String,
}

/// cargo, told to leave the names of folders out. RUSTFLAGS and CFLAGS of the environment are kept.
///
/// # Errors
/// rustc does not start.
pub(crate) fn cargo(root: &Path, target: &Path, library: Library) -> Result<Command> {
    let rustc = Rustc::ask(root)?;
    let sysroot = (library == Library::Old).then(sysroot::find).transpose()?;
    let mut folders = folders(root, target, &rustc);
    folders
        .extend(sysroot.iter().map(|path| Folder { path: path.clone(), name: "/usr/src/glibc".to_owned() }));
    let mut cargo = command::cargo(root);
    let mut flags: Vec<OsString> = match std::env::var("CARGO_ENCODED_RUSTFLAGS") {
        Ok(encoded) => encoded.split('\x1f').filter(|flag| !flag.is_empty()).map(OsString::from).collect(),
        Err(_) => {
            std::env::var("RUSTFLAGS").unwrap_or_default().split_whitespace().map(OsString::from).collect()
        }
    };
    flags.extend(folders.iter().map(|folder| folder.flag("--remap-path-prefix=")));
    flags.extend(sysroot.iter().flat_map(|sysroot| sysroot::link_flags(sysroot)));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join(&OsString::from("\x1f")));
    let own = std::env::var_os("CFLAGS");
    let flags = folders.iter().map(|folder| folder.flag("-ffile-prefix-map="));
    let flags = own.into_iter().chain(flags).chain(sysroot.iter().map(|sysroot| sysroot::flag(sysroot)));
    let flags: Vec<OsString> = flags.collect();
    cargo.env("CFLAGS", flags.join(&OsString::from(" ")));
    // The C of mimalloc has its time of compilation in the program.
    if let Ok(epoch) = epoch(root) {
        cargo.env(EPOCH, epoch);
    }
    cargo.arg("build").arg("--release").arg("--target-dir").arg(target);
    Ok(cargo)
}

/// The variable by which compilers and packers learn the time that they write.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The time that is written, in seconds since 1970: SOURCE_DATE_EPOCH, or the time of the commit.
///
/// # Errors
/// There is neither.
pub(crate) fn epoch(root: &Path) -> Result<String> {
    if let Ok(epoch) = std::env::var(EPOCH) {
        return Ok(epoch);
    }
    let time = command::output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root));
    Ok(time.context("set SOURCE_DATE_EPOCH where there is no git")?.trim().to_owned())
}

/// Builds dotd and returns its path.
///
/// # Errors
/// The library cannot be had, or the build failed.
pub(crate) fn dotd(root: &Path, target: &Path, library: Library) -> Result<PathBuf> {
    setup::ensure(setup::Wants::default())?;
    let mut cargo = cargo(root, target, library)?;
    command::run(cargo.args(["--package", "dot-userspace", "--bin", "dotd"]))?;
    Ok(target.join("release/dotd"))
}

/// A folder and the name that stands for it in what is built.
struct Folder {
    path: PathBuf,
    name: String,
}

impl Folder {
    fn flag(&self, option: &str) -> OsString {
        let mut flag = OsString::from(option);
        flag.push(&self.path);
        flag.push("=");
        flag.push(&self.name);
        flag
    }
}

/// The folders whose names could get into a program. Of several that fit, compilers take the last one.
fn folders(root: &Path, target: &Path, rustc: &Rustc) -> Vec<Folder> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| home.map(|home| home.join(".cargo")));
    let folder = |path: PathBuf, name: &str| Folder { path, name: name.to_owned() };
    let mut folders = vec![
        folder(root.to_path_buf(), "/usr/src/dotd"),
        folder(target.to_path_buf(), "/usr/src/dotd/target"),
        folder(rustc.sysroot.join("lib/rustlib/src/rust"), &format!("/rustc/{}", rustc.commit)),
    ];
    folders.extend(cargo.map(|cargo| folder(cargo, "/usr/src/cargo")));
    folders
}

impl Rustc {
    fn ask(root: &Path) -> Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let ask =
            |arguments: &[&str]| command::output(Command::new(&rustc).args(arguments).current_dir(root));
        let (version, sysroot) = (ask(&["-vV"])?, ask(&["--print", "sysroot"])?);
        let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name));
        Ok(Self {
            sysroot: sysroot.trim().into(),
            commit: field("commit-hash: ").unwrap_or("unknown").to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Goal: the folder of a build, of its sources and of its results is not in a program, and neither is anything else that
    /// differs between two folders. Method: a crate with a panic, the name of its own file and debug information, built in
    /// two folders with names of different lengths, as dotd is. Covers: C-760.
    #[test]
    fn a_folder_leaves_no_trace() {
        let folder = tempfile::tempdir().expect("a folder");
        let built = ["one", "another-folder"].map(|name| {
            let root = folder.path().join(name);
            let target = root.join("results");
            fs::create_dir_all(root.join("src")).expect("a folder");
            let manifest = "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n\
                [profile.release]\ndebug = \"line-tables-only\"\n";
            fs::write(root.join("Cargo.toml"), manifest).expect("a file");
            let code = "fn main() { println!(\"{}\", file!()); std::env::args().nth(1).expect(\"a word\"); }";
            fs::write(root.join("src/main.rs"), code).expect("a file");
            command::run_quietly(cargo(&root, &target, Library::Machines).expect("cargo").arg("--quiet")).expect("it builds");
            let program = fs::read(target.join("release/tiny")).expect("a program");
            let root = root.display().to_string();
            assert!(!program.windows(root.len()).any(|part| part == root.as_bytes()), "{root} is in it");
            program
        });
        assert!(built[0] == built[1], "the programs differ");
    }

    /// Goal: the time that a compiler of C writes is the commit's, and so the same tomorrow. Method: what gcc makes of the current
    /// time with the variables of a release build. Covers: C-760.
    #[test]
    fn the_time_is_that_of_the_commit() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
        let build = cargo(root, Path::new("results"), Library::Machines).expect("cargo");
        let time = build.get_envs().find(|(name, _)| *name == EPOCH).and_then(|(_, value)| value);
        let time = time.map(|time| time.to_str().expect("digits").to_owned());
        // Sources without git have no commit.
        assert_eq!(time, epoch(root).ok());
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("time.c");
        fs::write(&file, "__DATE__ __TIME__").expect("a file");
        let preprocessed = |epoch: &str| {
            let mut cc = Command::new("cc");
            command::output(cc.args(["-E", "-P"]).arg(&file).env(EPOCH, epoch)).expect("cc").trim().to_owned()
        };
        assert_eq!(preprocessed("0"), "\"Jan  1 1970\" \"00:00:00\"");
        assert_eq!(preprocessed("86400"), "\"Jan  2 1970\" \"00:00:00\"");
    }
}
