//! The receiving half of UDP: one `recvmmsg` for the datagrams that came to a port.
//!
//! Before: `send` sent queries over the port. After: each response is with its sink, or its query goes over a connection.
//! Holds: a receiver for each port.
//! Never: accepts a response whose port, ID or question does not match (RFC 5452 §9.1).

use std::{io, os::fd::AsRawFd, rc::Rc};

use tokio::{
    io::Interest,
    task::{AbortHandle, spawn_local},
    time::Instant,
};

use super::{Datagrams, mmsg::BATCH_MAX, path_mtu, says_nobody_is_there, socket::Port};
use crate::{
    backend::{flights::Half, matching::Match},
    ledger::{Counter, turn_time},
    supervise::supervise,
};

/// A receiver waits for datagrams and for errors: an ICMP message about an earlier datagram is an error, and
/// makes nothing readable.
const HEARD: Interest = Interest::READABLE.add(Interest::ERROR);

/// Opens a port and starts its receiver.
///
/// # Errors
/// There is no free descriptor, or no route to the backend.
pub fn open_port(datagrams: &Rc<Datagrams>) -> io::Result<(Rc<Port>, AbortHandle)> {
    let port = Rc::new(Port::open(datagrams.backend.config.address)?);
    let (datagrams, heard) = (Rc::clone(datagrams), Rc::clone(&port));
    let task =
        spawn_local(supervise("receiver", move || receive_all(Rc::clone(&datagrams), Rc::clone(&heard))));
    Ok((port, task.abort_handle()))
}

async fn receive_all(datagrams: Rc<Datagrams>, port: Rc<Port>) {
    let (pool, backend) = (&datagrams.pool, &datagrams.backend);
    while let Ok(ready) = port.socket.ready(HEARD).await {
        let mut got = 0;
        // tokio checks one of them at a time.
        let heard = if ready.is_error() { Interest::ERROR } else { Interest::READABLE };
        let result = port.socket.try_io(heard, || {
            got = datagrams.inbound.borrow_mut().receive(port.socket.as_raw_fd())?;
            // Fewer than one batch: the kernel's queue is empty.
            if got < BATCH_MAX { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        if got > 0 {
            pool.counters.add(Counter::BackendReceiveCalls, 1);
            pool.counters.add(Counter::BackendReceived, got as u64);
            deliver(&datagrams, &port, got);
            if got == BATCH_MAX {
                // A flood must not starve the sessions.
                tokio::task::yield_now().await;
            }
        } else if let Err(error) = result {
            if says_nobody_is_there(&error) {
                pool.unreachable(backend, &port.ids);
            } else if path_mtu::says_too_long(&error) {
                datagrams.leave_long_to_streams(&port);
            }
        }
    }
}

/// Gives each datagram of the batch to the sink of its query.
fn deliver(datagrams: &Datagrams, port: &Rc<Port>, count: usize) {
    turn_time::begin(Instant::now());
    let (pool, backend) = (&datagrams.pool, &datagrams.backend);
    let inbound = datagrams.inbound.borrow();
    for (datagram, is_cut) in inbound.datagrams(count) {
        match pool.deliver(backend, &port.ids, datagram, Half::Datagram, is_cut) {
            Match::Response | Match::Withdrawn => {
                backend.outcomes.note_answer();
                backend.wake();
            }
            // A datagram is too small for the response (RFC 9210 §3): asks again over a connection.
            Match::Truncated(slot) => {
                pool.counters.add(Counter::BackendTruncated, 1);
                pool.ask_by_stream(backend, slot);
            }
            Match::WithoutEdns(_) | Match::NotOurs(_) => {}
        }
    }
}
