//! The folder of the keeper's with files that the engine must not read: the accounts of ACME.
//!
//! Before: the service manager made it (`--keeper-dir`), or `start` has the rights to make it, in `server.state_dir`, a folder of
//! `server.user`'s. After: the keeper holds it open, and opens a file in it for
//! each ACME process.
//! Holds: the path of `--keeper-dir`, noted once; the descriptor is with the sockets, and outlives engines and programs as they do.
//! Never: reads or writes a file of it; uses a folder that another user owns or may enter: an engine that was taken over owns the folder
//! above, and may have put another one in its place.
//!
//! Source: RFC 8555 §7.3 (the account key signs every order), openat(2).

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::{Mode, mkdirat},
    unistd::geteuid,
};

use crate::disk;

/// Its name in `server.state_dir`.
pub const FOLDER: &str = "keeper";

static GIVEN: OnceLock<PathBuf> = OnceLock::new();

/// Notes the folder of `--keeper-dir`; only the first call counts.
pub fn keep_accounts_in(folder: PathBuf) {
    let _ = GIVEN.set(folder);
}

/// The path of the folder.
pub(super) fn path(state_dir: &Path) -> PathBuf {
    GIVEN.get().cloned().unwrap_or_else(|| state_dir.join(FOLDER))
}

/// Opens the folder. In `server.state_dir` it is made if it is absent.
///
/// # Errors
/// One line with the path: it cannot be made, or another user could read it.
pub fn open_folder(state_dir: &Path) -> Result<OwnedFd, String> {
    open_at(&path(state_dir), GIVEN.get().is_some(), state_dir)
}

fn open_at(path: &Path, is_given: bool, state_dir: &Path) -> Result<OwnedFd, String> {
    let line = |error: io::Error| format!("{}: {error}", path.display());
    if is_given {
        let opened = disk::open_folder(path).map_err(line)?;
        check(&opened, geteuid().as_raw()).map_err(|what| format!("{}: {what}", path.display()))?;
        return Ok(opened.into());
    }
    let above = disk::make_folder(state_dir, 0o700).map_err(line)?;
    let opened = match disk::open_folder_in(&above, FOLDER) {
        Err(Errno::ENOENT) => mkdirat(&above, FOLDER, Mode::S_IRWXU)
            .and_then(|()| disk::open_folder_in(&above, FOLDER))
            .map_err(|errno| format!("{}: cannot be made: {}; restart dotd", path.display(), errno.desc())),
        opened => opened.map_err(|errno| line(errno.into())),
    }?;
    check(&opened, geteuid().as_raw()).map_err(|what| format!("{}: {what}", path.display()))?;
    Ok(opened.into())
}

fn check(folder: &File, own: u32) -> Result<(), String> {
    let found = folder.metadata().map_err(|error| error.to_string())?;
    let (owner, mode) = (found.uid(), found.mode() & 0o777);
    if owner == own && mode & 0o077 == 0 {
        return Ok(());
    }
    Err(format!(
        "belongs to uid {owner} with mode {mode:03o}, and must be of uid {own} and mode 700, because it holds the account of [acme]; \
         remove it, and restart dotd"
    ))
}

/// Opens a file of the folder for an ACME process, and makes it if it is absent.
pub(super) fn open(folder: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(folder, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        io::Write as _,
        os::unix::fs::{PermissionsExt as _, chown, symlink},
    };

    use super::*;

    /// Goal: the folder is made for its owner alone, is found again, and one that another user made, may enter, or leads to by a link is
    /// refused with the remedy. Method: each of these in a folder of another user's. As root.
    #[test]
    fn a_folder_of_another_user_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join(FOLDER);
        let folder = open_folder(scratch.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        File::from(open(&folder, "account-a.json").unwrap()).write_all(b"key").unwrap();
        let file = path.join("account-a.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let again = open_folder(scratch.path()).unwrap();
        assert_eq!(io::read_to_string(File::from(open(&again, "account-a.json").unwrap())).unwrap(), "key");
        symlink("account-a.json", path.join("account-b.json")).unwrap();
        assert!(open(&again, "account-b.json").is_err(), "a link");
        fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        let said = open_folder(scratch.path()).unwrap_err();
        assert!(said.contains("mode 750") && said.contains("remove it, and restart dotd"), "{said}");
        fs::rename(&path, scratch.path().join("elsewhere")).unwrap();
        symlink("elsewhere", &path).unwrap();
        assert!(open_folder(scratch.path()).is_err(), "a link");
        fs::remove_file(&path).unwrap();
        let given = scratch.path().join("given");
        let absent = open_at(&given, true, scratch.path()).unwrap_err();
        assert!(absent.contains("given: "), "{absent}");
        fs::create_dir(&given).unwrap();
        fs::set_permissions(&given, Permissions::from_mode(0o750)).unwrap();
        let said = open_at(&given, true, scratch.path()).unwrap_err();
        assert!(said.contains("mode 750"), "{said}");
        fs::set_permissions(&given, Permissions::from_mode(0o700)).unwrap();
        open_at(&given, true, scratch.path()).unwrap();
        if !geteuid().is_root() {
            return;
        }
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        chown(&path, Some(65_534), Some(65_534)).unwrap();
        let said = open_folder(scratch.path()).unwrap_err();
        assert!(said.contains("belongs to uid 65534"), "{said}");
    }
}
