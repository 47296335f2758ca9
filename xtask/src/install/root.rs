//! Debian's root file systems, made by debootstrap and kept as archives in the user's cache.
//!
//! Before: a suite. After: an archive that a kernel unpacks, with systemd, the clients and the backend of the walk in it.
//! Never: fetches a package that is in the cache, or keeps the folder from which the archive was made.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{command, setup};

/// The packages that the walk needs, beside those of every Debian.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,procps,openssl,ca-certificates,man-db,bash-completion,knot-dnsutils,nsd";
/// Changes when [`PACKAGES`] does.
const EDITION: u32 = 1;
const MIRROR: &str = "http://deb.debian.org/debian";

/// The archive of a suite; it is made if the cache has none.
///
/// # Errors
/// debootstrap or busybox failed.
pub(super) fn archive(suite: &str) -> Result<PathBuf> {
    let cache = setup::cache_folder().context("neither XDG_CACHE_HOME nor HOME is set")?.join("dotd/roots");
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let archive = cache.join(format!("{suite}-{EDITION}.cpio"));
    if archive.is_file() {
        return Ok(archive);
    }
    let tree = Tree(cache.join(format!("{suite}.tree-{}", std::process::id())));
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), suite]).arg(&tree.0).arg(MIRROR);
    command::run(debootstrap.stdout(Stdio::null()))?;
    for folder in ["var/cache/apt/archives", "var/lib/apt/lists"] {
        let _ = fs::remove_dir_all(tree.0.join(folder));
    }
    let part = cache.join(format!("{suite}.part-{}", std::process::id()));
    pack(&tree.0, &part)?;
    fs::rename(&part, &archive).with_context(|| archive.display().to_string())?;
    Ok(archive)
}

/// The tree as an archive: names by find, octets by busybox's cpio.
fn pack(tree: &Path, into: &Path) -> Result<()> {
    let mut find =
        Command::new("find").args([".", "-xdev"]).current_dir(tree).stdout(Stdio::piped()).spawn()?;
    let names = find.stdout.take().context("its output was asked for")?;
    let file = fs::File::create(into).with_context(|| into.display().to_string())?;
    let mut cpio = Command::new("busybox");
    cpio.args(["cpio", "-o", "-H", "newc"]).current_dir(tree).stdin(names).stdout(file).stderr(Stdio::null());
    let status = command::status(&mut cpio)?;
    if !find.wait()?.success() || !status.success() {
        bail!("cannot pack {}", tree.display());
    }
    Ok(())
}

/// The unpacked file system, removed with this value.
struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = command::run_quietly(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&self.0));
    }
}
