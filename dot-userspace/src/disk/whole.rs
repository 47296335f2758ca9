//! Writes a file of dotd's own so that readers, and a start after a crash, see either the old or the new one as a
//! whole.
//!
//! Before: the text is complete. After: it is on the disk under its name, with mode 0600.
//! Never: walks the path of the folder twice, or writes into an existing file.
//!
//! Source: rename(2), RENAME_NOREPLACE; fsync(2).

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};

use super::{open_folder, path_of};
use crate::effective::as_owner;

/// How a new file replaces the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// An existing file stays.
    OnlyIfAbsent,
    /// An existing file is replaced.
    Replace,
}

/// Writes a draft beside `path`, then renames it: readers see the whole file or none.
///
/// # Errors
/// The folder does not exist, or may not be written to; with [`Arrival::OnlyIfAbsent`] the file exists.
pub fn write_whole(path: &Path, text: &str, arrival: Arrival) -> io::Result<()> {
    let folder = open_folder(path.parent().unwrap_or(Path::new("")))?;
    // By the open folder from here on, because its path may lead elsewhere later.
    let path = &path_of(&folder).join(path.file_name().unwrap_or_default());
    as_owner(folder.metadata()?.uid(), || write_in(path, text, arrival))?;
    folder.sync_all()
}

/// In an open folder.
fn write_in(path: &Path, text: &str, arrival: Arrival) -> io::Result<()> {
    let draft = draft_path(path);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let arrived = written.and_then(|()| match arrival {
        Arrival::OnlyIfAbsent => rename_if_absent(&draft, path),
        Arrival::Replace => fs::rename(&draft, path),
    });
    let _ = fs::remove_file(&draft);
    arrived
}

/// The file never has two names, because a reader that accepts only files with one name would reject it for that
/// moment.
fn rename_if_absent(draft: &Path, path: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, draft, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
        // The file system does not support this.
        Err(Errno::EINVAL | Errno::ENOSYS) => fs::hard_link(draft, path),
        renamed => Ok(renamed?),
    }
}

/// A separate name for each writer, in the same folder, because a rename does not cross file systems. It begins like
/// `path`, so that a draft that remained after a crash counts as dotd's own.
fn draft_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{:?}", std::process::id(), std::thread::current().id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a reader sees only whole files, and no other file remains; a file that may not be replaced stays.
    /// Method: two writers and a reader at the same time.
    #[test]
    fn files_arrive_whole() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("kept.json");
        write_whole(&path, &"a".repeat(9000), Arrival::OnlyIfAbsent).unwrap();
        let error = write_whole(&path, "b", Arrival::OnlyIfAbsent).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        std::thread::scope(|scope| {
            for letter in ["a", "b"] {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        write_whole(path, &letter.repeat(9000), Arrival::Replace).unwrap();
                    }
                });
            }
            for _ in 0..200 {
                let text = fs::read_to_string(&path).unwrap();
                assert_eq!(text.len(), 9000);
                assert!(text.bytes().all(|octet| octet == text.as_bytes()[0]));
            }
        });
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "no draft is left");
    }
}
