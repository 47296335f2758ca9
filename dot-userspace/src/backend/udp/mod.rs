//! Datagrams to one backend and back: a queue, a few sockets with random ports, one system call for a batch each way.
//!
//! Before: `worker_backend` queued a query. After: its response is with its sink, or `pool` or `streams` has the query.
//! `send` takes a turn's queue, `receive` waits at each port, `resend` sends once more what may be lost; `socket` is a port
//! with its IDs, `mmsg` the system calls, `path_mtu` the longest datagram, `proxy_batch` the batch with PROXY headers.
//! Holds: the queue and the ports of each backend.
//! Never: fragments a datagram, or believes one whose port, ID or question does not match.

mod mmsg;
pub mod path_mtu;
mod proxy_batch;
mod receive;
pub mod resend;
mod send;
mod socket;

use std::{cell::RefCell, io, rc::Rc};

use proxy_batch::ProxyBatch;
use resend::Again;
use tokio::{sync::Notify, task::AbortHandle};

pub use self::{
    mmsg::Inbound,
    send::{close_quiet, start},
    socket::Port,
};

/// The queue and the ports of one backend.
#[derive(Default)]
pub struct Datagrams {
    queue: RefCell<Vec<u16>>,
    /// Wakes the sender.
    pub work: Notify,
    /// Ports in use, each with its receiving task.
    ports: RefCell<Vec<(Rc<Port>, AbortHandle)>>,
    /// Ports out of use that still wait for responses.
    retired: RefCell<Vec<(Rc<Port>, AbortHandle)>>,
    /// Queries to be sent once more.
    pub again: Again,
    /// Buffer for datagrams with PROXY headers.
    proxy_batch: RefCell<ProxyBatch>,
}

impl Datagrams {
    /// Queues `slot` for this turn's batch.
    pub fn enqueue(&self, slot: u16) {
        self.queue.borrow_mut().push(slot);
        self.work.notify_one();
    }

    /// Whether a port out of use still waits for responses.
    pub fn has_retired(&self) -> bool {
        !self.retired.borrow().is_empty()
    }

    /// Every port that may still be answered.
    pub fn open_ports(&self) -> Vec<Rc<Port>> {
        let (ports, retired) = (self.ports.borrow(), self.retired.borrow());
        ports.iter().chain(retired.iter()).map(|(port, _)| Rc::clone(port)).collect()
    }

    /// Closes every port.
    pub fn close(&self) {
        for (_, task) in self.ports.take().into_iter().chain(self.retired.take()) {
            task.abort();
        }
    }
}

/// Whether an error is about the backend or the path to it, and not about one datagram or our own memory.
pub fn says_nobody_is_there(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::PermissionDenied
    )
}
