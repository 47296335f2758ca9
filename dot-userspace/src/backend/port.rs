//! One UDP socket towards a backend: a random source port and its table of message IDs.
//!
//! Before: `backend::udp` opens a few and replaces them as they age. After: a response's ID leads to its slot.
//! Holds: a *connected* socket, so the kernel drops what another address or port sends (RFC 5452 §9.1).
//! Never: hands out an ID twice, or a predictable one.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, time::Instant};

use super::random::Random;

/// A port is replaced after so many queries…
const QUERIES_MAX: u32 = 16_384;
/// …or this age, whichever comes first.
const AGE_MAX: Duration = Duration::from_secs(60);
/// Draws of an ID before we say that none is free; at half occupancy all fail once in 2^32.
const DRAWS_MAX: usize = 32;
/// Kernel buffers each way: a burst of responses must not be dropped before we read it.
const SOCKET_BUFFER_OCTETS: usize = 1 << 20;

/// A socket and who waits for which ID on it.
pub struct Port {
    /// Connected to the backend.
    pub socket: UdpSocket,
    /// ID → slot + 1; 0 is free.
    slots: RefCell<Box<[u16]>>,
    outstanding: Cell<u32>,
    sent: Cell<u32>,
    opened: Instant,
}

impl Port {
    /// Opens a socket with a port of the kernel's random choice.
    ///
    /// # Errors
    /// Whatever socket, connect or registration with the runtime says.
    pub fn open(backend: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(backend), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // Best effort: the kernel caps these by net.core.[rw]mem_max.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_OCTETS);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_OCTETS);
        socket.connect(&backend.into())?;
        Ok(Self {
            socket: UdpSocket::from_std(socket.into())?,
            slots: RefCell::new(vec![0; usize::from(u16::MAX) + 1].into_boxed_slice()),
            outstanding: Cell::new(0),
            sent: Cell::new(0),
            opened: Instant::now(),
        })
    }

    /// Gives `slot` a free random ID.
    pub fn claim(&self, slot: u16, random: &Random) -> Option<u16> {
        let mut slots = self.slots.borrow_mut();
        for _ in 0..DRAWS_MAX {
            let id = random.u16()?;
            if let Some(entry @ 0) = slots.get_mut(usize::from(id)) {
                *entry = slot.checked_add(1)?;
                self.outstanding.set(self.outstanding.get() + 1);
                self.sent.set(self.sent.get().saturating_add(1));
                return Some(id);
            }
        }
        None
    }

    /// The slot that waits for `id`.
    pub fn slot_of(&self, id: u16) -> Option<u16> {
        self.slots.borrow().get(usize::from(id)).and_then(|entry| entry.checked_sub(1))
    }

    /// Frees `id`.
    pub fn release(&self, id: u16) {
        let freed = self.slots.borrow_mut().get_mut(usize::from(id)).map(std::mem::take);
        if freed.is_some_and(|entry| entry != 0) {
            self.outstanding.set(self.outstanding.get().saturating_sub(1));
        }
    }

    /// It has served long enough; a new one takes its place.
    pub fn is_worn(&self) -> bool {
        self.sent.get() >= QUERIES_MAX || self.opened.elapsed() >= AGE_MAX
    }

    /// Nobody waits for it.
    pub fn is_quiet(&self) -> bool {
        self.outstanding.get() == 0
    }
}
