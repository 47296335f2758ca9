//! tar and gzip archives that contain nothing about this machine or the current time.
//!
//! Before: the table of files. After: octets. Never: keeps an owner's number other than 0, or a time other than the one given.

use std::{collections::BTreeSet, io::Write as _};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

use crate::contents::{Content, Contents};

/// A tar archive that is being made; folders above a file are added automatically.
pub(crate) struct Archive {
    tar: tar::Builder<Vec<u8>>,
    folders: BTreeSet<String>,
    /// Before each path, with its slash: "./", or "".
    prefix: String,
    epoch: u32,
}

impl Archive {
    pub(crate) fn new(prefix: &str, epoch: u32) -> Self {
        Self {
            tar: tar::Builder::new(Vec::new()),
            folders: BTreeSet::new(),
            prefix: prefix.to_owned(),
            epoch,
        }
    }

    /// The folder that stands for the prefix.
    pub(crate) fn top(&mut self) -> Result<()> {
        self.append("", EntryType::Directory, 0o755, &[])
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, octets: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above, 0o755)?;
        }
        self.append(path, EntryType::Regular, mode, octets)
    }

    pub(crate) fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        let path = path.trim_start_matches('/').to_owned();
        if self.folders.contains(&path) {
            return Ok(());
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above, 0o755)?;
        }
        let folder = format!("{path}/");
        self.folders.insert(path);
        self.append(&folder, EntryType::Directory, mode, &[])
    }

    /// Everything of a table.
    pub(crate) fn all(&mut self, contents: &Contents) -> Result<()> {
        contents.iter().try_for_each(|(path, entry)| match &entry.content {
            Content::Folder => self.folder(path, entry.mode),
            Content::File(octets) | Content::Config(octets) => self.file(path, entry.mode, octets),
        })
    }

    fn append(&mut self, path: &str, kind: EntryType, mode: u32, octets: &[u8]) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("root")?;
        header.set_groupname("root")?;
        header.set_mtime(self.epoch.into());
        header.set_size(octets.len().try_into()?);
        let path = format!("{}{path}", self.prefix);
        // The crate drops a leading "./", which dpkg expects in every name.
        let name =
            header.as_old_mut().name.get_mut(..path.len()).with_context(|| format!("{path} is too long"))?;
        name.copy_from_slice(path.as_bytes());
        header.set_cksum();
        Ok(self.tar.append(&header, octets)?)
    }

    pub(crate) fn finish(self) -> Result<Vec<u8>> {
        Ok(self.tar.into_inner()?)
    }
}

/// Compresses, without a name and a time.
pub(crate) fn gzip(octets: &[u8]) -> Result<Vec<u8>> {
    let mut packed = GzBuilder::new().write(Vec::new(), Compression::new(6));
    packed.write_all(octets)?;
    Ok(packed.finish()?)
}

/// The tree in a folder of its own: `tar -xf … --strip-components=1 -C /`.
pub(crate) fn tarball(contents: &Contents, name: &str, epoch: u32) -> Result<Vec<u8>> {
    let mut archive = Archive::new(&format!("{name}/"), epoch);
    archive.top()?;
    archive.all(contents)?;
    gzip(&archive.finish()?)
}
