//! What a dotd pinned in the usual BPF file system before it had one of its own.
//!
//! Before: a BPF file system of dotd's own is mounted, and its folders are open. After: links, and maps of this schema, that an earlier
//! dotd left in /sys/fs/bpf are pinned in it, and are gone there. Where /sys is read-only, as under the packaged unit, links
//! are detached, because their old pins would keep them attached for ever.
//! Never: takes anything from a running dotd, from another network namespace, or from a folder to which another user could write.

use std::{fs::File, io, path::Path};

use dot_common::settings::SCHEMA;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{
    XdpError,
    folder::{self, ROOT, USUAL, is_bpf, is_ours},
    pinned, stale,
};
use crate::disk;

/// Takes what is there into `ours`, the folder of this schema and network namespace. `is_link`: whether a pin of a name is a link.
pub(super) fn take(ours: &File, is_link: fn(&str) -> bool) -> Result<(), XdpError> {
    let Some(usual) = disk::open_folder(Path::new(USUAL)).ok().filter(is_bpf) else { return Ok(()) };
    let Some(root) = disk::open_folder_in(&usual, ROOT).ok().filter(is_ours) else { return Ok(()) };
    let remove = |parent: &File, name: &str| {
        // A folder that is not empty stays.
        let _ = unlinkat(parent, name, UnlinkatFlags::RemoveDir);
    };
    for schema in folder::names(&root) {
        let Ok(of_schema) = disk::open_folder_in(&root, &schema) else { continue };
        if !is_ours(&of_schema) {
            continue;
        }
        for name in stale::namespaces()? {
            match disk::open_folder_in(&of_schema, &name) {
                Ok(left) if is_ours(&left) => take_from(left, &schema, ours, is_link)?,
                _ => continue,
            }
            remove(&of_schema, &name);
        }
        remove(&root, &schema);
    }
    remove(&usual, ROOT);
    Ok(())
}

fn take_from(left: File, schema: &str, ours: &File, is_link: fn(&str) -> bool) -> Result<(), XdpError> {
    let locked = || XdpError::Locked { folder: format!("{USUAL}/{ROOT}/{schema}") };
    let left = Flock::lock(left, FlockArg::LockExclusiveNonblock).map_err(|_| locked())?;
    let is_same = schema == format!("v{SCHEMA}");
    let (mut moved, mut detached, mut stays) = (0, 0, 0);
    for name in folder::names(&left) {
        if !stale::is_pin(&left, &name) {
            continue;
        }
        let kept = if is_link(&name) || is_same {
            pinned::open(&disk::path_of(&*left).join(&name)).ok()
        } else {
            None
        };
        let is_gone = match unlinkat(&*left, name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => true,
            Err(_) => false,
        };
        stays += usize::from(!is_gone);
        let Some(object) = kept else { continue };
        if is_link(&name) && !is_gone {
            detached += usize::from(pinned::detach(&object).is_ok());
            continue;
        }
        match pinned::keep(&object, &disk::path_of(ours).join(&name)) {
            Ok(()) => moved += 1,
            // A dotd has pinned its own there since.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => tracing::warn!("{name} is not pinned: {error}"),
        }
    }
    let from = format!("{USUAL}/{ROOT}/{schema}");
    tracing::info!("{from}: {moved} pins moved to dotd's own BPF file system");
    if stays > 0 {
        tracing::warn!(
            "{from}: {stays} pins cannot be removed here; {detached} links were detached; run `dotd xdp detach` while dotd is stopped"
        );
    }
    Ok(())
}
