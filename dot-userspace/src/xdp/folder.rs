//! The folder of pins for this schema, network namespace and boot, which only root may enter.
//!
//! Before: the BPF file system: the one that is mounted for dotd alone, or the usual one, which is mounted here if necessary. After: open folders; their content comes from a
//! dotd that ran as root, or was removed.
//! Holds: each step by the descriptor of the step before, without links and within this file system. A folder that
//! belongs to another user (/sys/fs/bpf is open to every user if it was mounted by hand) is taken over, and its content
//! is not trusted.
//! Never: removes or changes anything except dotd's own names in the BPF file system.
//!
//! Source: openat2(2), bpf(2) (pins), socket(7) (SO_NETNS_COOKIE).

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use dot_common::settings::SCHEMA;
use nix::{
    errno::Errno,
    fcntl::{AtFlags, renameat},
    getsockopt_impl,
    mount::{MsFlags, mount},
    sockopt_impl,
    sys::{
        socket::{AddressFamily, SockFlag, SockType, getsockopt, socket},
        stat::{Mode, fchmod, fstatat, mkdirat},
        statfs::{BPF_FS_MAGIC, fstatfs},
    },
    unistd::{UnlinkatFlags, fchown, getegid, geteuid, unlinkat},
};

use super::XdpError;
use crate::disk;

/// Its usual place since Linux 4.4.
pub(super) const USUAL: &str = "/sys/fs/bpf";
/// Where packaging/run-dotd.bpf.mount mounts one for dotd alone: systemd makes all of /sys read-only for a unit with
/// ProtectKernelTunables=.
const OWN: &str = "/run/dotd.bpf";
/// dotd's folder in it.
pub(super) const ROOT: &str = "dotd";
/// The number of links in place of dotd's folders that are removed before this fails: another process has only a moment
/// to make each of them.
const LINKS_MAX: usize = 8;

sockopt_impl!(
    /// A number that the kernel gives to each network namespace, unique until it boots again.
    NetworkCookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

/// The three folders, open.
#[derive(Debug)]
pub(super) struct Folders {
    /// For messages.
    pub(super) path: PathBuf,
    /// The folder with the pins.
    pub(super) own: File,
    /// The folder with the folders of all schemas.
    pub(super) root: File,
    /// They are not in the usual place.
    pub(super) is_elsewhere: bool,
    /// The innermost folder first, each with the name of dotd's folder in it.
    pub(super) parents: Vec<(File, OsString)>,
}

impl Folders {
    /// Opens the folders, or makes them.
    pub(super) fn open() -> Result<Self, XdpError> {
        let own = own_file_system();
        let is_elsewhere = own.is_some();
        let (place, file_system) = own.map_or_else(|| Ok((USUAL, file_system()?)), |own| Ok((OWN, own)))?;
        let (schema, own_name) = (format!("v{SCHEMA}"), identity()?);
        let path = Path::new(place).join(ROOT).join(&schema).join(&own_name);
        let step = |parent: &File, name: &str| {
            enter(parent, name).map_err(|errno| XdpError::Pins {
                path: path.display().to_string(),
                reason: format!("{name}: {}", errno.desc()),
            })
        };
        let root = step(&file_system, ROOT)?;
        let of_schema = step(&root, &schema)?;
        let own = step(&of_schema, &own_name)?;
        let reopened = root.try_clone().map_err(at(&path))?;
        let parents = vec![(of_schema, own_name.into()), (root, schema.into()), (file_system, ROOT.into())];
        Ok(Self { path, own, root: reopened, is_elsewhere, parents })
    }
}

/// Whether a folder of dotd's may be there, without mounting a BPF file system to look.
pub(super) fn is_there() -> bool {
    [OWN, USUAL].iter().any(|place| Path::new(place).join(ROOT).exists())
}

/// Identifies this network namespace among all that this BPF file system has seen or will see: the number of an inode
/// is reused, this one is not.
pub(super) fn identity() -> Result<String, XdpError> {
    let failed = |path: &str, reason: String| XdpError::Pins { path: path.into(), reason };
    let asked = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .and_then(|socket| getsockopt(&socket, NetworkCookie));
    let cookie = asked.map_err(|errno| failed("SO_NETNS_COOKIE", errno.desc().into()))?;
    let boot = "/proc/sys/kernel/random/boot_id";
    let boot_id = fs::read_to_string(boot).map_err(|error| failed(boot, error.to_string()))?;
    Ok(format!("{cookie}-{}", boot_id.trim()))
}

/// The one that is mounted for dotd alone. One that another user could enter is not used.
fn own_file_system() -> Option<File> {
    let opened = disk::open_folder(Path::new(OWN)).ok()?;
    let is_closed = opened.metadata().is_ok_and(|found| found.mode() & 0o077 == 0);
    (is_bpf(&opened) && is_ours(&opened) && is_closed).then_some(opened)
}

pub(super) fn is_bpf(opened: &File) -> bool {
    fstatfs(opened).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// The BPF file system in its usual place; mounted if necessary.
fn file_system() -> Result<File, XdpError> {
    let path = Path::new(USUAL);
    let open = || {
        let opened = disk::open_folder(path).map_err(at(path))?;
        Ok(is_bpf(&opened).then_some(opened))
    };
    if let Some(opened) = open()? {
        return Ok(opened);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), USUAL, Some("bpf"), flags, Some("mode=0700")).map_err(|errno| XdpError::Pins {
        path: USUAL.into(),
        reason: format!("no BPF file system, and mounting one failed: {}", errno.desc()),
    })?;
    open()?.ok_or_else(|| XdpError::Pins {
        path: USUAL.into(),
        reason: "this folder is not a BPF file system".into(),
    })
}

/// Opens one of dotd's folders in another one; makes it if necessary.
fn enter(parent: &File, name: &str) -> Result<File, Errno> {
    for _ in 0..LINKS_MAX {
        match mkdirat(parent, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        match disk::open_folder_in(parent, name) {
            Ok(folder) if is_ours(&folder) => {
                fchmod(&folder, Mode::S_IRWXU)?;
                return Ok(folder);
            }
            Ok(folder) => put_aside(parent, name, &folder)?,
            // Not a folder: another user put a link or a pin in its place.
            Err(Errno::ELOOP | Errno::ENOTDIR | Errno::EXDEV) => {
                unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
            }
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::ELOOP)
}

/// Whether only dotd could put files into a folder.
pub(super) fn is_ours(folder: &File) -> bool {
    let ours = geteuid().as_raw();
    folder.metadata().is_ok_and(|found| found.uid() == ours && found.mode() & 0o022 == 0)
}

/// Moves a folder that another user could write out of the way, and removes what an earlier dotd may have left attached
/// in it. If something cannot be removed, it stays there, closed to all others, under a name that is not used.
fn put_aside(parent: &File, name: &str, folder: &File) -> Result<(), Errno> {
    let owner = folder.metadata().map_or(0, |found| found.uid());
    tracing::warn!("BPF file system: {name} could be written by uid {owner}: nothing in it is used");
    fchown(folder, Some(geteuid()), Some(getegid()))?;
    fchmod(folder, Mode::S_IRWXU)?;
    // The name has no dots, because the BPF file system reserves names with dots.
    let aside = format!("{name}-of-{owner}-{:08x}", getrandom::u32().unwrap_or_else(|_| std::process::id()));
    renameat(parent, name, parent, aside.as_str())?;
    empty(folder, FOLDERS_DEPTH_MAX);
    let _ = unlinkat(parent, aside.as_str(), UnlinkatFlags::RemoveDir);
    Ok(())
}

/// Removes the content of a folder that was taken over.
fn empty(folder: &File, depth: usize) {
    for name in names(folder) {
        if unlinkat(folder, name.as_str(), UnlinkatFlags::NoRemoveDir).is_ok() || depth == 0 {
            continue;
        }
        if let Ok(inner) = disk::open_folder_in(folder, &name) {
            let _ = fchown(&inner, Some(geteuid()), Some(getegid()));
            let _ = fchmod(&inner, Mode::S_IRWXU);
            empty(&inner, depth - 1);
            let _ = unlinkat(folder, name.as_str(), UnlinkatFlags::RemoveDir);
        }
    }
}

/// The names in a folder.
pub(super) fn names(folder: &File) -> Vec<String> {
    let entries = fs::read_dir(disk::path_of(folder)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> XdpError {
    let path = path.display().to_string();
    move |error| XdpError::Pins { path, reason: error.to_string() }
}

/// Depth of a folder that was put aside: schema folders, and namespace folders in them.
const FOLDERS_DEPTH_MAX: usize = 3;

/// Whether a pin of this name is in a folder.
pub(super) fn has(folder: &File, name: &str) -> bool {
    fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Goal: pins of another network namespace are not taken for this one's, also where the kernel gives the number of an inode again:
    /// the folder's name holds the namespace's cookie and the boot. Method: as root, eight namespaces one after another, each of which
    /// ends before the next begins.
    #[test]
    fn a_namespaces_folder_is_its_own() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED a_namespaces_folder_is_its_own: a namespace needs root");
            return;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux has it");
        let here = identity().expect("this namespace has one");
        assert!(here.ends_with(boot.trim()) && identity().expect("the same") == here);
        let mut names = vec![here];
        for _ in 0..8 {
            let inside = std::thread::spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("root may");
                identity().expect("it has one")
            });
            names.push(inside.join().expect("no panic"));
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }
}
