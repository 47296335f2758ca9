//! Rights: the user to become, the number of open files, and the proof that no right is left when dotd serves.
//!
//! Before: started as root, with some capabilities, or as any user. After: [`drop_all`] left no capability in any set
//! of this thread, and new threads inherit that.
//! Never: regains a right: no_new_privs is set.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use anyhow::{Context, anyhow, bail};
use caps::{CapSet, Capability, CapsHashSet};
use nix::{
    fcntl::{AtFlags, OFlag, openat},
    sched::{CpuSet, sched_getaffinity},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::{FileStat, Mode, SFlag, fstat},
    },
    unistd::{Gid, Pid, Uid, User, fchown, fchownat, geteuid, setgid, setgroups, setuid},
};

use super::tls_history::FILE_NAME as HISTORY;
use crate::{disk, effective::as_either, keeper, policy::COPY_PREFIX, tls::SELF_SIGNED};

/// A user and its group.
pub type Owner = (u32, u32);

/// The user to become after start. `None`: dotd keeps its user.
///
/// # Errors
/// The user does not exist, or the process is not root and cannot become another user.
pub fn user(name: &str) -> anyhow::Result<Option<Owner>> {
    if name.is_empty() {
        return Ok(None);
    }
    let found = User::from_name(name).with_context(|| format!("server.user: cannot look up \"{name}\""))?;
    let found = found.ok_or_else(|| {
        anyhow!(
            "server.user: there is no user \"{name}\"; make it (useradd --system {name}) or leave it empty"
        )
    })?;
    if geteuid() == found.uid {
        return Ok(None);
    }
    if !geteuid().is_root() {
        bail!("server.user: only root can become \"{name}\"; start as root, or leave it empty");
    }
    Ok(Some((found.uid.as_raw(), found.gid.as_raw())))
}

/// A warning about serving as the present user.
pub fn warning(becoming: Option<Owner>) -> Option<&'static str> {
    let stays_root = becoming.is_none() && geteuid().is_root();
    stays_root.then_some(
        "server.user is empty: dotd gives up every capability and stays uid 0, which owns most files; \
         name a user of its own (useradd --system dotd)",
    )
}

/// Raises the soft limit on open files to the hard one; returns the limit in effect.
pub fn raise_descriptors() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// The CPUs that this process may use.
pub fn usable_cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

/// Gives dotd's files in `state_dir` to the user that it becomes, so that a reload can renew them; logs a warning if
/// it cannot.
///
/// # Errors
/// As [`hand_over`].
pub fn hand_over_state(state_dir: &Path, owner: Option<Owner>) -> anyhow::Result<()> {
    if !hand_over(state_dir, &[SELF_SIGNED, HISTORY, COPY_PREFIX], owner)? {
        let folder = state_dir.display();
        tracing::warn!(
            "server.state_dir: {folder} holds what is not dotd's and stays its owner's; name a folder of its own"
        );
    }
    Ok(())
}

/// Gives `folder` to the user that dotd becomes, with dotd's files in it, whose names begin with one of `own`. A
/// folder with any other file keeps its owner, and so do the other files: it may be /etc. `false`: the folder keeps
/// its owner.
///
/// In a folder of that user's own, where dotd makes its files as that user, there is nothing to give away, and no right for it is needed.
///
/// Only a file or socket of this process (or of that user) with one link is given away, and through its descriptor: a
/// user who may write in the folder may put links there, and change them at any moment.
///
/// # Errors
/// The folder cannot be read or given away, or another user's link leads to it.
pub fn hand_over(folder: &Path, own: &[&str], owner: Option<Owner>) -> anyhow::Result<bool> {
    let (Some((uid, gid)), true) = (owner, folder.is_dir()) else { return Ok(true) };
    let explain = || {
        let folder = folder.display();
        format!(
            "{folder}: cannot be given to uid {uid}; without CAP_CHOWN run `chown -R {uid}:{gid} {folder}`"
        )
    };
    let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let opened = disk::open_folder(folder).with_context(explain)?;
    let of_folder = opened.metadata()?;
    let is_theirs = |found_uid: u32, found_gid: u32| (found_uid, found_gid) == (uid, gid);
    let mut is_ours = true;
    let entries = as_either(|| fs::read_dir(disk::path_of(&opened)));
    for entry in entries.with_context(explain)? {
        let name = entry?.file_name();
        if name == keeper::FOLDER {
            // It stays this process's.
            continue;
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // It may have been removed.
        let Ok(entry) = as_either(|| Ok(openat(&opened, name.as_os_str(), flags, Mode::empty())?)) else {
            continue;
        };
        let found = fstat(&entry).with_context(explain)?;
        let is_named = own.iter().any(|own| name.to_string_lossy().starts_with(own));
        if is_named && is_own(&found, uid) {
            if is_theirs(found.st_uid, found.st_gid) {
                continue;
            }
            fchownat(&entry, "", user, group, AtFlags::AT_EMPTY_PATH).with_context(explain)?;
        } else {
            is_ours &= found.st_uid == uid;
        }
    }
    if is_ours && !is_theirs(of_folder.uid(), of_folder.gid()) {
        fchown(&opened, user, group).with_context(explain)?;
    }
    Ok(is_ours || opened.metadata()?.uid() == uid)
}

/// Whether a file or socket can be one that dotd made, as this user or as the one that it becomes.
fn is_own(found: &FileStat, becoming: u32) -> bool {
    let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
    let is_ours = found.st_uid == geteuid().as_raw() || found.st_uid == becoming;
    matches!(kind, SFlag::S_IFREG | SFlag::S_IFSOCK) && found.st_nlink == 1 && is_ours
}

/// Acts without the rights over files of other users, which the packaged unit does not give. For a process with one thread.
pub fn without_those_over_files<T>(act: impl FnOnce() -> T) -> T {
    let before = caps::read(None, CapSet::Effective).unwrap_or_default();
    let mut less = before.clone();
    less.retain(|right| ![Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH].contains(right));
    // A right of this thread can always be left unused, and used again.
    let _ = caps::set(None, CapSet::Effective, &less);
    let outcome = act();
    let _ = caps::set(None, CapSet::Effective, &before);
    outcome
}

/// Gives up every capability except those that the keeper needs, as far as this process has them.
///
/// # Errors
/// Rights that could not be given up.
pub fn keep_few() -> anyhow::Result<()> {
    let permitted = caps::read(None, CapSet::Permitted).context("capabilities cannot be read")?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|kept| permitted.contains(kept)).collect();
    for capability in caps::all() {
        if !kept.contains(&capability) {
            // This needs CAP_SETPCAP; without it there is nothing to regain.
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).context("capabilities cannot be given up")?;
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).context("capabilities cannot be given up")?;
    }
    if !geteuid().is_root() {
        // At execve, with which it runs a program for another engine, root keeps its capabilities, and another user
        // these.
        for set in [CapSet::Inheritable, CapSet::Ambient] {
            caps::set(None, set, &kept).context("capabilities cannot be kept for another engine")?;
        }
    }
    nix::sys::prctl::set_no_new_privs().context("no_new_privs cannot be set")
}

/// Load, attach and pin (NET_ADMIN, BPF, PERFMON); let another engine become `server.user` without rights, act as that user to
/// signal it, and to open what is closed to root (SETUID, SETGID, SETPCAP). Where the service manager gives it, which the packaged
/// unit does not: read keys of a third user at a renewal (DAC_READ_SEARCH).
const KEPT: [Capability; 7] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
];

/// Becomes `owner` and gives up every capability.
///
/// # Errors
/// Rights that could not be given up: dotd must not serve with them.
pub fn drop_all(owner: Option<Owner>) -> anyhow::Result<()> {
    // The bounding set needs CAP_SETPCAP to shrink, so it comes first; without it there is nothing to regain.
    let _ = caps::clear(None, CapSet::Bounding);
    if let Some((uid, gid)) = owner {
        setgroups(&[]).context("supplementary groups cannot be given up")?;
        setgid(gid.into()).with_context(|| format!("cannot become gid {gid}"))?;
        setuid(uid.into()).with_context(|| format!("cannot become uid {uid}"))?;
    }
    drop_of_thread()?;
    nix::sys::prctl::set_no_new_privs().context("no_new_privs cannot be set")
}

fn drop_of_thread() -> anyhow::Result<()> {
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        caps::clear(None, set)
            .map_err(|error| anyhow!("capabilities ({set:?}) cannot be given up: {error}"))?;
    }
    Ok(())
}
