//! A folder for each server, named so that a later run knows which leftovers it may remove.
//!
//! Before: a test starts. After: configs, zones, sockets and pid files are kept here until the test ends.
//! Holds: the name `dotd-<pid of the test>-<number>`, the removal of folders whose test has ended.
//! Never: removes a folder of a living process, or ends a process that does not name such a folder.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A folder that is removed with this value.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a folder that every user may enter.
    ///
    /// # Panics
    /// When the temporary folder cannot be written.
    #[must_use]
    pub fn new() -> Self {
        SWEEP.call_once(sweep);
        let name = format!("dotd-{}-{}", process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own folder");
        Self { path }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into the folder and gives its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Makes a folder in the folder, with access for all, and gives its path. One that is there stays as it is.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        if !path.is_dir() {
            fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own folder");
        }
        path
    }

    /// Notes a process that must not outlive this folder.
    pub fn note_process(&self, pid: u32) {
        self.write(&format!("{pid}.pid"), "");
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders of tests that were killed, and the processes that those left.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let owner = path.file_name().and_then(|name| owner_of(&name.to_string_lossy()));
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            end_processes_of(&path);
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// `dotd-17-3` belongs to process 17; other names belong to no test.
fn owner_of(name: &str) -> Option<u32> {
    let (pid, number) = name.strip_prefix("dotd-")?.split_once('-')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

/// Ends each process noted in a folder whose command line still names that folder.
fn end_processes_of(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_note = path.extension().is_some_and(|extension| extension == "pid");
        let pid = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<i32>().ok());
        let Some(pid) = pid.filter(|_| is_note) else { continue };
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(&*folder.to_string_lossy()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::owner_of;

    /// Goal: the removal touches only folders with the name of a test. Method: names that almost match the pattern.
    #[test]
    fn only_our_names_have_an_owner() {
        assert_eq!(owner_of("dotd-17-3"), Some(17));
        for other in ["dotd", "dotd-17", "dotd-x-3", "dotd-17-x", "dot-17-3", "dotd-17-3-4"] {
            assert_eq!(owner_of(other), None, "{other}");
        }
    }
}
