//! Datagrams to one backend and back: a queue, a few sockets with random ports, one system call for a batch each way.
//!
//! Before: `pool` queued a query. After: its response is with its sink, or `pool` has the query: for another backend, or
//! for a connection.
//! `send` takes a turn's queue, `receive` waits at each port, `resend` sends once more what may be lost; `socket` is a port
//! with its IDs, `mmsg` the system calls, `path_mtu` the longest datagram, `proxy_batch` the batch with PROXY headers.
//! Holds: the ports of each backend. It calls `pool`, which knows none of this.
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
use socket::Port;
use tokio::task::AbortHandle;

pub use self::{
    mmsg::Inbound,
    send::{close_quiet, send_queue},
};
use super::{flights::Flight, pool::Pool, worker_backend::Backend};
use crate::ledger::Counter;

/// The ports of one backend.
pub struct Datagrams {
    /// All queries.
    pub pool: Rc<Pool>,
    /// The backend.
    pub backend: Rc<Backend>,
    /// Ports in use, each with its receiving task.
    ports: RefCell<Vec<(Rc<Port>, AbortHandle)>>,
    /// Ports out of use that still wait for responses.
    retired: RefCell<Vec<(Rc<Port>, AbortHandle)>>,
    /// Queries to be sent once more.
    pub again: Again,
    /// Buffer for datagrams with PROXY headers.
    proxy_batch: RefCell<ProxyBatch>,
    /// Buffers for what comes, of the worker.
    inbound: Rc<RefCell<Inbound>>,
}

impl Datagrams {
    /// No port yet.
    pub fn new(pool: &Rc<Pool>, backend: &Rc<Backend>, inbound: &Rc<RefCell<Inbound>>) -> Self {
        Self {
            pool: Rc::clone(pool),
            backend: Rc::clone(backend),
            ports: RefCell::default(),
            retired: RefCell::default(),
            again: Again::default(),
            proxy_batch: RefCell::default(),
            inbound: Rc::clone(inbound),
        }
    }

    /// The path is too small for some of the datagrams sent over `port`: these queries go over a connection. The backend has
    /// not failed. `false`: none is too long.
    fn leave_long_to_streams(&self, port: &Port) -> bool {
        let backend = &self.backend;
        let max = path_mtu::datagram_octets_max(&port.socket, backend.config.address).unwrap_or(usize::MAX);
        let is_long =
            |flight: &Flight| flight.is_over(&port.ids) && backend.datagram_octets(flight.query.len()) > max;
        let long = self.pool.flights.borrow().find(is_long);
        long.iter().for_each(|slot| self.leave_to_streams(*slot));
        !long.is_empty()
    }

    /// The query in `slot` is too long for a datagram.
    pub fn leave_to_streams(&self, slot: u16) {
        self.pool.counters.add(Counter::BackendTooLong, 1);
        self.pool.ask_by_stream(&self.backend, slot);
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
