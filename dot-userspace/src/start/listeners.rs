//! Sockets that need rights or must be ours alone: listeners, the control socket, the HTTP port.
//!
//! Before: addresses from the config. After: bound and listening, one socket a worker and address.
//! Never: shares a port with another process unnoticed: SO_REUSEPORT would let that pass, so each address
//! is first taken without it.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::AsFd,
        unix::{
            fs::lchown,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use nix::sys::stat::{Mode, umask};
use socket2::{Domain, Protocol, Socket, Type};

use super::{fast_open, privileges::Owner};
use crate::{
    config::{CONTROL_SOCKET, Config},
    xdp::ListenerGroup,
};

/// Connections that may wait for `accept`; the kernel caps it by net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// All workers' listeners of one address.
pub(super) struct Group {
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

impl Group {
    /// As the kernel half wants them: index = worker.
    pub(super) fn for_xdp(&self) -> ListenerGroup<'_> {
        ListenerGroup { address: self.address, sockets: self.sockets.iter().map(AsFd::as_fd).collect() }
    }
}

/// Binds every address of `listen.dot`, once a worker.
///
/// # Errors
/// The address and why it cannot be had.
pub(super) fn bind(config: &Config, workers: usize) -> anyhow::Result<Vec<Group>> {
    let patience = config.session.idle_timeout;
    let groups = config.listen.dot.iter().map(|address| {
        let explain = |error: io::Error| explain_bind(*address, &error, "listen.dot");
        drop(listen(*address, false, config.listen.fast_open, patience).map_err(explain)?);
        let sockets = (0..workers).map(|_| listen(*address, true, config.listen.fast_open, patience));
        let sockets = sockets.collect::<io::Result<Vec<_>>>().map_err(explain)?;
        Ok(Group { address: *address, sockets })
    });
    groups.collect()
}

/// The groups turned round: each worker's own listeners.
pub(super) fn by_worker(groups: Vec<Group>, workers: usize) -> Vec<Vec<TcpListener>> {
    let mut by_worker: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for group in groups {
        for (own, socket) in by_worker.iter_mut().zip(group.sockets) {
            own.push(socket);
        }
    }
    by_worker
}

/// One listener. What is set here, accepted connections inherit: no system call per connection.
fn listen(
    address: SocketAddr,
    is_shared: bool,
    has_fast_open: bool,
    patience: Duration,
) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // A peer that acknowledges nothing for so long is gone (RFC 5482).
    socket.set_tcp_user_timeout(Some(patience))?;
    if has_fast_open {
        fast_open::permit(&socket)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds `control.http`.
///
/// # Errors
/// The address and why it cannot be had.
pub(super) fn bind_http(address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener =
        TcpListener::bind(address).map_err(|error| explain_bind(address, &error, "control.http"))?;
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

fn explain_bind(address: SocketAddr, error: &io::Error, key: &str) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "{address} is in use by another server; find it with `ss -ltnp sport = :{}`, stop it, or change {key}",
            address.port()
        ),
        io::ErrorKind::PermissionDenied => anyhow!(
            "{address} needs root (or CAP_NET_BIND_SERVICE), as every port below 1024; start as root, or set {key} = [\"{}:8853\"]",
            if address.is_ipv6() { "[::1]" } else { "127.0.0.1" }
        ),
        io::ErrorKind::AddrNotAvailable => {
            anyhow!("{address} is no address of this machine; see `ip address`, and change {key}")
        }
        _ => anyhow!("{address} cannot be listened on ({key}): {error}"),
    }
}

/// `run_dir/control.sock`, removed again when this is dropped.
pub(super) struct ControlSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ControlSocket {
    /// Binds it, for root and `owner` alone.
    ///
    /// # Errors
    /// The folder or socket cannot be made, or a running dotd holds it.
    pub(super) fn bind(run_dir: &Path, owner: Option<Owner>) -> anyhow::Result<Self> {
        let explain = || format!("server.run_dir: {} cannot be used", run_dir.display());
        fs::create_dir_all(run_dir).with_context(explain)?;
        let path = run_dir.join(CONTROL_SOCKET);
        if UnixStream::connect(&path).is_ok() {
            bail!(
                "{}: another dotd is running with this run_dir; stop it, or set server.run_dir",
                path.display()
            );
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("{}: a stale socket cannot be removed", path.display()));
            }
            _ => {}
        }
        // The mode by umask and the owner without following links: there is no moment in which somebody else
        // could connect, or put a link in the socket's place.
        let mask = umask(Mode::from_bits_truncate(0o117));
        let listener = UnixListener::bind(&path);
        umask(mask);
        let listener = listener.with_context(|| format!("{}: cannot be made", path.display()))?;
        if let Some((uid, gid)) = owner {
            // The folder too: whoever we become must be able to remove the socket at the end.
            lchown(&path, Some(uid), Some(gid)).with_context(explain)?;
            lchown(run_dir, Some(uid), Some(gid)).with_context(explain)?;
        }
        listener.set_nonblocking(true)?;
        Ok(Self { path, listener })
    }

    /// The socket itself, for the control room.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Left behind it would only cost the next start a line; there is nobody to tell at exit.
        let _ = fs::remove_file(&self.path);
    }
}
