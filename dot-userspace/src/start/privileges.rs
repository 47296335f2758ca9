//! Rights: which user we become, how many files we may open, and that nothing is left once we serve.
//!
//! Before: started as root, with some capabilities, or as anybody. After: [`drop_all`] left no capability
//! in any set of this thread, and the threads it makes inherit that.
//! Never: regains anything: no_new_privs is set.

use std::{
    fs,
    os::unix::fs::{MetadataExt, lchown},
    path::Path,
};

use anyhow::{Context, anyhow, bail};
use caps::CapSet;
use nix::{
    sched::{CpuSet, sched_getaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Pid, User, geteuid, setgid, setgroups, setuid},
};

use crate::tls::SELF_SIGNED;

/// A user and its group.
pub type Owner = (u32, u32);

/// The user to become after start; `None`: stay who we are.
///
/// # Errors
/// The user does not exist, or we are not root and cannot become anybody.
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

/// What is doubtful about serving as who we are.
pub fn warning(becoming: Option<Owner>) -> Option<&'static str> {
    let stays_root = becoming.is_none() && geteuid().is_root();
    stays_root.then_some(
        "server.user is empty: dotd gives up every capability and stays uid 0, which owns most files; \
         name a user of its own (useradd --system dotd)",
    )
}

/// Lifts the soft limit on open files to the hard one; returns what holds now.
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

/// Gives what dotd keeps in `state_dir` to the user it becomes, so that a reload can renew it; says where it cannot.
///
/// # Errors
/// As [`hand_over`].
pub fn hand_over_state(state_dir: &Path, owner: Option<Owner>) -> anyhow::Result<()> {
    if !hand_over(state_dir, SELF_SIGNED, owner)? {
        let folder = state_dir.display();
        tracing::warn!(
            "server.state_dir: {folder} holds what is not dotd's and stays its owner's; name a folder of its own"
        );
    }
    Ok(())
}

/// Gives `folder` to the user that dotd becomes, and what it keeps there, whose names begin with `own`. A folder that has
/// anything else in it stays whose it is, and so does that: it may be /etc. `false`: it stays another's.
///
/// # Errors
/// The folder cannot be read or given away.
pub fn hand_over(folder: &Path, own: &str, owner: Option<Owner>) -> anyhow::Result<bool> {
    let (Some((uid, gid)), true) = (owner, folder.is_dir()) else { return Ok(true) };
    let give = |path: &Path| {
        // Never through a link: whoever we become may write in this folder, and put one there.
        lchown(path, Some(uid), Some(gid))
            .with_context(|| format!("{}: cannot be given to uid {uid}", path.display()))
    };
    let mut is_ours = true;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let found = entry.metadata()?;
        if entry.file_name().to_string_lossy().starts_with(own) && !found.is_dir() && found.nlink() == 1 {
            give(&entry.path())?;
        } else {
            is_ours &= found.uid() == uid;
        }
    }
    if is_ours {
        give(folder)?;
    }
    Ok(is_ours || fs::symlink_metadata(folder)?.uid() == uid)
}

/// Becomes `owner` and gives up every capability.
///
/// # Errors
/// Rights that could not be given up: we must not serve with them.
pub fn drop_all(owner: Option<Owner>) -> anyhow::Result<()> {
    // The bounding set needs CAP_SETPCAP to shrink, so it goes first; without it there is nothing to regain.
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
