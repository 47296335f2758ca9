//! Opens files and folders by a path that another user may have changed, and checks what was opened.
//!
//! Before: a path from the config, or a name of dotd's own in a folder to which another user may write. After: a descriptor,
//! through which callers read, remove or give away; a path is never walked twice. Root without CAP_DAC_READ_SEARCH opens as
//! `server.user` what is closed to root. Holds: the rule for symbolic links: root's and dotd's own are followed. Another user's link leads to that user's files only, in every folder (as fs.protected_symlinks).
//! Never: waits on a pipe or a device; creates anything but folders that are absent, and files of dotd's own (`whole`).
//!
//! Source: openat2(2), path_resolution(7), proc(5) (fs.protected_symlinks, fs.protected_hardlinks).

mod print;
mod whole;

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Component, Path},
    sync::OnceLock,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat},
    sys::stat::{Mode, SFlag, fstat, mkdirat},
    unistd::geteuid,
};

pub use print::{Print, print_of};
pub use whole::{Arrival, write_whole};

use crate::effective::as_either;

/// The most symbolic links that are followed for one path, as in Linux.
const LINKS_MAX: usize = 40;

/// Whether the last step of a walk may be a link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// A link is allowed too.
    Any,
    /// A link is not allowed: dotd itself gives this name.
    NoLink,
}

/// The end of a walk.
struct Found {
    place: OwnedFd,
    /// The folder of the last step. `None`: the path has no step.
    folder: Option<OwnedFd>,
    /// Users other than root and dotd's own whose links led there.
    led_by: Vec<u32>,
}

/// Opens files of the config for this process. `None`: they may not be opened.
pub type Opener = Box<dyn Fn(&Path) -> Option<io::Result<File>> + Send + Sync>;

/// Set once, in a process that has given up its rights.
static OPENER: OnceLock<Opener> = OnceLock::new();

/// From now on `opener` opens files that the config names; only the first call counts.
pub fn open_through(opener: Opener) {
    let _ = OPENER.set(opener);
}

/// Opens a file that the config names, for reading, through the process with the rights, or with the rights of this
/// process. The caller must check what it is (file, folder, pipe).
///
/// # Errors
/// As for any file; another user's link that leads to a file that does not belong to that user; a file with a second name in
/// a folder whose owner is neither root, nor dotd's user, nor the file's owner, or in which every user may make names.
pub fn open_named(path: &Path) -> io::Result<File> {
    OPENER.get().and_then(|opener| opener(path)).unwrap_or_else(|| open_directly(path))
}

/// The same with this process's own rights.
///
/// # Errors
/// As [`open_named`].
pub fn open_directly(path: &Path) -> io::Result<File> {
    let Found { place, folder, led_by } = walk(path, Last::Any)?;
    let file = reopen(&place)?;
    let found = file.metadata()?;
    let owner = found.uid();
    if let Some(uid) = led_by.iter().find(|uid| **uid != owner) {
        return Err(refused(format!("a symbolic link of uid {uid} leads to a file of uid {owner}")));
    }
    if found.is_file()
        && found.nlink() != 1
        && let Some(folder) = folder
    {
        let folder = fstat(&folder).map_err(io::Error::from)?;
        let is_open = Mode::from_bits_truncate(folder.st_mode).contains(Mode::S_IWOTH);
        if is_open || !is_trusted(folder.st_uid) && folder.st_uid != owner {
            let names = found.nlink();
            let why = format!(
                "a file of uid {owner} with {names} names, in a folder where others may make names (its owner: uid {})",
                folder.st_uid
            );
            return Err(refused(why));
        }
    }
    Ok(file)
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// Opens a file that dotd keeps under a name of its own, to read it: the last step must not be a link.
///
/// # Errors
/// As for any file; a link, no regular file, a file with a second name, or one of a user who is neither root, nor
/// dotd's user, nor the folder's owner.
pub fn open_own(path: &Path) -> io::Result<File> {
    let Found { place, .. } = walk(path, Last::NoLink)?;
    let file = reopen(&place)?;
    let (found, folder) = (file.metadata()?, path.parent().map(open_folder).transpose()?);
    let folder_owner = folder.map(|folder| folder.metadata()).transpose()?.map(|folder| folder.uid());
    let is_owned = is_trusted(found.uid()) || Some(found.uid()) == folder_owner;
    if !found.is_file() || found.nlink() != 1 || !is_owned {
        let why = format!(
            "it is not a file of dotd's own (owner uid {}, {} names): remove it",
            found.uid(),
            found.nlink()
        );
        return Err(refused(why));
    }
    Ok(file)
}

/// Opens a folder that the config names.
///
/// # Errors
/// As for any folder; another user's link on the path.
pub fn open_folder(path: &Path) -> io::Result<File> {
    let Found { place, led_by, .. } = walk(path, Last::Any)?;
    if let Some(uid) = led_by.first() {
        let why = format!("a symbolic link of uid {uid} leads there");
        return Err(refused(why));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = as_either(|| Ok(openat(&place, ".", flags, Mode::empty())?))?;
    Ok(folder.into())
}

/// Opens a folder that the config names; makes it and absent folders above it, each within an open folder, so that no
/// link of another user leads elsewhere.
///
/// # Errors
/// As [`open_folder`]; a folder cannot be made.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<File> {
    let mut absent = Vec::new();
    let (mut above, mut names) = (path, path.components());
    let mut folder = loop {
        match open_folder(above) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => break found?,
        }
        match names.next_back() {
            Some(Component::Normal(name)) => absent.push(name),
            _ => return Err(Errno::ENOENT.into()),
        }
        above = names.as_path();
    };
    while let Some(name) = absent.pop() {
        let made = as_either(|| Ok(mkdirat(&folder, name, Mode::from_bits_truncate(mode))?));
        match made {
            // Another process has made it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        folder = as_either(|| Ok(openat(&folder, name, flags, Mode::empty())?))?.into();
    }
    Ok(folder)
}

/// Opens a folder within another one, and refuses links, other file systems and `..`.
///
/// # Errors
/// There is no file of that name, or it is something else.
pub fn open_folder_in(parent: impl AsFd, name: &str) -> Result<File, Errno> {
    let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV,
    );
    match openat2(&parent, name, how) {
        // systemd makes the call fail like this under RestrictSUIDSGID=, because a filter cannot read its mode.
        Err(Errno::ENOSYS) => open_child(parent, name),
        opened => opened.map(File::from),
    }
}

/// The same in steps, for a name that is one step.
fn open_child(parent: impl AsFd, name: &str) -> Result<File, Errno> {
    if name.contains('/') || name == ".." {
        return Err(Errno::EXDEV);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let child = openat(&parent, name, flags, Mode::empty())?;
    if fstat(&child)?.st_dev == fstat(&parent)?.st_dev { Ok(child.into()) } else { Err(Errno::EXDEV) }
}

/// A path to an open file or folder that does not walk its real path again.
#[must_use]
pub fn path_of(open: &impl AsRawFd) -> std::path::PathBuf {
    Path::new("/proc/self/fd").join(open.as_raw_fd().to_string())
}

/// Walks the path step by step, each from the descriptor of the previous one; notes the owners of links that it follows.
fn walk(path: &Path, last: Last) -> io::Result<Found> {
    let mut place = start(path)?;
    let mut rest: VecDeque<OsString> = names(path);
    let (mut folder, mut led_by, mut links) = (None, Vec::new(), 0);
    while let Some(name) = rest.pop_front() {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let next = as_either(|| Ok(openat(&place, name.as_os_str(), flags, Mode::empty())?));
        let next = next.map_err(|error| closed(&place, error))?;
        let found = fstat(&next).map_err(io::Error::from)?;
        if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK {
            folder = Some(std::mem::replace(&mut place, next));
            continue;
        }
        links += 1;
        if links > LINKS_MAX || last == Last::NoLink && rest.is_empty() {
            return Err(Errno::ELOOP.into());
        }
        if !is_trusted(found.st_uid) {
            led_by.push(found.st_uid);
        }
        let target = readlinkat(&next, OsStr::new("")).map_err(io::Error::from)?;
        let target = Path::new(&target);
        if target.is_absolute() {
            place = start(target)?;
        }
        names(target).into_iter().rev().for_each(|name| rest.push_front(name));
    }
    Ok(Found { place, folder, led_by })
}

/// The beginning of a path.
fn start(path: &Path) -> io::Result<OwnedFd> {
    let root = if path.is_absolute() { "/" } else { "." };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(root, flags, Mode::empty())?)
}

/// The steps of a path.
fn names(path: &Path) -> VecDeque<OsString> {
    let steps = path.components().filter(|step| matches!(step, Component::Normal(_) | Component::ParentDir));
    steps.map(|step| step.as_os_str().to_owned()).collect()
}

/// The file at the end of a walk, opened for reading; a pipe without a writer opens at once.
fn reopen(place: &OwnedFd) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    as_either(|| Ok(open(&path_of(place), flags, Mode::empty())?.into()))
        .map_err(|error| closed(place, error))
}

/// Says whose file or folder it is that is closed to root, which has no right over files of others under the packaged unit.
fn closed(place: &OwnedFd, error: io::Error) -> io::Error {
    match (fstat(place), error.kind()) {
        (Ok(found), io::ErrorKind::PermissionDenied) if geteuid().is_root() => refused(format!(
            "a file or folder of uid {} with mode {:o} on this path is closed to root without CAP_DAC_READ_SEARCH and to server.user; \
             give it to the group of server.user (chgrp, chmod g+rX), or see \"Keys of other users\" in the guide",
            found.st_uid,
            found.st_mode & 0o7777
        )),
        _ => error,
    }
}

/// Whether links of this user may lead anywhere.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}
