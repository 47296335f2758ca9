//! Sockets that need rights or must belong to one process only: listeners, the control socket, the HTTP port.
//!
//! Before: addresses from the config. After: bound and listening, one socket for each worker and address.
//! Never: shares a port with another process unnoticed: SO_REUSEPORT would permit that, so each address is first
//! bound without it.

use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind as bind_to, listen as listen_on,
            socket,
        },
        stat::{Mode, umask},
    },
    unistd::{UnlinkatFlags, unlinkat},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    fast_open,
    page_token::PAGE_TOKEN,
    privileges::{Owner, hand_over},
};
use crate::{
    config::{CONTROL_SOCKET, Config},
    disk,
    effective::as_owner,
    keeper::{Groups, KEEPER_SOCKET, Sockets},
    worker::Listeners,
    xdp::ListenerGroup,
};

/// Connections that may wait for `accept`; the kernel caps it by net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Most operators that may wait on the keeper's own socket.
const KEEPER_BACKLOG: i32 = 8;
/// Kernel buffers of a socket for datagrams: a burst of clients must not be dropped before dotd reads it.
const DATAGRAM_BUFFER_OCTETS: usize = 4 << 20;
/// Octets that the kernel accepts for a client beyond those that it may send now: the longest answer. Without a limit
/// it accepts 4 MiB (net.ipv4.tcp_wmem), and reports room for more when a third of that is gone: a minute for a slow
/// reader.
const NOT_SENT_OCTETS: u32 = 64 * 1024;

/// All workers' listeners of one address.
pub(super) struct Group {
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

impl Group {
    /// The form for the kernel half: index = worker.
    pub(super) fn for_xdp(&self) -> ListenerGroup<'_> {
        ListenerGroup { address: self.address, sockets: self.sockets.iter().map(AsFd::as_fd).collect() }
    }
}

/// Binds every address of `listen.dot` and `listen.do53`, once for each worker. Only the groups of the first are for
/// the kernel half, which handles port 53 by itself.
///
/// # Errors
/// The address and why it cannot be bound.
pub(super) fn bind(config: &Config, workers: usize) -> anyhow::Result<(Vec<Group>, Vec<Listeners>)> {
    let patience = config.session.idle_timeout;
    let tcp = |at, is_shared| listen(at, is_shared, config.listen.fast_open, patience);
    let dot = groups(&config.listen.dot, workers, "listen.dot", tcp)?;
    let dot: Vec<Group> = dot.into_iter().map(|(address, sockets)| Group { address, sockets }).collect();
    let key = "listen.do53";
    let streams = groups(&config.listen.do53, workers, key, tcp)?;
    let datagrams = groups(&config.listen.do53, workers, key, receive)?;
    let mut by_worker: Vec<Listeners> = (0..workers).map(|_| Listeners::default()).collect();
    for group in &dot {
        for (own, socket) in by_worker.iter_mut().zip(&group.sockets) {
            own.dot.push(socket.try_clone()?);
        }
    }
    for (_, sockets) in streams {
        by_worker.iter_mut().zip(sockets).for_each(|(own, socket)| own.do53.push(socket));
    }
    for (_, sockets) in datagrams {
        by_worker.iter_mut().zip(sockets).for_each(|(own, socket)| own.datagrams.push(socket));
    }
    Ok((dot, by_worker))
}

/// The sockets of [`bind`], for the keeper to hold while engines come and go.
///
/// # Errors
/// No descriptor is left.
pub(super) fn hold(
    config: &Config,
    listeners: &[Listeners],
    http: Option<&TcpListener>,
    control: &ControlSocket,
) -> io::Result<Sockets<OwnedFd>> {
    Ok(Sockets {
        dot: held(&config.listen.dot, listeners, |own| &own.dot)?,
        do53: held(&config.listen.do53, listeners, |own| &own.do53)?,
        datagrams: held(&config.listen.do53, listeners, |own| &own.datagrams)?,
        http: config
            .control
            .http
            .zip(http)
            .map(|(at, http)| Ok::<_, io::Error>((at, own(http)?)))
            .transpose()?,
        acme: Vec::new(),
        accounts: None,
        control: (config.server.run_dir.clone(), own(&control.listener)?),
        keeper_socket: own(&control.keeper_socket)?,
    })
}

fn held<S: AsFd>(
    addresses: &[SocketAddr],
    listeners: &[Listeners],
    of: impl Fn(&Listeners) -> &Vec<S>,
) -> io::Result<Groups<OwnedFd>> {
    let group = |(place, address): (usize, &SocketAddr)| {
        let sockets = listeners.iter().filter_map(|listeners| of(listeners).get(place)).map(own);
        Ok((*address, sockets.collect::<io::Result<_>>()?))
    };
    addresses.iter().enumerate().map(group).collect()
}

fn own(socket: &impl AsFd) -> io::Result<OwnedFd> {
    socket.as_fd().try_clone_to_owned()
}

/// As [`bind`], with the sockets of a previous engine.
///
/// # Errors
/// No descriptor is left.
pub(super) fn adopt(sockets: &Sockets<OwnedFd>) -> io::Result<(Vec<Group>, Vec<Listeners>)> {
    let mut by_worker: Vec<Listeners> = (0..sockets.workers()).map(|_| Listeners::default()).collect();
    let mut dot = Vec::with_capacity(sockets.dot.len());
    for (address, group) in &sockets.dot {
        let mut listeners = Vec::with_capacity(group.len());
        for (worker, socket) in by_worker.iter_mut().zip(group) {
            worker.dot.push(own(socket)?.into());
            listeners.push(own(socket)?.into());
        }
        dot.push(Group { address: *address, sockets: listeners });
    }
    for (_, group) in &sockets.do53 {
        for (worker, socket) in by_worker.iter_mut().zip(group) {
            worker.do53.push(own(socket)?.into());
        }
    }
    for (_, group) in &sockets.datagrams {
        for (worker, socket) in by_worker.iter_mut().zip(group) {
            worker.datagrams.push(own(socket)?.into());
        }
    }
    Ok((dot, by_worker))
}

/// The `control.http` socket of the previous engine.
///
/// # Errors
/// No descriptor is left.
pub(super) fn adopt_http(sockets: &Sockets<OwnedFd>) -> io::Result<Option<TcpListener>> {
    sockets.http.as_ref().map(|(_, socket)| own(socket).map(TcpListener::from)).transpose()
}

/// One socket for each worker and address, after each address was bound alone once.
fn groups<S>(
    addresses: &[SocketAddr],
    workers: usize,
    key: &str,
    open: impl Fn(SocketAddr, bool) -> io::Result<S>,
) -> anyhow::Result<Vec<(SocketAddr, Vec<S>)>> {
    let groups = addresses.iter().map(|address| {
        let explain = |error: io::Error| explain_bind(*address, &error, key);
        drop(open(*address, false).map_err(explain)?);
        let sockets = (0..workers).map(|_| open(*address, true));
        Ok((*address, sockets.collect::<io::Result<Vec<_>>>().map_err(explain)?))
    });
    groups.collect()
}

/// One socket for datagrams.
fn receive(address: SocketAddr, is_shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(is_shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Best effort: the kernel caps these by net.core.[rw]mem_max.
    let _ = socket.set_recv_buffer_size(DATAGRAM_BUFFER_OCTETS);
    let _ = socket.set_send_buffer_size(DATAGRAM_BUFFER_OCTETS);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// One listener. Accepted connections inherit the options that are set here, without a system call for each.
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
    // Octets that a client does not read wait in dotd's memory, where they are counted, and not in the kernel's too.
    socket.set_tcp_notsent_lowat(NOT_SENT_OCTETS)?;
    // A peer that acknowledges nothing for this long is gone (RFC 5482).
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
/// The address and why it cannot be bound.
pub(super) fn bind_http(address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener =
        TcpListener::bind(address).map_err(|error| explain_bind(address, &error, "control.http"))?;
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

/// Why an address of this key cannot be bound, with the remedy.
pub(super) fn explain_bind(address: SocketAddr, error: &io::Error, key: &str) -> anyhow::Error {
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
            anyhow!("{address} is not an address of this machine; see `ip address`, and change {key}")
        }
        _ => anyhow!("{address} cannot be listened on ({key}): {error}"),
    }
}

/// `run_dir/control.sock`, and beside it the keeper's own socket; both are removed when this is dropped.
pub(super) struct ControlSocket {
    folder: File,
    listener: UnixListener,
    keeper_socket: OwnedFd,
    is_left: bool,
}

impl ControlSocket {
    /// Binds it, with access for root and `owner` only.
    ///
    /// # Errors
    /// The folder or socket cannot be made, or a running dotd uses it.
    pub(super) fn bind(run_dir: &Path, owner: Option<Owner>) -> anyhow::Result<Self> {
        let explain = || format!("server.run_dir: {} cannot be used", run_dir.display());
        // From here on the open folder is used: its path may soon lead elsewhere.
        let folder = disk::make_folder(run_dir, 0o777).with_context(explain)?;
        // In that user's folder they belong to that user from the start.
        let of_folder = folder.metadata().with_context(explain)?.uid();
        let listener = as_owner(of_folder, || Self::bind_in(&folder, run_dir))?;
        // The folder too, if it belongs to this process: the later user must be able to remove the socket at the end.
        // Otherwise the next start does.
        hand_over(run_dir, &[CONTROL_SOCKET], owner).with_context(explain)?;
        listener.set_nonblocking(true)?;
        let keeper_socket = as_owner(of_folder, || open_keeper_socket(&folder)).with_context(explain)?;
        Ok(Self { folder, listener, keeper_socket, is_left: false })
    }

    fn bind_in(folder: &File, run_dir: &Path) -> anyhow::Result<UnixListener> {
        let explain = || format!("server.run_dir: {} cannot be used", run_dir.display());
        let (path, at) = (run_dir.join(CONTROL_SOCKET), disk::path_of(folder).join(CONTROL_SOCKET));
        if UnixStream::connect(&at).is_ok() {
            bail!(
                "{}: another dotd is running with this run_dir; stop it, or set server.run_dir",
                path.display()
            );
        }
        match fs::symlink_metadata(&at) {
            Ok(found) if !found.file_type().is_socket() => {
                bail!("{}: is not a socket; remove it, or set server.run_dir", path.display());
            }
            Ok(_) => unlinkat(folder, CONTROL_SOCKET, UnlinkatFlags::NoRemoveDir)
                .with_context(|| format!("{}: a stale socket cannot be removed", path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(explain),
        }
        match unlinkat(folder, KEEPER_SOCKET, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error).with_context(explain),
        }
        // The umask sets the mode, and the owner is changed without following links: at no moment could another user
        // connect, or replace the socket by a link.
        let mask = umask(Mode::from_bits_truncate(0o117));
        let listener = UnixListener::bind(&at);
        umask(mask);
        listener.with_context(|| format!("{}: cannot be made", path.display()))
    }

    /// The socket of a previous engine, in its folder; it is not removed until [`ControlSocket::serve`] was called.
    ///
    /// # Errors
    /// The folder is gone.
    pub(super) fn adopt(sockets: &Sockets<OwnedFd>) -> anyhow::Result<Self> {
        let (run_dir, listener) = &sockets.control;
        let explain = || format!("server.run_dir: {} cannot be used", run_dir.display());
        let folder = disk::open_folder(run_dir).with_context(explain)?;
        let listener = own(listener).with_context(explain)?.into();
        Ok(Self { folder, listener, keeper_socket: own(&sockets.keeper_socket)?, is_left: true })
    }

    /// From now on dropping this removes the socket.
    pub(super) fn serve(&mut self) {
        self.is_left = false;
    }

    /// Closes the socket here without removing it: another process serves it.
    pub(super) fn leave(mut self) {
        self.is_left = true;
    }

    /// The socket itself, for the control module.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        // A remaining file would only cost the next start a line, and an error at exit cannot be reported.
        let remove = || {
            for name in [CONTROL_SOCKET, KEEPER_SOCKET, PAGE_TOKEN] {
                let _ = unlinkat(&self.folder, name, UnlinkatFlags::NoRemoveDir);
            }
        };
        as_owner(self.folder.metadata().map_or(0, |found| found.uid()), remove);
    }
}

/// The keeper's own socket, for users that may start an upgrade.
fn open_keeper_socket(folder: &File) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let mask = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixAddr::new(&disk::path_of(folder).join(KEEPER_SOCKET))
        .and_then(|address| bind_to(socket.as_raw_fd(), &address));
    umask(mask);
    bound?;
    listen_on(&socket, Backlog::new(KEEPER_BACKLOG)?)?;
    Ok(socket)
}
