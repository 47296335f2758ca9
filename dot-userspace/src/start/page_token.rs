//! The token for actions from the page: 32 random octets in `run_dir`, readable by the engine's user and root.
//!
//! Before: the engine starts, and the page is on. After: `page.token` contains the token until the engine ends.
//! Never: follows a link, or uses an existing file: the user who made it may know its content.

use std::{fs::File, io, io::Write as _, path::Path, sync::Arc};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};

use crate::disk;

/// The file's name in `run_dir`.
pub(super) const PAGE_TOKEN: &str = "page.token";
/// Too many for an attacker to guess.
const OCTETS: usize = 32;

/// Makes a new token.
///
/// # Errors
/// The folder cannot be written, or there are no random numbers.
pub(super) fn make(run_dir: &Path) -> io::Result<Arc<str>> {
    let mut octets = [0; OCTETS];
    getrandom::fill(&mut octets).map_err(|error| io::Error::other(error.to_string()))?;
    let token: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    let folder = disk::open_folder(run_dir)?;
    match unlinkat(&folder, PAGE_TOKEN, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(&folder, PAGE_TOKEN, flags, Mode::from_bits_truncate(0o600))?);
    writeln!(file, "{token}")?;
    Ok(token.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// Goal: each start makes another token, in a file that only its owner may read, and a link in its place is not
    /// followed. Method: two of them; a link to another file.
    #[test]
    fn a_token_is_new_and_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PAGE_TOKEN);
        let first = make(folder.path()).unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, "x").unwrap();
        std::fs::remove_file(&path).unwrap();
        symlink(&other, &path).unwrap();
        let second = make(folder.path()).unwrap();
        assert!(first != second && second.len() == 2 * OCTETS);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{second}\n"));
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "x");
        let found = std::fs::symlink_metadata(&path).unwrap();
        assert!(found.is_file() && found.permissions().mode() & 0o777 == 0o600);
    }
}
