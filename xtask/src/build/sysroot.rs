//! The C library of Debian 11, to link with: a program that is linked with glibc 2.31 runs with every later one.
//!
//! Before: a Debian or Ubuntu with apt. After: a folder of the user's cache has its headers and libraries.
//! Holds: the packages. Never: installs a package on this machine, or takes one without Debian's signature.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    kernels::{MIRROR, Packages},
    setup,
};

/// The version that programs ask for at most.
pub(crate) const GLIBC: &str = "2.31";
const SUITE: &str = "bullseye";
const PACKAGES: [&str; 4] = ["libc6", "libc6-dev", "libgcc-s1", "linux-libc-dev"];
/// How the folder of an unfinished fetch begins; the id of its process follows.
const DRAFT: &str = "glibc-draft-";

/// The folder; fetched and unpacked the first time.
///
/// # Errors
/// This machine has no apt, or Debian's archive cannot be reached.
pub(super) fn find() -> Result<PathBuf> {
    let cache = setup::cache_folder().context("no HOME and no XDG_CACHE_HOME: set one")?.join("dotd");
    let folder = cache.join(format!("glibc-{GLIBC}-{}", std::env::consts::ARCH));
    if folder.is_dir() {
        return Ok(folder);
    }
    for program in ["apt-get", "dpkg-deb"] {
        if !setup::is_command(program) {
            bail!(
                "{program} is missing, which fetches glibc {GLIBC} from Debian 11: build with --this-glibc"
            );
        }
    }
    remove_drafts(&cache);
    println!("glibc {GLIBC}: fetching {} of {SUITE} into {}, once", PACKAGES.join(", "), folder.display());
    let draft = cache.join(format!("{DRAFT}{}", std::process::id()));
    let made = make(&draft).and_then(|root| keep(&root, &folder));
    let _ = fs::remove_dir_all(&draft);
    made.with_context(|| format!("no glibc {GLIBC} from {MIRROR} {SUITE}"))?;
    Ok(folder)
}

/// Removes what fetches left that were ended.
fn remove_drafts(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process =
            name.to_str().and_then(|name| name.strip_prefix(DRAFT)).map(|id| Path::new("/proc").join(id));
        if process.is_some_and(|process| !process.exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Puts the finished folder into its place, unless another build was first.
fn keep(made: &Path, folder: &Path) -> Result<()> {
    match fs::rename(made, folder) {
        Err(error) if !folder.is_dir() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Has a C compiler take headers from there.
pub(super) fn flag(sysroot: &Path) -> OsString {
    let mut flag = OsString::from("--sysroot=");
    flag.push(sysroot);
    flag
}

/// Has rustc link with it. gcc looks for libraries and startfiles beside its own first, wherever `--sysroot` leads: `-B` and `-L`
/// come before that. The startfiles matter: those of glibc 2.34 and newer leave constructors to a C library of that age.
pub(super) fn link_flags(sysroot: &Path) -> Vec<OsString> {
    let own = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    let places = [
        ("-B", sysroot.join("usr").join(&own)),
        ("-L", sysroot.join("usr").join(&own)),
        ("-L", sysroot.join(own)),
    ];
    let places = places.into_iter().map(|(option, place)| {
        let mut flag = OsString::from(option);
        flag.push(place);
        flag
    });
    let link = |flag: OsString| {
        let mut whole = OsString::from("-Clink-arg=");
        whole.push(flag);
        whole
    };
    std::iter::once(flag(sysroot)).chain(places).map(link).collect()
}

/// Fetches with lists of its own, so that this machine's apt sees nothing of it; returns the folder with the unpacked packages.
fn make(draft: &Path) -> Result<PathBuf> {
    let archive = Packages::of_suite(draft.join("apt"), SUITE, debian_architecture())?;
    let work = draft.join("work");
    archive.unpack(&PACKAGES.map(|name| format!("{name}/{SUITE}")), &work)?;
    let root = work.join("tree");
    lead_inside(&root, &root)?;
    Ok(root)
}

/// This machine's architecture as Debian names it.
fn debian_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Has absolute links lead to the same place inside `root`, by relative paths: the folder is renamed later.
fn lead_inside(root: &Path, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_symlink() {
            let to = fs::read_link(&path)?;
            if let Ok(inside) = to.strip_prefix("/") {
                let depth = folder.strip_prefix(root)?.components().count();
                let up: PathBuf = std::iter::repeat_n("..", depth).collect();
                fs::remove_file(&path)?;
                symlink(up.join(inside), &path)?;
            }
        } else if kind.is_dir() {
            lead_inside(root, &path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a link of the old system leads to the old library and never to this machine's. Method: an absolute link three folders
    /// deep, a relative one, and the folder renamed. Covers: C-762.
    #[test]
    fn links_stay_inside() {
        let folder = tempfile::tempdir().expect("a folder");
        let (root, later) = (folder.path().join("draft"), folder.path().join("later"));
        fs::create_dir_all(root.join("usr/lib/machine")).expect("a folder");
        fs::create_dir_all(root.join("lib")).expect("a folder");
        fs::write(root.join("lib/libdl.so.2"), "old").expect("a file");
        symlink("/lib/libdl.so.2", root.join("usr/lib/machine/libdl.so")).expect("a link");
        symlink("libdl.so", root.join("usr/lib/machine/other.so")).expect("a link");
        lead_inside(&root, &root).expect("it does");
        fs::rename(&root, &later).expect("it moves");
        for name in ["libdl.so", "other.so"] {
            let read = fs::read_to_string(later.join("usr/lib/machine").join(name));
            assert_eq!(read.expect("it leads there"), "old");
        }
    }

    /// Goal: a fetch that was ended leaves nothing for good, and disturbs no other. Method: the drafts of this process and of one
    /// that cannot exist, beside another folder; a folder that another build has put there meanwhile. Covers: C-762.
    #[test]
    fn an_ended_fetch_leaves_nothing() {
        let cache = tempfile::tempdir().expect("a folder");
        let own = format!("{DRAFT}{}", std::process::id());
        // Greater than the kernel's largest id of a process.
        for name in [&own, &format!("{DRAFT}4194305"), "kernels"] {
            fs::create_dir_all(cache.path().join(name).join("root")).expect("a folder");
        }
        remove_drafts(cache.path());
        let mut left: Vec<_> =
            fs::read_dir(cache.path()).expect("it").flatten().map(|one| one.file_name()).collect();
        left.sort();
        assert_eq!(left, [own.as_str(), "kernels"]);
        let (made, folder) = (cache.path().join(&own).join("root"), cache.path().join("kernels"));
        keep(&made, &folder).expect("another build was first");
        keep(&made, &cache.path().join("glibc")).expect("it moves");
        keep(&made, &cache.path().join("other")).expect_err("nothing was made");
    }
}
