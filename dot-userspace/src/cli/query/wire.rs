//! A connection to the server, with the time that each step of its opening took.
//!
//! Before: `plan` has the server, and its required identity. After: `exchange` writes queries over it and reads
//! answers.
//! Never: waits longer than `--timeout` for one step, or sends a question to a server without proof of its identity
//! under the strict profile.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::{
    failure::Failure,
    fast_open,
    plan::{PORT_CLEAR, Plan, Transport},
};
use crate::{
    proxy::header,
    tls::{InquiryStream, Shown},
};

/// An open connection.
pub(super) struct Wire {
    stream: Stream,
    /// The details of its opening.
    pub(super) opening: Opening,
}

/// How a connection was opened.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) server: SocketAddr,
    pub(super) transport: Transport,
    /// Time until the connection was established; with Fast Open until the first write.
    pub(super) connected: Option<Duration>,
    /// Time until the handshake was completed.
    pub(super) secured: Option<Duration>,
    pub(super) shown: Option<Shown>,
    /// Whether the server acknowledged octets of the SYN. `None`: Fast Open was not used.
    pub(super) fast_open: Option<bool>,
    /// Why there is no TLS, if the profile permits that.
    pub(super) fell_back: Option<String>,
}

enum Stream {
    Clear(TcpStream),
    Secure(Box<InquiryStream>),
}

/// A connection that could not be opened, with the details so far.
pub(super) struct NotOpened {
    pub(super) opening: Opening,
    pub(super) failure: Failure,
}

impl Wire {
    /// Opens a connection by `plan`.
    pub(super) fn open(plan: &Plan) -> Result<Self, Box<NotOpened>> {
        let opened = Self::open_to(plan, plan.address, plan.transport);
        let refused = match opened {
            Err(refused) if plan.falls_back && plan.tls.is_some() => refused,
            other => return other,
        };
        // RFC 8310 §5, the last choice of an opportunistic client.
        let reason = refused.failure.to_string();
        let mut wire = Self::open_to(plan, SocketAddr::new(plan.address.ip(), PORT_CLEAR), Transport::Tcp)?;
        wire.opening.fell_back = Some(reason);
        Ok(wire)
    }

    /// Opens a TCP connection in clear, for an answer that does not fit into a datagram.
    pub(super) fn open_clear(plan: &Plan) -> Result<Self, Box<NotOpened>> {
        Self::open_to(plan, plan.address, Transport::Tcp)
    }

    fn open_to(plan: &Plan, server: SocketAddr, transport: Transport) -> Result<Self, Box<NotOpened>> {
        let mut opening = Opening {
            server,
            transport,
            connected: None,
            secured: None,
            shown: None,
            fast_open: None,
            fell_back: None,
        };
        let tls = plan.tls.as_ref().filter(|_| transport == Transport::Tls);
        let began = Instant::now();
        let failed = |opening, failure| Box::new(NotOpened { opening, failure });
        let mut tcp = match connect(plan, server, tls.is_none() || !plan.proxy_within) {
            Ok(tcp) => tcp,
            Err(error) => return Err(failed(opening, Failure::Unconnected(error))),
        };
        opening.connected = Some(began.elapsed());
        let Some(tls) = tls else {
            return Ok(Self { stream: Stream::Clear(tcp), opening });
        };
        let began = Instant::now();
        let copy = tcp.try_clone();
        let (mut stream, shown) = match copy.and_then(|copy| tls.connect(copy)) {
            Ok(secured) => secured,
            Err(error) => return Err(failed(opening, Failure::NotSecure(error))),
        };
        opening.secured = Some(began.elapsed());
        let is_authentic = shown.is_authentic();
        opening.shown = Some(shown);
        if plan.is_strict && !is_authentic {
            // No question was sent, and none will be.
            stream.conn.send_close_notify();
            let _ = stream.conn.write_tls(&mut tcp);
            return Err(failed(opening, Failure::NotAuthentic));
        }
        let mut wire = Self { stream: Stream::Secure(Box::new(stream)), opening };
        if let Some(client) = plan.proxy.as_ref().filter(|_| plan.proxy_within) {
            let mut octets = Vec::new();
            header::write(Some(client), &mut octets);
            if let Err(error) = wire.write(&octets) {
                return Err(failed(wire.opening, Failure::Unconnected(error)));
            }
        }
        Ok(wire)
    }

    /// Writes all octets.
    pub(super) fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Clear(tcp) => tcp.write_all(octets),
            Stream::Secure(stream) => stream.write_all(octets).and_then(|()| stream.flush()),
        }
    }

    /// Reads available octets, within `limit`; 0: the server has closed the connection.
    pub(super) fn read(&mut self, buffer: &mut [u8], limit: Duration) -> io::Result<usize> {
        let limit = limit.max(Duration::from_millis(1));
        match &mut self.stream {
            Stream::Clear(tcp) => {
                tcp.set_read_timeout(Some(limit))?;
                tcp.read(buffer)
            }
            Stream::Secure(stream) => {
                stream.sock.set_read_timeout(Some(limit))?;
                stream.read(buffer)
            }
        }
    }

    /// Closes the connection as RFC 7858 §3.4 says, and returns how it was opened.
    pub(super) fn close(mut self, plan: &Plan) -> Opening {
        let tcp = match &mut self.stream {
            Stream::Clear(tcp) => &*tcp,
            Stream::Secure(stream) => {
                stream.conn.send_close_notify();
                let _ = stream.conn.write_tls(&mut stream.sock);
                &stream.sock
            }
        };
        if plan.fast_open {
            self.opening.fast_open = fast_open::was_taken(tcp).ok();
        }
        self.opening
    }
}

fn connect(plan: &Plan, server: SocketAddr, has_header: bool) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    if plan.fast_open {
        fast_open::ask(&socket)?;
    }
    socket.connect_timeout(&server.into(), plan.timeout)?;
    socket.set_tcp_nodelay(true)?;
    let mut tcp = TcpStream::from(socket);
    plan.note_use(tcp.local_addr(), true);
    tcp.set_read_timeout(Some(plan.timeout))?;
    tcp.set_write_timeout(Some(plan.timeout))?;
    if let Some(client) = plan.proxy.as_ref().filter(|_| has_header) {
        let mut octets = Vec::new();
        header::write(Some(client), &mut octets);
        tcp.write_all(&octets)?;
    }
    Ok(tcp)
}
