//! `cargo xtask dist --verify`: builds and packs a commit twice, in two folders, and compares.
//!
//! Before: a commit. After: the packages of both are equal, octet by octet, or a list of those that differ.
//! Both are packed by dot-dist of the checkout.
//! Never: puts into a package what the checkout or the other folder has built.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{Dist, pack};
use crate::{build, command};

/// Names of different lengths: a length can also be in a program.
const FOLDERS: [&str; 2] = ["one", "another-folder-of-the-same-commit"];

/// Builds, packs and compares. The packages of the first folder stay where packages go.
///
/// # Errors
/// A step failed, or a package differs.
pub(super) fn run(root: &Path, arguments: &Dist) -> Result<()> {
    let folder = build::target(root).join("verify");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    // Named once: a commit that is made meanwhile is in neither.
    let head = command::output(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root))?;
    let [first, second] = FOLDERS.map(|name| make(root, &folder.join(name), head.trim(), arguments));
    let (first, second) = (first?, second?);
    let differing = compare(&first, &second)?;
    if !differing.is_empty() {
        bail!("{} differ: see {}", differing.join(", "), folder.display());
    }
    let into = arguments.into.clone().unwrap_or_else(|| build::target(root).join("dist"));
    fs::create_dir_all(&into)?;
    for name in names(&first)? {
        fs::copy(first.join(&name), into.join(&name))?;
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// A clone of the commit, its program and packages; the folder of the packages.
fn make(root: &Path, clone: &Path, commit: &str, arguments: &Dist) -> Result<PathBuf> {
    let mut git = Command::new("git");
    command::run(git.args(["clone", "--quiet", "--no-hardlinks"]).arg(root).arg(clone))?;
    let mut git = Command::new("git");
    command::run(git.args(["checkout", "--quiet", "--detach", commit]).current_dir(clone))?;
    let (target, into) = (clone.join("target"), clone.join("packages"));
    let program = super::make(clone, &target, arguments.library())?;
    pack(root, clone, &program, &into, arguments.revision)?;
    Ok(into)
}

/// Names of the files that are not the same in both; prints the others.
fn compare(first: &Path, second: &Path) -> Result<Vec<String>> {
    let (ours, theirs) = (names(first)?, names(second)?);
    if ours != theirs {
        bail!("{ours:?} here, {theirs:?} there");
    }
    let mut differing = Vec::new();
    for name in ours {
        let octets = fs::read(first.join(&name))?;
        if octets == fs::read(second.join(&name))? {
            println!("dist: equal: {name} ({} octets)", octets.len());
        } else {
            println!("dist: DIFFERS: {name}");
            differing.push(name);
        }
    }
    Ok(differing)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf_object;

    /// Goal: the kernel half's object, which is a part of dotd, is the same from whatever folder. Method: built in the checkout, and
    /// in a copy of its sources in a folder with a longer name; neither has the folder's name in it. Covers: C-760.
    #[test]
    fn the_kernel_half_is_the_same_from_every_folder() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
        let toolchain = bpf_object::find().expect("setup has run");
        let scratch = tempfile::tempdir().expect("a folder");
        let copy = scratch.path().join("dotd-copy-of-the-sources");
        let members = fs::read_to_string(root.join("Cargo.toml")).expect("a manifest");
        fs::create_dir(&copy).expect("a folder");
        fs::write(copy.join("Cargo.toml"), members).expect("a file");
        fs::copy(root.join("Cargo.lock"), copy.join("Cargo.lock")).expect("a file");
        let folders =
            ["dot-common", "dot-ebpf", "dot-userspace", "tests", "fuzz", "benches", "dist", "xtask"];
        for folder in folders {
            let mut cp = Command::new("cp");
            command::run_quietly(cp.arg("-r").arg(root.join(folder)).arg(&copy)).expect("cp");
        }
        let objects = [root, &copy].map(|folder| {
            let object = bpf_object::build(folder, &toolchain, &[]).expect("it builds");
            let octets = fs::read(object).expect("an object");
            let name = folder.display().to_string();
            assert!(!octets.windows(name.len()).any(|part| part == name.as_bytes()), "{name} is in it");
            octets
        });
        assert!(objects[0] == objects[1], "the objects differ");
    }
}
