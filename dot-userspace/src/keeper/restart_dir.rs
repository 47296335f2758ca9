//! The folder whose content says at a start that it follows a restart: root's, and emptied by the service manager at a stop.
//!
//! Before: an engine serves by a config. After: the folder has its text, and the next start finds it.
//! Never: believes a file that another user could have written: a config says which files root reads.
//!
//! Source: systemd.exec(5), RuntimeDirectoryPreserve=.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use nix::unistd::geteuid;

use crate::disk::{self, Arrival, write_whole};

/// Its file.
const FILE_NAME: &str = "served.toml";
/// The longest config that is read.
const TEXT_OCTETS_MAX: u64 = 4 << 20;

/// The config that was served before a restart. `None`: this start follows a stop.
///
/// # Errors
/// The file cannot be read, or another user could have written it.
pub fn served_before(folder: &Path) -> io::Result<Option<String>> {
    match read(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => text.map(Some),
    }
}

fn read(folder: &Path) -> io::Result<String> {
    ours(&disk::open_folder(folder)?)?;
    let file = disk::open_own(&folder.join(FILE_NAME))?;
    ours(&file)?;
    let mut text = String::new();
    file.take(TEXT_OCTETS_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > TEXT_OCTETS_MAX {
        return Err(io::Error::other(format!("it is longer than {TEXT_OCTETS_MAX} octets")));
    }
    Ok(text)
}

fn ours(found: &File) -> io::Result<()> {
    let found = found.metadata()?;
    if ![0, geteuid().as_raw()].contains(&found.uid()) || found.mode() & 0o022 != 0 {
        return Err(io::Error::other("other users could have written it"));
    }
    Ok(())
}

/// This text is served.
pub(super) fn note(folder: &Path, text: &str) {
    if let Err(error) = write_whole(&folder.join(FILE_NAME), text, Arrival::Replace) {
        tracing::warn!("{}: the config that is served is not kept for a restart: {error}", folder.display());
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    /// Goal: a restart finds the config that was served, and none where another user could have written it, or where it is not whole; a
    /// pipe is not waited for. Method: a folder of our own; then one, and a file, that every user may write; a file that is too long; a
    /// pipe.
    #[test]
    fn only_our_own_config_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(served_before(folder.path()).unwrap(), None);
        note(folder.path(), "[log]\n");
        assert_eq!(served_before(folder.path()).unwrap().as_deref(), Some("[log]\n"));
        let file = folder.path().join(FILE_NAME);
        for (path, mode, usual) in [(folder.path(), 0o777, 0o700), (&*file, 0o622, 0o600)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(served_before(folder.path()).is_err(), "{}", path.display());
            fs::set_permissions(path, fs::Permissions::from_mode(usual)).unwrap();
        }
        assert!(served_before(folder.path()).unwrap().is_some());
        fs::write(&file, "#".repeat(usize::try_from(TEXT_OCTETS_MAX).unwrap() + 1)).unwrap();
        assert!(served_before(folder.path()).is_err());
        fs::remove_file(&file).unwrap();
        mkfifo(&file, Mode::S_IRUSR).unwrap();
        assert!(served_before(folder.path()).is_err());
    }
}
