//! The paths that the engine may open: its own folders, and the system's files about itself. It gets everything else
//! from the keeper as a descriptor.
//!
//! Before: one thread. After: Landlock refuses every other path, every TCP listener, and signals to other processes,
//! as far as this kernel supports that.
//! Never: permits a file that the config names: the keeper opens those.
//!
//! Source: landlock(7).

use std::{env, path::Path};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};

/// Everything that the newest known kernel can refuse; an older one refuses less.
const NEWEST: ABI = ABI::V6;

/// The readable paths: files of the kernel, and the system's certificate authorities, which a reload needs for
/// backends.
const READ: [&str; 9] = [
    "/proc",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/dev/urandom",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

/// Refuses every path but these; returns the restrictions in force, as text.
///
/// # Errors
/// This kernel has no Landlock, or it is off.
pub(super) fn confine(folders: &[&Path], also_read: &[&str]) -> Result<String, String> {
    match restrict(folders, also_read).map_err(|error| error.to_string())? {
        RulesetStatus::FullyEnforced => Ok("files, listeners and signals by Landlock".into()),
        RulesetStatus::PartiallyEnforced => Ok("files by Landlock, as far as this kernel can".into()),
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock, or it is off".into()),
    }
}

fn restrict(folders: &[&Path], also_read: &[&str]) -> Result<RulesetStatus, RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    // The engine may make, replace and remove its own files and sockets, and make a folder: a reload may bring [acme]. It may execute
    // nothing, and make no device.
    let own = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSock
        | AccessFs::RemoveFile;
    let authorities = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(env::var_os);
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(READ, read))?
        .add_rules(path_beneath_rules(also_read, read))?
        .add_rules(path_beneath_rules(authorities, read))?
        .add_rules(path_beneath_rules(folders, own))?
        .restrict_self()?;
    Ok(status.ruleset)
}
