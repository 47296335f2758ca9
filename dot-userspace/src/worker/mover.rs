//! Sends a worker's sessions to the next engine, a few at a time.
//!
//! Before: another engine serves, and accepts sessions. After: a session that could leave has left; the others are
//! served here.
//! Holds: packets for which the other engine has had no room yet: while there are any, no session is asked to leave.
//! Never: stops a session before there is room for it, while there is time; blocks the worker.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    os::{fd::OwnedFd, unix},
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::Interest,
    net::UnixDatagram,
    task::yield_now,
    time::{Instant, sleep},
};

use super::passage::{is_transient, send_session};
use crate::{
    session::{Departed, Moving, WorkerShared, unacknowledged},
    tls::Zeroizing,
};

/// Sessions that are asked to leave at the same time: about a millisecond of work.
const ASKED_MAX: usize = 32;
/// How often sessions that could not leave are asked again: they had queries in flight.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// Sessions are asked to leave while the other engine has fewer octets than these to take, as the kernel counts them: some forty
/// sessions. One that has left waits for those before it, and nobody serves it meanwhile.
const ON_THE_WAY_MAX: usize = 48 * 1024;
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// A pause after the kernel lacked memory, or room for descriptors in transit.
const SHORTAGE_REST: Duration = Duration::from_millis(5);

/// A session in the form in which it is sent.
struct Packet {
    /// The worker's encoding of its connection.
    connection: Vec<u8>,
    /// The session's encoding, which contains keys.
    session: Zeroizing<Vec<u8>>,
    socket: OwnedFd,
}

/// Moves a worker's sessions to the next engine.
pub(super) struct Mover {
    worker: u16,
    shared: Rc<WorkerShared>,
    /// The type is UnixDatagram, because tokio has none for SOCK_SEQPACKET.
    passage: UnixDatagram,
    waiting: RefCell<VecDeque<Packet>>,
    /// The packet that was first in the queue is being sent.
    is_sending: Cell<bool>,
    /// Since when no session reads another query before it leaves.
    late_since: Cell<Option<Instant>>,
    is_broken: Cell<bool>,
    /// No further session leaves.
    is_over: Cell<bool>,
    moved: Cell<u32>,
}

impl Mover {
    /// Sends through `passage`, of which it keeps its own descriptor.
    pub(super) fn new(worker: usize, passage: &OwnedFd, shared: Rc<WorkerShared>) -> io::Result<Self> {
        let passage = unix::net::UnixDatagram::from(passage.try_clone()?);
        passage.set_nonblocking(true)?;
        let passage = UnixDatagram::from_std(passage)?;
        Ok(Self {
            worker: u16::try_from(worker).unwrap_or(u16::MAX),
            shared,
            passage,
            waiting: RefCell::default(),
            is_sending: Cell::new(false),
            late_since: Cell::new(None),
            is_broken: Cell::new(false),
            is_over: Cell::new(false),
            moved: Cell::new(0),
        })
    }

    /// The worker whose sessions it sends.
    pub(super) fn worker(&self) -> u16 {
        self.worker
    }

    /// Whether no packet waits to be sent.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.borrow().is_empty() && !self.is_sending.get()
    }

    /// Number of sessions that have left this engine and wait to be sent.
    pub(super) fn unsent(&self) -> usize {
        self.waiting.borrow().len() + usize::from(self.is_sending.get())
    }

    /// Whether the other engine has stopped accepting.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    /// Number of sessions that have left.
    pub(super) fn moved(&self) -> u32 {
        self.moved.get()
    }

    /// From now on no session reads another query before it leaves.
    pub(super) fn hurry(&self) {
        self.late_since.set(Some(Instant::now()));
        self.go_on();
    }

    /// No further session leaves: the remaining time is for those that have left, and for the others to end.
    pub(super) fn stop(&self) {
        self.is_over.set(true);
        self.shared.move_sessions(Moving::No);
    }

    /// Sends a session that has left: at once if there is room, otherwise in its order.
    pub(super) fn send(&self, connection: Vec<u8>, departed: Departed) {
        self.moved.set(self.moved.get().saturating_add(1));
        let packet = Packet { connection, session: departed.octets, socket: departed.socket };
        if self.is_idle() && self.try_send(&packet).is_ok() {
            return;
        }
        self.waiting.borrow_mut().push_back(packet);
        if !self.is_over.get() {
            // A session is served better here than while it waits in a queue.
            self.shared.move_sessions(Moving::Paused);
        }
    }

    fn try_send(&self, packet: &Packet) -> io::Result<()> {
        self.passage.try_io(Interest::WRITABLE, || self.send_packet(packet))
    }

    /// Asks sessions to leave, in their order, until all have left or the other engine stops accepting.
    pub(super) async fn run(self: Rc<Self>) {
        while !self.is_broken.get() {
            for numbers in self.shared.session_numbers().chunks(ASKED_MAX) {
                self.flush().await;
                while unacknowledged(&self.passage) > ON_THE_WAY_MAX && !self.is_over.get() {
                    sleep(LOOK).await;
                }
                if self.is_broken.get() {
                    return;
                }
                self.shared.wake_these(numbers);
                yield_now().await;
            }
            self.flush().await;
            sleep(ASK_AGAIN).await;
        }
    }

    /// Sends the waiting packets.
    async fn flush(&self) {
        loop {
            let Some(packet) = self.waiting.borrow_mut().pop_front() else { break };
            self.is_sending.set(true);
            let sent = self.passage.async_io(Interest::WRITABLE, || self.send_packet(&packet)).await;
            match sent {
                Ok(()) => self.is_sending.set(false),
                Err(error) if is_transient(&error) => {
                    self.is_sending.set(false);
                    self.waiting.borrow_mut().push_front(packet);
                    sleep(SHORTAGE_REST).await;
                }
                Err(error) => return self.break_off(&error),
            }
        }
        self.go_on();
    }

    /// Asks sessions to leave again, if there is room.
    fn go_on(&self) {
        if self.is_idle() && !self.is_broken.get() && !self.is_over.get() {
            self.shared.move_sessions(self.late_since.get().map_or(Moving::WhenQuiet, Moving::Now));
        }
    }

    /// The next engine has ended: the remaining sessions end here, in order.
    fn break_off(&self, error: &io::Error) {
        tracing::error!(
            %error,
            cut = self.unsent(),
            "the next engine accepts no more sessions: connections that waited for it are closed, and the others end here"
        );
        self.is_broken.set(true);
        self.is_sending.set(false);
        self.waiting.borrow_mut().clear();
        self.shared.move_sessions(Moving::No);
    }

    fn send_packet(&self, packet: &Packet) -> io::Result<()> {
        send_session(&self.passage, [&packet.connection, &packet.session], &packet.socket)
    }
}
