//! What outlives this process: links and maps in the BPF file system.
//!
//! Before: `/sys/fs/bpf`, mounted here if need be. After: a successor finds the links of a crashed
//! predecessor and replaces its program without a gap; an orderly end leaves nothing.
//! Holds: `/sys/fs/bpf/dotd/v<schema>/<network namespace>`, locked by who runs; descriptors of the folders,
//! because after a change of user the way to them may be closed (systemd mounts bpffs for root alone).
//! Never: reuses a map before its shape was compared: the kernel half would read nonsense.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{MapInfo, MapType},
};
use dot_common::{
    ban::Ban,
    flow::Flow,
    maps::{self, BANS, BANS_MAX, COUNTERS, FLOWS_MAX, FLOWS4, FLOWS6, SETTINGS},
    settings::SCHEMA,
};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::{
        stat::fstatat,
        statfs::{BPF_FS_MAGIC, statfs},
    },
    unistd::{Gid, Uid, UnlinkatFlags, chown, unlinkat},
};

use super::{XdpError, attach::Link, error::innermost, stale};

const BPFFS: &str = "/sys/fs/bpf";

/// The folder of this schema and network namespace, locked.
#[derive(Debug)]
pub(super) struct Pins {
    folder: PathBuf,
    lock: Flock<File>,
    /// Outermost last: each holds the one before.
    parents: Vec<(File, OsString)>,
}

impl Pins {
    /// Makes the folder, mounting the BPF file system if it is not there, and locks it.
    pub(super) fn open() -> Result<Self, XdpError> {
        mount_bpffs()?;
        let namespace = fs::metadata("/proc/thread-self/ns/net").map_err(at("/proc/thread-self/ns/net"))?;
        let folder = Path::new(BPFFS).join(format!("dotd/v{SCHEMA}/{}", namespace.ino()));
        fs::create_dir_all(&folder).map_err(at(&folder.display().to_string()))?;
        let opened = File::open(&folder).map_err(at(&folder.display().to_string()))?;
        let lock = Flock::lock(opened, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            let name = folder.display().to_string();
            match errno {
                Errno::EWOULDBLOCK => XdpError::Locked { folder: name },
                errno => XdpError::Pins { path: name, reason: errno.desc().into() },
            }
        })?;
        let mut parents = Vec::new();
        for pair in folder.ancestors().take(4).collect::<Vec<_>>().windows(2) {
            let [child, parent] = pair else { continue };
            let name = child.file_name().unwrap_or_default().to_owned();
            parents.push((File::open(parent).map_err(at(&parent.display().to_string()))?, name));
        }
        let pins = Self { folder, lock, parents };
        let (schema, namespace) = (format!("v{SCHEMA}"), namespace.ino().to_string());
        stale::adopt(&Path::new(BPFFS).join("dotd"), &schema, &namespace, &pins)?;
        Ok(pins)
    }

    /// The folder itself, open.
    pub(super) fn folder(&self) -> &File {
        &self.lock
    }

    /// The path of a pin.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The same through our own descriptor: works also when the way to the folder is closed to us.
    pub(super) fn reach(&self, name: &str) -> PathBuf {
        Path::new("/proc/self/fd").join(self.lock.as_raw_fd().to_string()).join(name)
    }

    /// Whether there is such a pin.
    pub(super) fn has(&self, name: &str) -> bool {
        fstatat(&*self.lock, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// The maps of flows and their paths, for a successor to take over.
    pub(super) fn flows(&self) -> [(&'static str, PathBuf); 2] {
        let octets = size_of::<Flow>() as u32;
        [(FLOWS4, 12), (FLOWS6, 36)]
            .map(|(name, key)| (name, self.fitting(name, (MapType::LruHash, key, octets, FLOWS_MAX))))
    }

    /// The path of BANS, in the same way.
    pub(super) fn bans(&self) -> PathBuf {
        self.fitting(BANS, (MapType::Hash, size_of::<u64>() as u32, size_of::<Ban>() as u32, BANS_MAX))
    }

    /// The path of a pinned map; what is there and has another type, key, value or room is removed first.
    fn fitting(&self, name: &str, wanted: (MapType, u32, u32, u32)) -> PathBuf {
        let path = self.path(name);
        let Ok(found) = MapInfo::from_pin(&path) else {
            // Not there, or no map at all.
            self.unlink(name);
            return path;
        };
        let sizes = (found.key_size(), found.value_size(), found.max_entries());
        let is_fit = found.map_type().is_ok_and(|kind| (kind, sizes.0, sizes.1, sizes.2) == wanted);
        if !is_fit {
            tracing::warn!("{}: {sizes:?} is not the {wanted:?} we need: replaced", path.display());
            self.unlink(name);
        }
        path
    }

    /// Pins a map of ours in place of a predecessor's: a new process counts from zero. A failure costs
    /// visibility only.
    pub(super) fn keep(&self, object: &Ebpf, name: &str) {
        self.unlink(name);
        let path = self.path(name);
        let pinned = object.map(name).map(|map| map.pin(&path));
        if let Some(Err(error)) = pinned {
            tracing::warn!("{} is not pinned: {}", path.display(), innermost(&error));
        }
    }

    /// Removes one pin, if it is there.
    pub(super) fn unlink(&self, name: &str) {
        match unlinkat(&*self.lock, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => tracing::warn!("{}: {}", self.path(name).display(), errno.desc()),
        }
    }

    /// Removes pinned links of a predecessor that are none of ours: its interfaces are free then.
    pub(super) fn sweep(&self, links: &[&Link]) {
        for name in self.names() {
            let is_map = maps::ALL.contains(&name.as_str());
            if !is_map && !links.iter().any(|link| link.pin_name() == Some(&name)) {
                self.unlink(&name);
            }
        }
    }

    /// What is in the folder, as far as we may look.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Gives folders and pins to the user that this process will be.
    pub(super) fn give_to(&self, owner: Option<(u32, u32)>) {
        let Some((user, group)) = owner else { return };
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let folders = self.folder.ancestors().take(3).map(Path::to_path_buf);
        for path in entries.chain(folders) {
            if let Err(errno) = chown(&path, Some(Uid::from_raw(user)), Some(Gid::from_raw(group))) {
                tracing::warn!("{} stays root's: {}", path.display(), errno.desc());
            }
        }
    }

    /// Removes all pins, ours and a predecessor's, and, where we may, the folders.
    pub(super) fn remove(self, links: &[&Link]) {
        // By name as well as by listing: after a change of user the path may be closed to us.
        let ours = [BANS, COUNTERS, FLOWS4, FLOWS6, SETTINGS]
            .into_iter()
            .chain(links.iter().filter_map(|link| link.pin_name()));
        for name in ours.map(str::to_owned).chain(self.names()) {
            self.unlink(&name);
        }
        for (parent, name) in &self.parents {
            // Another namespace's folder beside ours, or a parent that is root's, ends this.
            if unlinkat(parent, name.as_os_str(), UnlinkatFlags::RemoveDir).is_err() {
                break;
            }
        }
    }
}

/// Whether a pin of this name is a link.
pub(super) fn is_link(name: &str) -> bool {
    name.starts_with("xdp_") || name.starts_with("learn_")
}

/// Mounts the BPF file system at its usual place, unless it is there.
fn mount_bpffs() -> Result<(), XdpError> {
    let is_there = statfs(BPFFS).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    if is_there {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(|errno| XdpError::Pins {
        path: BPFFS.into(),
        reason: format!("no BPF file system, and mounting one failed: {}", errno.desc()),
    })
}

fn at(path: &str) -> impl FnOnce(io::Error) -> XdpError {
    let path = path.to_owned();
    move |error| XdpError::Pins { path, reason: error.to_string() }
}
