//! Opens a connection to a backend: TCP, then TLS if configured, then the PROXY header if configured.
//!
//! Before: `connection`, `transfer` or `health` needs one. After: queries may be written; the memory of the backend's TLS
//! knows how it went.
//! Never: takes longer than a query's timeout, or falls back to cleartext.

use std::{future::Future, io, time::Duration};

use thiserror::Error;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{BackendConfig, Wire};
use crate::{
    ledger::TlsFault,
    proxy::{Client, header},
};

/// An open connection.
pub enum Opened {
    /// In the clear.
    Clear(TcpStream),
    /// Within TLS.
    Secure(Box<dyn Wire>),
}

/// Why a connection could not be opened.
#[derive(Debug, Error)]
pub enum NotOpened {
    /// No host answered, or the backend refused the connection.
    #[error("not connected: {0}")]
    Unconnected(io::Error),
    /// The TLS handshake failed, or the peer is not the configured backend.
    #[error("TLS: {0}")]
    NotSecure(io::Error),
}

/// Opens a connection within `timeout`, which is a query's. `client`: the client in the PROXY header; `None`:
/// dotd itself asks. It matters only with `proxy_v2`.
///
/// # Errors
/// [`NotOpened`].
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn dial(
    config: &BackendConfig,
    timeout: Duration,
    client: Option<&Client>,
) -> Result<Opened, NotOpened> {
    let opened = open(config, timeout, client).await;
    if let Some(tls) = &config.tls {
        match &opened {
            Ok(Opened::Secure(wire)) => tls.memory.note_success(&config.name, wire.shown()),
            Ok(Opened::Clear(_)) => {}
            Err(NotOpened::NotSecure(error)) => {
                tls.memory.note_failure(&config.name, tls.connector.fault(error))
            }
            Err(NotOpened::Unconnected(error)) if is_the_peers(error) => {
                tls.memory.note_failure(&config.name, TlsFault::Unconnected);
            }
            Err(NotOpened::Unconnected(_)) => {}
        }
    }
    opened
}

/// Whether the way or the peer is at fault, and not a shortage of this machine.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut,
    };
    let kinds = [
        ConnectionAborted,
        ConnectionRefused,
        ConnectionReset,
        HostUnreachable,
        NetworkUnreachable,
        TimedOut,
    ];
    kinds.contains(&error.kind())
}

async fn open(
    config: &BackendConfig,
    timeout: Duration,
    client: Option<&Client>,
) -> Result<Opened, NotOpened> {
    let deadline = Instant::now() + timeout;
    let tcp = in_time(deadline, connect(config, timeout)).await.map_err(NotOpened::Unconnected)?;
    match &config.tls {
        None => {
            let opened = in_time(deadline, introduce(tcp, config, client)).await;
            opened.map(Opened::Clear).map_err(NotOpened::Unconnected)
        }
        Some(tls) => {
            let wire = in_time(deadline, tls.connector.connect(tcp)).await.map_err(NotOpened::NotSecure)?;
            let opened = in_time(deadline, introduce(wire, config, client)).await;
            opened.map(Opened::Secure).map_err(NotOpened::Unconnected)
        }
    }
}

async fn in_time<T>(deadline: Instant, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout_at(deadline, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn connect(config: &BackendConfig, timeout: Duration) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(config.address).await?;
    tcp.set_nodelay(true)?;
    // The kernel notices within a query's timeout that a backend vanished without closing.
    socket2::SockRef::from(&tcp).set_tcp_user_timeout(Some(timeout))?;
    Ok(tcp)
}

/// Writes the PROXY header if the backend expects one. Within TLS: Unbound and dnsdist read it there, BIND calls
/// it `proxy encrypted`, and no client address travels in clear.
async fn introduce<S: AsyncWrite + Unpin>(
    mut stream: S,
    config: &BackendConfig,
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

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::fd::AsRawFd,
        path::PathBuf,
        sync::{Arc, Mutex},
    };

    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        backend::{Connecting, Connector, Tls, TlsMemory, tests::backend_at},
        config::{OnTlsFailure, TlsVersion, Transport},
    };

    impl Wire for TcpStream {
        fn socket(&self) -> &TcpStream {
            self
        }

        fn shown(&self) -> (TlsVersion, Option<String>) {
            (TlsVersion::V1_3, None)
        }
    }

    /// Encrypts nothing, and notes which socket it got.
    struct Plain(Arc<Mutex<Option<PathBuf>>>);

    impl Connector for Plain {
        fn connect(&self, tcp: TcpStream) -> Connecting<'_> {
            let socket = fs::read_link(format!("/proc/self/fd/{}", tcp.as_raw_fd())).unwrap();
            self.0.lock().unwrap().replace(socket);
            Box::pin(async move { Ok(Box::new(tcp) as Box<dyn Wire>) })
        }

        fn fault(&self, _: &io::Error) -> TlsFault {
            TlsFault::Other
        }

        fn fingerprint(&self) -> u64 {
            0
        }
    }

    /// Goal: a connection to a backend takes one descriptor, also within TLS: `start::plan` reserves one for each
    /// connection. Method: count the descriptors of this process that are the socket. Covers: C-26
    #[test]
    fn a_connection_within_tls_is_one_descriptor() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let socket = Arc::new(Mutex::new(None));
            let connector = Arc::new(Plain(Arc::clone(&socket)));
            let tls = Some(Tls { connector, on_failure: OnTlsFailure::Refuse, memory: TlsMemory::default() });
            let config = backend_at(listener.local_addr().unwrap(), Transport::Tls);
            let config = BackendConfig { tls, ..config };
            let opened = dial(&config, config.timeout, None).await.ok().unwrap();
            let socket = socket.lock().unwrap().take().unwrap();
            let open = fs::read_dir("/proc/self/fd").unwrap();
            let open = open.filter(|entry| {
                entry.as_ref().is_ok_and(|entry| fs::read_link(entry.path()).is_ok_and(|link| link == socket))
            });
            assert_eq!(open.count(), 1);
            drop(opened);
        });
    }
}
