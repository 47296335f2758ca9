//! Links and maps that outlive this process, pinned in the BPF file system.
//!
//! Before: `folder` opened the private folder. After: a successor finds the links of a crashed predecessor and replaces
//! its program without a gap; after an orderly end nothing is left.
//! Holds: `dotd/v<schema>/<network namespace and boot>` in /sys/fs/bpf or in a BPF file system of dotd's own, by descriptors. Pins stay root's, and no other
//! user may enter: a pin can be opened by path to detach a link, or to write a map.
//! Never: reuses a map without comparing its shape: the kernel half would misread it; gives a pin or folder to another
//! user.

use std::{fs::File, path::PathBuf};

use aya::{
    Ebpf,
    maps::{MapInfo, MapType},
    programs::links::FdLink,
};
use dot_common::{
    ban::Ban,
    counters,
    flow::Flow,
    maps::{self, BANS, BANS_MAX, COUNTERS, FLOWS_MAX, FLOWS4, FLOWS6, SETTINGS},
    network::Network,
};
use nix::{
    errno::Errno,
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{
    XdpError,
    error::innermost,
    folder::{self, Folders},
    link::Link,
    moved, stale,
};
use crate::disk;

/// The pins of this schema and network namespace.
#[derive(Debug)]
pub(super) struct Pins {
    folders: Folders,
}

impl Pins {
    /// Opens the folder, or makes it, and removes what dotds of other versions left.
    pub(super) fn open() -> Result<Self, XdpError> {
        let folders = Folders::open()?;
        if folders.is_elsewhere {
            moved::take(&folders.own, is_link)?;
        }
        stale::adopt(&folders.root, &folders.own, is_link)?;
        Ok(Self { folders })
    }

    /// The folder itself, open.
    pub(super) fn folder(&self) -> &File {
        &self.folders.own
    }

    /// The path of a pin, for messages.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folders.path.join(name)
    }

    /// The same through dotd's own descriptor, which stays valid whatever happens to the path.
    pub(super) fn reach(&self, name: &str) -> PathBuf {
        disk::path_of(&self.folders.own).join(name)
    }

    /// Whether a pin of this name exists.
    pub(super) fn has(&self, name: &str) -> bool {
        folder::has(self.folder(), name)
    }

    /// The maps of flows and their paths, for a successor to take over.
    pub(super) fn flows(&self) -> [(&'static str, PathBuf); 2] {
        let octets = size_of::<Flow>() as u32;
        [(FLOWS4, 12), (FLOWS6, 36)]
            .map(|(name, key)| (name, self.fitting(name, (MapType::LruHash, key, octets, FLOWS_MAX))))
    }

    /// The path of BANS, in the same way.
    pub(super) fn bans(&self) -> PathBuf {
        self.fitting(BANS, (MapType::Hash, size_of::<Network>() as u32, size_of::<Ban>() as u32, BANS_MAX))
    }

    /// The path of COUNTERS, in the same way.
    pub(super) fn counters(&self) -> PathBuf {
        self.fitting(COUNTERS, (MapType::PerCpuArray, 4, size_of::<u64>() as u32, counters::COUNTERS))
    }

    /// The path of a pinned map. A pin of another type, key, value or size is removed first.
    fn fitting(&self, name: &str, wanted: (MapType, u32, u32, u32)) -> PathBuf {
        let path = self.reach(name);
        let Ok(found) = MapInfo::from_pin(&path) else {
            // The pin does not exist, or is not a map.
            self.unlink(name);
            return path;
        };
        let sizes = (found.key_size(), found.value_size(), found.max_entries());
        let is_fit = found.map_type().is_ok_and(|kind| (kind, sizes.0, sizes.1, sizes.2) == wanted);
        if !is_fit {
            tracing::warn!(
                "{}: {sizes:?} is not the {wanted:?} we need: replaced",
                self.path(name).display()
            );
            self.unlink(name);
        }
        path
    }

    /// Pins a map of ours in place of a predecessor's: a new process counts from zero. After a failure the map is only
    /// less visible.
    pub(super) fn keep(&self, object: &Ebpf, name: &str) {
        self.unlink(name);
        let pinned = object.map(name).map(|map| map.pin(self.reach(name)));
        if let Some(Err(error)) = pinned {
            tracing::warn!("{} is not pinned: {}", self.path(name).display(), innermost(&error));
        }
    }

    /// Removes one pin, if it exists.
    pub(super) fn unlink(&self, name: &str) {
        match unlinkat(self.folder(), name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => tracing::warn!("{}: {}", self.path(name).display(), errno.desc()),
        }
    }

    /// Removes a predecessor's pinned links that this dotd does not use, so that their interfaces are free.
    pub(super) fn sweep(&self, links: &[&Link]) {
        for name in self.names() {
            let is_map = maps::ALL.contains(&name.as_str());
            if !is_map && !links.iter().any(|link| link.pin_name() == Some(&name)) {
                self.unlink(&name);
            }
        }
    }

    /// The names in the folder.
    pub(super) fn names(&self) -> Vec<String> {
        folder::names(self.folder())
    }

    /// Removes all pins, dotd's own and a predecessor's, and folders that become empty.
    pub(super) fn remove(self, links: &[&Link]) {
        let ours = [BANS, COUNTERS, FLOWS4, FLOWS6, SETTINGS]
            .into_iter()
            .chain(links.iter().filter_map(|link| link.pin_name()));
        for name in ours.map(str::to_owned).chain(self.names()) {
            self.unlink(&name);
        }
        for (parent, name) in &self.folders.parents {
            // This stops at a folder that contains another namespace's folder.
            if unlinkat(parent, name.as_os_str(), UnlinkatFlags::RemoveDir).is_err() {
                break;
            }
        }
    }
}

/// Pins a link. One that cannot be pinned is lost, and with it the attachment: aya's `pin` takes it whole.
pub(super) fn keep(link: FdLink, pin: String, pins: Option<&Pins>) -> Result<Link, String> {
    let Some(pins) = pins else { return Ok(Link::Held(link, None)) };
    match link.pin(pins.reach(&pin)) {
        Ok(pinned) => Ok(Link::Held(pinned.into(), Some(pin))),
        Err(error) => Err(format!("{}: {}", pins.path(&pin).display(), innermost(&error))),
    }
}

/// Whether a pin of this name is a link.
pub(super) fn is_link(name: &str) -> bool {
    ["xdp_", "learn_", "ingress_", "proxy_"].iter().any(|kind| name.starts_with(kind))
}
