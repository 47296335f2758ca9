//! The floor: the least that TLS, TCP and a datagram per query cost, without any DNS server around them.
//!
//! Before: a certificate and, for the relay, a backend. After: figures that no front end can go below by much.
//! Holds: an echo (each query comes back with QR set), a relay over UDP (one datagram a query, one write a
//! response) and a relay over TCP (a stream to the backend for each client, octets as they come), on one thread. Never: batches, pads, checks or limits anything: it is no server to use.

use std::{fs, io, net::SocketAddr, path::PathBuf, rc::Rc, sync::Arc};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UdpSocket},
    task::LocalSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A longer queue than 1000 connections at once need.
const BACKLOG: u32 = 4096;
/// The length before a message (RFC 1035 §4.2.2).
pub(crate) const PREFIX_OCTETS: usize = 2;
/// Octets of a message before its flags.
const ID_OCTETS: usize = 2;
const QR: u8 = 0x80;
/// A prefix and a response of usual size: the peers do not keep room for the longest either.
const BUFFER_OCTETS: usize = PREFIX_OCTETS + 4096;
/// A TLS record's worth (RFC 8446 §5.1).
const STREAM_OCTETS: usize = 1 << 14;

/// A front end that does only what every front end must do.
#[derive(Debug, Parser)]
#[command(
    name = "floor",
    version,
    after_help = "\
EXAMPLES:
    floor echo --listen 127.0.0.1:8853 --cert cert.pem --key key.pem
    floor relay --listen 127.0.0.1:8853 --cert cert.pem --key key.pem --backend 127.0.0.1:53
    floor relay-tcp --listen 127.0.0.1:8853 --cert cert.pem --key key.pem --backend 127.0.0.1:53

    `cargo xtask bench peers` starts all, and sets every front end in relation to them.

EXIT STATUS:
    It serves until it is ended; 1 when it could not start, 2 for a mistake in the command line."
)]
pub struct Options {
    /// The treatment of a query
    mode: Mode,
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// Certificate chain in PEM
    #[arg(long)]
    cert: PathBuf,
    /// Its key in PEM
    #[arg(long)]
    key: PathBuf,
    /// DNS server, for relay and relay-tcp
    #[arg(long, required_if_eq_any([("mode", "relay"), ("mode", "relay-tcp")]))]
    backend: Option<SocketAddr>,
}

/// The treatment of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// It comes back with QR set, all that were read at once in one write.
    Echo,
    /// It goes to the backend as a datagram, and the response back in a write of its own.
    Relay,
    /// Everything that was read is written on in one write, both ways; the client has its own stream to the backend.
    RelayTcp,
}

/// Serves on this thread until the process ends.
///
/// # Errors
/// A certificate, key or address that cannot be used.
pub fn run(options: &Options) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(options)?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(options, acceptor))
}

fn tls(options: &Options) -> Result<ServerConfig> {
    let pem = |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let chain = CertificateDer::pem_slice_iter(&pem(&options.cert)?).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&pem(&options.key)?)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"dot".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    // One is enough for a client that comes back, and what dotd sends.
    config.send_tls13_tickets = 1;
    Ok(config)
}

async fn serve(options: &Options, acceptor: TlsAcceptor) -> Result<()> {
    let socket = if options.listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(options.listen).with_context(|| format!("cannot listen on {}", options.listen))?;
    let listener = socket.listen(BACKLOG)?;
    let acceptor = Rc::new(acceptor);
    let (mode, backend) = (options.mode, options.backend);
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = Rc::clone(&acceptor);
        tokio::task::spawn_local(async move {
            // The client counts connections that fail.
            let _ = connection(stream, &acceptor, mode, backend).await;
        });
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    mode: Mode,
    backend: Option<SocketAddr>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    match (mode, backend) {
        (Mode::Relay, Some(backend)) => relay(stream, backend).await,
        (Mode::RelayTcp, Some(backend)) => relay_tcp(stream, backend).await,
        _ => echo(stream).await,
    }
}

async fn echo(mut stream: TlsStream<TcpStream>) -> io::Result<()> {
    let (mut incoming, mut outgoing) = (Vec::with_capacity(4096), Vec::new());
    while stream.read_buf(&mut incoming).await? > 0 {
        take_all(&mut incoming, |framed| {
            let begin = outgoing.len();
            outgoing.extend_from_slice(framed);
            if let Some(flags) = outgoing.get_mut(begin + PREFIX_OCTETS + ID_OCTETS) {
                *flags |= QR;
            }
        });
        if !outgoing.is_empty() {
            stream.write_all(&outgoing).await?;
            stream.flush().await?;
            outgoing.clear();
        }
    }
    stream.shutdown().await
}

async fn relay(mut stream: TlsStream<TcpStream>, backend: SocketAddr) -> io::Result<()> {
    let any: SocketAddr = if backend.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(backend).await?;
    let mut incoming = Vec::with_capacity(4096);
    let mut response = vec![0; BUFFER_OCTETS];
    loop {
        tokio::select! {
            read = stream.read_buf(&mut incoming) => {
                if read? == 0 {
                    return stream.shutdown().await;
                }
                let mut queries = Vec::new();
                take_all(&mut incoming, |framed| queries.push(framed[PREFIX_OCTETS..].to_vec()));
                for query in queries {
                    socket.send(&query).await?;
                }
            }
            received = socket.recv(&mut response[PREFIX_OCTETS..]) => {
                let octets = received?;
                let prefix = u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes();
                response[..PREFIX_OCTETS].copy_from_slice(&prefix);
                stream.write_all(&response[..PREFIX_OCTETS + octets]).await?;
                stream.flush().await?;
            }
        }
    }
}

async fn relay_tcp(mut client: TlsStream<TcpStream>, backend: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(backend).await?;
    server.set_nodelay(true)?;
    let (mut queries, mut responses) = (vec![0; STREAM_OCTETS], vec![0; STREAM_OCTETS]);
    loop {
        tokio::select! {
            read = client.read(&mut queries) => match read? {
                0 => return client.shutdown().await,
                octets => server.write_all(&queries[..octets]).await?,
            },
            read = server.read(&mut responses) => match read? {
                0 => return client.shutdown().await,
                octets => {
                    client.write_all(&responses[..octets]).await?;
                    client.flush().await?;
                }
            },
        }
    }
}

/// Takes every whole message, prefix included, from the front.
pub(crate) fn take_all(incoming: &mut Vec<u8>, mut take: impl FnMut(&[u8])) {
    let mut at = 0;
    while let Some(prefix) = incoming[at..].first_chunk::<PREFIX_OCTETS>() {
        let octets = PREFIX_OCTETS + usize::from(u16::from_be_bytes(*prefix));
        let Some(framed) = incoming[at..].get(..octets) else { break };
        take(framed);
        at += octets;
    }
    incoming.drain(..at);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whole messages are taken, a part stays for the next read. Method: one message and a half.
    #[test]
    fn takes_whole_messages() {
        let mut incoming = vec![0, 2, 7, 8, 0, 3, 9];
        let mut taken = Vec::new();
        take_all(&mut incoming, |framed| taken.push(framed.to_vec()));
        assert_eq!((taken, incoming), (vec![vec![0, 2, 7, 8]], vec![0, 3, 9]));
    }
}
