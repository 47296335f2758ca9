//! Captures every frame on an interface, as an eavesdropper would.
//!
//! Before: a namespace. After: the whole frames from or to one port.
//! Holds: an AF_PACKET socket and the thread that reads it. Never: sends, filters in the kernel, or truncates a frame.

use std::{
    io::Read,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Namespace;

const ETH_P_ALL: u16 = 3;
const BUFFER_OCTETS: usize = 8 << 20;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Starts on all interfaces of a namespace.
    ///
    /// # Panics
    /// Without the right to do so.
    #[must_use]
    pub fn start(namespace: &Namespace) -> Self {
        let mut socket = namespace.run(|| {
            let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).expect("root may capture");
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("not zero");
            let _ = socket.set_recv_buffer_size(BUFFER_OCTETS);
            socket
        });
        let (frames, is_over) = (Arc::<Mutex<Vec<Vec<u8>>>>::default(), Arc::new(AtomicBool::new(false)));
        let (into, until) = (Arc::clone(&frames), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 17];
            loop {
                // Checked before the read: frames that were there when the end was announced are still read.
                let is_over = until.load(Relaxed);
                match socket.read(&mut buffer) {
                    Ok(length) => into.lock().expect("no reader panics").push(buffer[..length].to_vec()),
                    Err(_) if is_over => return,
                    Err(_) => {}
                }
            }
        });
        Self { frames, is_over, thread: Some(thread) }
    }

    /// Stops, and returns the TCP and UDP frames with `port` as source or destination.
    #[must_use]
    pub fn frames_of(mut self, port: u16) -> Vec<Frame> {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let frames = std::mem::take(&mut *self.frames.lock().expect("the reader is gone"));
        let read = frames.iter().filter_map(|frame| Frame::read(frame));
        read.filter(|frame| frame.source_port == port || frame.destination_port == port).collect()
    }
}

/// The fields of a frame that tests use.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
    /// TCP: sequence number and flags.
    pub segment: Option<(u32, u8)>,
    /// Octets above TCP or UDP.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Reads Ethernet, IPv4 or IPv6 without extension headers, TCP or UDP; `None` for all else.
    fn read(frame: &[u8]) -> Option<Self> {
        let (protocol, transport) = match frame.get(12..14)? {
            [0x08, 0x00] => {
                let header = usize::from(frame.get(14)? & 0xf) * 4;
                let total = usize::from(u16::from_be_bytes([*frame.get(16)?, *frame.get(17)?]));
                (*frame.get(23)?, frame.get(14 + header..(14 + total).min(frame.len()))?)
            }
            [0x86, 0xdd] => {
                let payload = usize::from(u16::from_be_bytes([*frame.get(18)?, *frame.get(19)?]));
                (*frame.get(20)?, frame.get(54..(54 + payload).min(frame.len()))?)
            }
            _ => return None,
        };
        let word = |at: usize| Some(u16::from_be_bytes([*transport.get(at)?, *transport.get(at + 1)?]));
        let (header, segment) = match protocol {
            6 => {
                let sequence = u32::from(word(4)?) << 16 | u32::from(word(6)?);
                (usize::from(transport.get(12)? >> 4) * 4, Some((sequence, *transport.get(13)?)))
            }
            17 => (8, None),
            _ => return None,
        };
        Some(Self {
            source_port: word(0)?,
            destination_port: word(2)?,
            segment,
            payload: transport.get(header..)?.to_vec(),
        })
    }
}

/// Whether `octets` hold `part` anywhere.
#[must_use]
pub fn holds(octets: &[u8], part: &[u8]) -> bool {
    octets.windows(part.len()).any(|window| window == part)
}
