//! One UDP socket towards a backend: a random source port and its table of message IDs.
//!
//! Before: `send` opens a few and replaces them as they age. After: a response's ID leads to its slot.
//! Holds: a *connected* socket, so the kernel drops what another address or port sends (RFC 5452 §9.1).
//! Never: is used so long that its number could be found by trial.

use std::{cell::Cell, io, net::SocketAddr, rc::Rc, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, time::Instant};

use super::path_mtu;
use crate::backend::ids::Ids;

/// A port is replaced after this many queries…
const QUERIES_MAX: u32 = 16_384;
/// …or this age, whichever comes first.
const AGE_MAX: Duration = Duration::from_secs(60);
/// Kernel buffers in both directions: a burst of responses must not be dropped before dotd reads it.
const SOCKET_BUFFER_OCTETS: usize = 1 << 20;

/// A socket and the slot that waits for each ID on it.
pub struct Port {
    /// Connected to the backend.
    pub socket: UdpSocket,
    /// The slots that wait.
    pub ids: Rc<Ids>,
    /// The path supports UDP_SEGMENT, as far as is known.
    pub can_segment: Cell<bool>,
    sent: Cell<u32>,
    opened: Instant,
}

impl Port {
    /// Opens a socket with a port of the kernel's random choice.
    ///
    /// # Errors
    /// The error of socket, connect or registration with the runtime.
    pub fn open(backend: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(backend), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // Best effort: the kernel limits these by net.core.[rw]mem_max.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_OCTETS);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_OCTETS);
        // Best effort too, but every Linux has the option.
        let _ = path_mtu::forbid_fragments(&socket, backend);
        socket.connect(&backend.into())?;
        let ids = Rc::<Ids>::default();
        ids.note_local(socket.local_addr().ok().and_then(|local| local.as_socket()));
        Ok(Self {
            socket: UdpSocket::from_std(socket.into())?,
            ids,
            can_segment: Cell::new(true),
            sent: Cell::new(0),
            opened: Instant::now(),
        })
    }

    /// Counts queries that were sent.
    pub fn count_sent(&self, queries: usize) {
        let queries = u32::try_from(queries).unwrap_or(u32::MAX);
        self.sent.set(self.sent.get().saturating_add(queries));
    }

    /// Whether it is old enough to be replaced.
    pub fn is_worn(&self) -> bool {
        self.sent.get() >= QUERIES_MAX || self.opened.elapsed() >= AGE_MAX
    }

    /// Whether no query waits on it.
    pub fn is_quiet(&self) -> bool {
        self.ids.outstanding() == 0
    }
}
