//! What a dotd of another version left in the BPF file system.
//!
//! Before: our own folder of pins is made and locked. After: links of another schema are in it, so that our program
//! takes their place without a gap; the maps beside them, whose shape is another one, are gone.
//! Never: takes anything from a dotd that runs, or from another network namespace.

use std::{
    fs::{self, File},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, renameat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{
    XdpError,
    pins::{Pins, is_link},
};

/// Moves and removes what is in the folders beside ours. `root` holds a folder for each schema, each of which
/// holds one for each network namespace.
pub(super) fn adopt(root: &Path, schema: &str, namespace: &str, ours: &Pins) -> Result<(), XdpError> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name() != schema) {
        let folder = entry.path().join(namespace);
        if let Ok(opened) = File::open(&folder) {
            let lock = Flock::lock(opened, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
                let name = folder.display().to_string();
                match errno {
                    Errno::EWOULDBLOCK => XdpError::Locked { folder: name },
                    errno => XdpError::Pins { path: name, reason: errno.desc().into() },
                }
            })?;
            empty(&folder, &lock, ours);
            // Where another namespace's folder is beside it, the second of these stays.
            let _ = fs::remove_dir(&folder);
            let _ = fs::remove_dir(entry.path());
        }
    }
    Ok(())
}

fn empty(folder: &Path, opened: &Flock<File>, ours: &Pins) {
    let (mut moved, mut removed) = (0, 0);
    for name in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name()) {
        let text = name.to_string_lossy();
        let is_moved = is_link(&text)
            && !ours.has(&text)
            && renameat(&**opened, name.as_os_str(), ours.folder(), name.as_os_str()).is_ok();
        if is_moved {
            moved += 1;
        } else {
            match unlinkat(&**opened, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) => removed += 1,
                Err(errno) => tracing::warn!("{}: {}", folder.join(&name).display(), errno.desc()),
            }
        }
    }
    tracing::info!(
        "{}: left by a dotd of another version: {moved} links taken over, {removed} other pins removed",
        folder.display()
    );
}
