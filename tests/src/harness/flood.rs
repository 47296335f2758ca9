//! Sends raw frames from the client's namespace, with any source address.
//!
//! Before: a namespace and a way to make frames. After: the frames were sent, and the test knows how many.
//! Holds: a packet socket and the thread that writes to it. Never: receives; goes on after the test.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, send, socket},
};

use super::netns::{CLIENT_INTERFACE, Network, SERVER_INTERFACE};
use crate::frames::Frame;

/// The interface from which frames leave: the client's end of the pair.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    /// The server's Ethernet address: frames for other addresses reach only XDP.
    server: [u8; 6],
}

impl Wire {
    /// Opens it between the namespaces of a test.
    ///
    /// # Panics
    /// Without the right to do so.
    #[must_use]
    pub fn open(network: &Network) -> Self {
        let socket = network.client.run(|| packet_socket(CLIENT_INTERFACE));
        let server = network.server.run(|| ethernet_address(SERVER_INTERFACE));
        Self { socket, server }
    }

    /// Opens it between two interfaces of this thread's own namespace.
    ///
    /// # Panics
    /// Without the right to do so.
    #[must_use]
    pub fn between(from: &str, to: &str) -> Self {
        Self { socket: packet_socket(from), server: ethernet_address(to) }
    }

    /// Opens it at an interface of this thread's namespace, towards an Ethernet address.
    ///
    /// # Panics
    /// Without the right to do so.
    #[must_use]
    pub fn towards(from: &str, server: [u8; 6]) -> Self {
        Self { socket: packet_socket(from), server }
    }

    /// The octets of a frame, addressed to the other end.
    #[must_use]
    pub fn addressed(&self, frame: Frame) -> Vec<u8> {
        frame.patched(0, &self.server).octets
    }

    /// Sends one frame; returns whether the pair accepted it.
    ///
    /// # Panics
    /// When the socket is broken.
    pub fn send(&self, frame: Frame) -> bool {
        self.send_octets(&self.addressed(frame))
    }

    /// The same, with octets from [`Wire::addressed`].
    ///
    /// # Panics
    /// When the socket is broken.
    pub fn send_octets(&self, octets: &[u8]) -> bool {
        match send(self.socket.as_raw_fd(), octets, MsgFlags::empty()) {
            Ok(sent) => sent == octets.len(),
            Err(nix::errno::Errno::ENOBUFS) => false,
            Err(errno) => panic!("the wire broke: {errno}"),
        }
    }
}

/// Writes frames to an interface of this thread's namespace.
fn packet_socket(interface: &str) -> OwnedFd {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
        .expect("root may write frames");
    bind(socket.as_raw_fd(), &link(interface)).expect("our own interface");
    socket
}

/// The Ethernet address of an interface of this thread's namespace.
///
/// # Panics
/// When there is no such interface.
#[must_use]
pub fn ethernet_address(interface: &str) -> [u8; 6] {
    link(interface).addr().expect("an Ethernet address")
}

fn link(interface: &str) -> LinkAddr {
    let mut rows = getifaddrs().expect("interfaces can be listed");
    let found = rows.find_map(|row| {
        let address = row.address.filter(|_| row.interface_name == interface)?;
        address.as_link_addr().copied()
    });
    found.expect("the pair is there")
}

/// A running flood.
#[derive(Debug)]
pub struct Flood {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Flood {
    /// Sends the frames that `next` returns for the numbers from zero on, until it returns none or the flood is
    /// stopped.
    #[must_use]
    pub fn start(network: &Network, mut next: impl FnMut(u64) -> Option<Frame> + Send + 'static) -> Self {
        let wire = Wire::open(network);
        let is_over = Arc::<AtomicBool>::default();
        let until = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut sent = 0;
            for number in 0.. {
                let Some(frame) = next(number).filter(|_| !until.load(Relaxed)) else { break };
                sent += u64::from(wire.send(frame));
            }
            sent
        });
        Self { is_over, thread: Some(thread) }
    }

    /// Ends the flood; returns how many frames were sent.
    ///
    /// # Panics
    /// With the panic of `next`.
    #[must_use]
    pub fn stop(self) -> u64 {
        self.is_over.store(true, Relaxed);
        self.finish()
    }

    /// Waits until `next` returns no more; returns how many frames were sent.
    ///
    /// # Panics
    /// With the panic of `next`.
    #[must_use]
    pub fn finish(mut self) -> u64 {
        let thread = self.thread.take().expect("joined once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
