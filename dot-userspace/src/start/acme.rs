//! The start of the ACME process: it gives up every right before it does anything else.
//!
//! Before: `keeper` has run this program, with the errand on its standard input and the sockets open. After: `acme` works in it.
//! Never: reads the config file, or keeps a right.

use std::{
    fs,
    io::{self, Read as _},
    net::SocketAddr,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
};

use anyhow::Context as _;
use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    listeners::explain_bind,
    logging,
    privileges::{self, Owner},
};
use crate::{
    acme::{self, Errand},
    config::{Acme, Certificate, Config, Sandbox},
    confine, disk,
    keeper::{self, Sockets},
};

/// Paths of the system by which the authority's server is found.
const READ: [&str; 3] = ["/etc/hosts", "/etc/resolv.conf", "/run/systemd/resolve"];
/// The longest errand that is read.
const ERRAND_OCTETS_MAX: u64 = 8 << 20;

/// Makes the folder of the ACME process, as the user that owns it, so that the engine can watch it from the start.
pub(super) fn make_folder(config: &Config) {
    let folder = Acme::folder(&config.server.state_dir);
    if !config.acme.is_on() {
        return;
    }
    if let Err(error) = disk::make_folder(&folder, 0o700) {
        tracing::error!("acme: {}: cannot be made: {error}", folder.display());
    }
    let is_there = |entry: &Certificate| entry.cert.exists();
    if config.tls.certificates.is_empty() && !config.tls.by_acme.as_ref().is_some_and(is_there) {
        tracing::warn!("acme: there is no certificate yet, and the self-signed one is served until it comes");
    }
}

/// Makes the folder above it, while there is the right to make it and before it is given to the user that dotd becomes.
pub(super) fn make_state_dir(config: &Config) {
    if config.acme.is_on() {
        // Whoever needs it says why it cannot be made.
        drop(disk::make_folder(&config.server.state_dir, 0o700));
    }
}

/// The folder with the accounts: the previous keeper's, or one that is opened or made now, while there is the right to make it. `None`:
/// `[acme]` is off, and `server.state_dir` is not a folder of dotd's own.
pub(super) fn accounts(
    config: &Config,
    user: Option<Owner>,
    left: Option<&Sockets<OwnedFd>>,
) -> io::Result<Option<OwnedFd>> {
    if let Some(folder) = left.and_then(|sockets| sockets.accounts.as_ref()) {
        return folder.try_clone().map(Some);
    }
    let state_dir = &config.server.state_dir;
    // A reload may bring [acme], when there is no such right any more.
    let is_ours = |(uid, _): Owner| fs::metadata(state_dir).is_ok_and(|found| found.uid() == uid);
    if !config.acme.is_on() && !user.is_some_and(is_ours) {
        return Ok(None);
    }
    match keeper::open_folder(state_dir) {
        Ok(folder) => Ok(Some(folder)),
        Err(line) => {
            // The keeper says it again when it starts the ACME process.
            tracing::debug!("{line}");
            Ok(None)
        }
    }
}

/// The sockets of `acme.http_listen`: those of the previous keeper, or new ones.
///
/// # Errors
/// As [`bind_acme`].
pub(super) fn sockets(
    config: &Config,
    left: Option<&Sockets<OwnedFd>>,
) -> anyhow::Result<Vec<(SocketAddr, OwnedFd)>> {
    match left {
        Some(sockets) => Ok(adopt_acme(sockets)?),
        None => bind_acme(config.acme.listens()),
    }
}

/// Binds `acme.http_listen`. The ACME process makes them listen while an authority asks.
///
/// # Errors
/// The address and why it cannot be bound.
fn bind_acme(addresses: &[SocketAddr]) -> anyhow::Result<Vec<(SocketAddr, OwnedFd)>> {
    let bind = |address: &SocketAddr| -> io::Result<OwnedFd> {
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
        // For connections that have just ended; while another program listens, the kernel refuses it all the same.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&(*address).into())?;
        Ok(socket.into())
    };
    let bound = addresses.iter().map(|address| {
        let socket = bind(address).map_err(|error| explain_bind(*address, &error, "acme.http_listen"))?;
        Ok((*address, socket))
    });
    bound.collect()
}

fn adopt_acme(sockets: &Sockets<OwnedFd>) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
    sockets.acme.iter().map(|(address, socket)| Ok((*address, socket.try_clone()?))).collect()
}

/// Works until the process is ended.
///
/// # Errors
/// The input is no errand, or a right cannot be given up.
pub fn serve_acme() -> anyhow::Result<u8> {
    confine::leave_no_dump().context("core dumps cannot be turned off")?;
    let mut text = String::new();
    io::stdin().take(ERRAND_OCTETS_MAX).read_to_string(&mut text).context("no errand")?;
    let errand: Errand = serde_json::from_str(&text)
        .context("this verb is dotd's own: its keeper process runs it with an errand")?;
    drop(text);
    logging::init(&errand.log);
    let descriptors = keeper::take_descriptors(&errand).context("a descriptor is lost")?;
    privileges::drop_all(privileges::user(&errand.user)?)?;
    keeper::end_with(Pid::from_raw(errand.keeper)).context("dotd's keeper process has ended")?;
    drop(disk::make_folder(&errand.folder, 0o700).with_context(|| errand.folder.display().to_string())?);
    if errand.sandbox != Sandbox::Off {
        confine::forget_environment();
    }
    confine::leave_no_dump().context("core dumps cannot be turned off")?;
    let (said, is_whole) = confine::confine("the ACME process", errand.sandbox, &[&errand.folder], &READ);
    if is_whole || errand.sandbox == Sandbox::Off {
        tracing::debug!("{said}");
    } else {
        tracing::warn!("{said}");
    }
    logging::write_from_now_on().context("the log thread cannot start")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("there is no runtime")?;
    match runtime.block_on(acme::run(errand, descriptors, keeper::hear)).context("the ACME process ends")? {}
}
