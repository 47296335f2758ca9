//! Small files in `server.run_dir` with what one engine leaves for the next one.
//!
//! Before: something has changed that the config does not say. After: the next engine of this dotd, after a crash or an upgrade, reads it.
//! Holds: how a file is written, read and removed; its content belongs to the module that names it.
//! Never: reads more octets than its caller permits, follows a link, or waits on a pipe.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    disk::{self, Arrival, write_whole},
    effective::as_owner,
};

/// Writes `content` as a whole.
pub(super) fn save(run_dir: &Path, name: &str, content: &impl Serialize) -> io::Result<()> {
    write_whole(&run_dir.join(name), &serde_json::to_string(content)?, Arrival::Replace)
}

/// The content of the file, which has `octets_max` octets at most. `None`: there is no file.
pub(super) fn read<T: DeserializeOwned>(
    run_dir: &Path,
    name: &str,
    octets_max: u64,
) -> io::Result<Option<T>> {
    let file = match disk::open_own(&run_dir.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut text = String::new();
    file.take(octets_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > octets_max {
        return Err(io::Error::other(format!("it is longer than {octets_max} octets")));
    }
    Ok(Some(serde_json::from_str(&text)?))
}

/// Removes the file. As a rule there is none.
pub(super) fn forget(run_dir: &Path, name: &str) {
    if let Ok(folder) = disk::open_folder(run_dir) {
        let owner = folder.metadata().map_or(0, |found| found.uid());
        let _ = as_owner(owner, || fs::remove_file(disk::path_of(&folder).join(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is kept is read as it was written; a longer file, another content, a link and a pipe are refused, and none is waited
    /// for. Method: each in the place of the file.
    #[test]
    fn only_what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, name) = (folder.path(), "kept");
        let look = || read::<Vec<u8>>(path, name, 9);
        assert!(look().unwrap().is_none());
        save(path, name, &[1_u8, 2, 3]).unwrap();
        assert_eq!(look().unwrap(), Some(vec![1, 2, 3]));
        for text in ["[1,2,3,44]", "\"one\"", "[1"] {
            fs::write(path.join(name), text).unwrap();
            assert!(look().is_err(), "{text}");
        }
        forget(path, name);
        std::os::unix::fs::symlink(path.join("elsewhere"), path.join(name)).unwrap();
        fs::write(path.join("elsewhere"), "[1]").unwrap();
        assert!(look().is_err());
        forget(path, name);
        nix::unistd::mkfifo(&path.join(name), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(look().is_err());
        forget(path, name);
        assert!(look().unwrap().is_none());
    }
}
