//! Objects in the BPF file system that a dotd of another version left.
//!
//! Before: dotd's own folder of pins is open. After: links of another schema are in it, so that this dotd's program
//! replaces theirs without a gap; the maps beside them, whose shape differs, are gone.
//! Never: takes anything from a running dotd, from another network namespace, or from a folder to which another user
//! could write.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
};

use dot_common::settings::SCHEMA;
use nix::{
    fcntl::{AtFlags, Flock, FlockArg, renameat},
    sys::stat::{SFlag, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{
    XdpError,
    folder::{self, is_ours},
};
use crate::disk;

/// Moves and removes the content of the folders beside dotd's own. `root` holds a folder for each schema, each of which
/// holds one for each network namespace; `ours` is the folder of this schema and namespace.
/// `is_link`: whether a pin of a name is a link.
pub(super) fn adopt(root: &File, ours: &File, is_link: fn(&str) -> bool) -> Result<(), XdpError> {
    let own = format!("v{SCHEMA}");
    let names = namespaces()?;
    for schema in folder::names(root).into_iter().filter(|name| *name != own) {
        let Ok(of_schema) = disk::open_folder_in(root, &schema) else { continue };
        if !is_ours(&of_schema) {
            continue;
        }
        for name in &names {
            match disk::open_folder_in(&of_schema, name) {
                Ok(left) if is_ours(&left) => take_from(left, &schema, ours, is_link)?,
                _ => continue,
            }
            // A folder that is not empty stays.
            let _ = unlinkat(&of_schema, name.as_str(), UnlinkatFlags::RemoveDir);
        }
        let _ = unlinkat(root, schema.as_str(), UnlinkatFlags::RemoveDir);
    }
    Ok(())
}

/// The names of this network namespace in the folder of a schema: up to schema 3 it was an inode.
pub(super) fn namespaces() -> Result<Vec<String>, XdpError> {
    let inode = fs::metadata("/proc/thread-self/ns/net").map(|found| found.ino().to_string()).ok();
    Ok(inode.into_iter().chain([folder::identity()?]).collect())
}

/// Takes the links, and removes the maps, unless a dotd of that version holds them.
fn take_from(left: File, schema: &str, ours: &File, is_link: fn(&str) -> bool) -> Result<(), XdpError> {
    let is_for_us_alone = left.metadata().is_ok_and(|found| found.mode() & 0o077 == 0);
    let left = match Flock::lock(left, FlockArg::LockExclusiveNonblock) {
        Ok(left) => left,
        // Another user could have opened and locked it.
        Err(_) if !is_for_us_alone => return Ok(()),
        Err(_) => return Err(XdpError::Locked { folder: format!("dotd/{schema}") }),
    };
    let (mut moved, mut removed) = (0, 0);
    for name in folder::names(&left) {
        let is_moved = is_link(&name)
            && is_pin(&left, &name)
            && !folder::has(ours, &name)
            && renameat(&*left, name.as_str(), ours, name.as_str()).is_ok();
        if is_moved {
            moved += 1;
            continue;
        }
        match unlinkat(&*left, name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) => removed += 1,
            Err(errno) => tracing::warn!("dotd/{schema}: {name}: {}", errno.desc()),
        }
    }
    tracing::info!(
        "dotd/{schema}: left by a dotd of another version: {moved} links taken over, {removed} other pins removed"
    );
    Ok(())
}

/// Whether a name is a pin, and not a symbolic link.
pub(super) fn is_pin(folder: &File, name: &str) -> bool {
    let found = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    found.is_ok_and(|found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG)
}
