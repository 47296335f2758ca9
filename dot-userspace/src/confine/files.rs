//! What the engine may open by a path: its own folders, and what the system says of itself. Everything else it gets from
//! the keeper as a descriptor.
//!
//! Before: one thread. After: Landlock refuses every other path, every TCP listener, and signals to other processes, as far
//! as this kernel can.
//! Never: is needed for a file that the config names: those are opened by the keeper.
//!
//! Source: landlock(7).

use std::{env, path::Path};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};

/// Everything that the newest kernel we know can refuse; an older one refuses less.
const NEWEST: ABI = ABI::V6;

/// What may be read: of the kernel, and the system's authorities, by which backends are recognised at a reload.
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

/// Refuses every path but these; returns what holds, in words.
///
/// # Errors
/// This kernel has no Landlock, or it is off.
pub(super) fn confine(folders: [&Path; 2]) -> Result<String, String> {
    match restrict(folders).map_err(|error| error.to_string())? {
        RulesetStatus::FullyEnforced => Ok("files, listeners and signals by Landlock".into()),
        RulesetStatus::PartiallyEnforced => Ok("files by Landlock, as far as this kernel can".into()),
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock, or it is off".into()),
    }
}

fn restrict(folders: [&Path; 2]) -> Result<RulesetStatus, RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    // Files and sockets of its own are made, replaced and removed; nothing is executed, and no device is made.
    let own = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeSock
        | AccessFs::RemoveFile;
    let authorities = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(env::var_os);
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(READ, read))?
        .add_rules(path_beneath_rules(authorities, read))?
        .add_rules(path_beneath_rules(folders, own))?
        .restrict_self()?;
    Ok(status.ruleset)
}
