//! Opens a connection to a backend: TCP, TLS where it is asked for, and then the PROXY header.
//!
//! Before: `connection`, `transfer` or `health` needs one. After: queries may be written.
//! Never: takes longer than a query may, or goes on in cleartext where TLS is asked for.

use std::{
    future::Future,
    io,
    os::fd::{AsFd, OwnedFd},
};

use thiserror::Error;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{UpstreamConfig, Wire};
use crate::proxy::{Client, header};

/// A connection over which queries may go.
pub enum Opened {
    /// In the clear.
    Clear(TcpStream),
    /// Within TLS, and its socket, for options.
    Secure(Box<dyn Wire>, OwnedFd),
}

/// Why there is none.
#[derive(Debug, Error)]
pub enum NotOpened {
    /// Nobody is there, or it takes no connection.
    #[error("not connected: {0}")]
    Unconnected(io::Error),
    /// There is no TLS with it, or it is somebody else.
    #[error("TLS: {0}")]
    NotSecure(io::Error),
}

/// Opens one. `client`: for whom it is; `None`: on dotd's own account. Counts only with `proxy_v2`.
///
/// # Errors
/// [`NotOpened`].
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn dial(config: &UpstreamConfig, client: Option<&Client>) -> Result<Opened, NotOpened> {
    let deadline = Instant::now() + config.timeout;
    let tcp = in_time(deadline, connect(config)).await.map_err(NotOpened::Unconnected)?;
    match &config.tls {
        None => {
            let opened = in_time(deadline, introduce(tcp, config, client)).await;
            opened.map(Opened::Clear).map_err(NotOpened::Unconnected)
        }
        Some(tls) => {
            let socket = tcp.as_fd().try_clone_to_owned().map_err(NotOpened::Unconnected)?;
            let wire = in_time(deadline, tls.by.secure(tcp)).await.map_err(NotOpened::NotSecure)?;
            let opened = in_time(deadline, introduce(wire, config, client)).await;
            opened.map(|wire| Opened::Secure(wire, socket)).map_err(NotOpened::Unconnected)
        }
    }
}

async fn in_time<T>(deadline: Instant, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout_at(deadline, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn connect(config: &UpstreamConfig) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(config.address).await?;
    tcp.set_nodelay(true)?;
    // A backend that vanished without a word is noticed within a query's time, by the kernel.
    socket2::SockRef::from(&tcp).set_tcp_user_timeout(Some(config.timeout))?;
    Ok(tcp)
}

/// Says for whom it is, where the backend is to know. Within TLS: Unbound and dnsdist read it there, BIND calls it
/// `proxy encrypted`, and no client's address is in clear on the wire.
async fn introduce<S: AsyncWrite + Unpin>(
    mut stream: S,
    config: &UpstreamConfig,
    client: Option<&Client>,
) -> io::Result<S> {
    if config.proxy_v2 {
        let mut octets = Vec::with_capacity(header::WRITTEN_OCTETS_MAX);
        header::write(client, &mut octets);
        stream.write_all(&octets).await?;
        stream.flush().await?;
    }
    Ok(stream)
}
