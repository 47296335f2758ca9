//! Serves where another program left off, in its process: after a crash of its engine.
//!
//! Before: a keeper ran this program with a list of what it leaves. After: two processes, as after a start; clients that
//! connected meanwhile are accepted.
//! Never: binds an address, or ends what another engine left: sockets, pins, bans, counters and ticket keys go on.

use std::{os::fd::OwnedFd, path::PathBuf};

use anyhow::Context;

use super::{become_two, families, open};
use crate::{
    config::{Config, Workers},
    confine,
    keeper::{Groups, Inheritance, Sockets},
};

/// Goes on where another program left off. Returns twice, as [`super::run`].
///
/// # Errors
/// As [`super::run`].
pub fn succeed(config: Config, inherited: &Inheritance, path: Option<PathBuf>) -> anyhow::Result<u8> {
    confine::leave_no_dump().context("core dumps cannot be turned off")?;
    inherited.notes.iter().for_each(|note| tracing::error!("{note}"));
    let sockets = inherited.take().context("a listening socket is lost")?;
    let config = as_bound(config, &sockets);
    let opened = open(&config, Some((&sockets, inherited)))?;
    become_two(opened, config, inherited.estate(path, inherited.text.clone()), true)
}

/// The config with what its sockets are bound to; says which keys wait for a restart.
fn as_bound(mut config: Config, sockets: &Sockets<OwnedFd>) -> Config {
    families::leave_out(&mut config, families::is_here);
    let addresses =
        |groups: &Groups<OwnedFd>| -> Vec<_> { groups.iter().map(|(address, _)| *address).collect() };
    let (dot, do53) = (addresses(&sockets.dot), addresses(&sockets.do53));
    let http = sockets.http.as_ref().map(|(address, _)| *address);
    let changed = [
        ("listen.dot", config.listen.dot != dot),
        ("listen.do53", config.listen.do53 != do53),
        ("control.http", config.control.http != http),
        ("server.run_dir", config.server.run_dir != sockets.control.0),
    ];
    for (key, _) in changed.iter().filter(|(_, has_changed)| *has_changed) {
        tracing::warn!("{key} has changed in the file; it takes effect when dotd is restarted");
    }
    (config.listen.dot, config.listen.do53, config.control.http) = (dot, do53, http);
    config.server.run_dir.clone_from(&sockets.control.0);
    config.server.workers = Workers::Count(u16::try_from(sockets.workers()).unwrap_or(u16::MAX));
    config
}
