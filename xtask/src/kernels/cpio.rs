//! Writes an archive that the kernel accepts as its first file system ("newc").
//!
//! Before: folders and files by name. After: one file for QEMU's `-initrd`.
//! Never: reads an archive, or keeps owners and times.
//!
//! Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::Path,
};

/// The archive so far.
#[derive(Default)]
pub(crate) struct Archive {
    octets: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const DEVICE: u32 = 0o020_600;

impl Archive {
    /// Adds a folder, with those above it.
    pub(crate) fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.folders.contains(path) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above);
        }
        self.folders.insert(path.to_owned());
        self.entry(path, FOLDER, &[], [0, 0]);
    }

    /// Adds a file that may be executed.
    pub(crate) fn file(&mut self, path: &str, octets: &[u8]) {
        let path = path.trim_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above);
        }
        self.entry(path, PROGRAM, octets, [0, 0]);
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        let path = path.trim_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above);
        }
        self.entry(path, LINK, target.as_bytes(), [0, 0]);
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &str, numbers: [u32; 2]) {
        self.entry(path, DEVICE, &[], numbers);
    }

    /// Ends the archive and writes it.
    pub(crate) fn write(mut self, path: &Path) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, &[], [0, 0]);
        fs::File::create(path)?.write_all(&self.octets)
    }

    /// A header of thirteen hexadecimal numbers, the name, the octets; each padded to four.
    fn entry(&mut self, path: &str, mode: u32, octets: &[u8], [major, minor]: [u32; 2]) {
        self.entries += 1;
        let length = |octets: usize| u32::try_from(octets).unwrap_or(u32::MAX);
        let numbers = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            length(octets.len()),
            0,
            0,
            major,
            minor,
            length(path.len() + 1),
            0,
        ];
        self.octets.extend(b"070701");
        for number in numbers {
            self.octets.extend(format!("{number:08x}").bytes());
        }
        self.octets.extend(path.bytes());
        self.octets.push(0);
        self.pad();
        self.octets.extend(octets);
        self.pad();
    }

    fn pad(&mut self) {
        self.octets.resize(self.octets.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    /// Goal: a reader other than the kernel can read the archive. Method: `busybox cpio -t`, if it is installed; the
    /// fields of the header in any case.
    #[test]
    fn archive_is_read_back() {
        let folder = std::env::temp_dir().join(format!("dotd-cpio-{}", std::process::id()));
        let mut archive = Archive::default();
        archive.file("/a/b/c", b"octets");
        archive.file("/a/d", b"");
        archive.link("/a/e", "d");
        assert!(archive.octets.starts_with(b"070701") && archive.octets.len().is_multiple_of(4));
        archive.write(&folder).unwrap();
        let file = std::fs::File::open(&folder).unwrap();
        let listing = std::process::Command::new("busybox").args(["cpio", "-t"]).stdin(file).output();
        let _ = std::fs::remove_file(&folder);
        let Ok(listing) = listing else { return println!("SKIPPED archive_is_read_back: no busybox") };
        assert_eq!(String::from_utf8_lossy(&listing.stdout), "a\na/b\na/b/c\na/d\na/e\n");
    }
}
