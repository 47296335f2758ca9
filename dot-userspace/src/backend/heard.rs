//! The receiving half of UDP: one `recvmmsg` for what came back to a port.
//!
//! Before: `udp` sent queries over the port. After: each response is with its sink, or its query goes over a connection.
//! Holds: a receiver for each port.
//! Never: believes a response whose port, ID or question does not match (RFC 5452 §9.1).

use std::{io, os::fd::AsRawFd, rc::Rc};

use tokio::{
    io::Interest,
    task::{AbortHandle, spawn_local},
    time::Instant,
};

use super::{
    arrivals, flights::Half, matching::Match, mmsg::BATCH_MAX, path, port::Port, udp, upstream::Upstream,
};
use crate::{ledger::Counter, supervise::supervise};

/// What a receiver waits for: ICMP's word about an earlier datagram is an error, and alone makes nothing readable.
const HEARD: Interest = Interest::READABLE.add(Interest::ERROR);

/// Opens a port and starts its receiver.
///
/// # Errors
/// No descriptor, or no way to the backend.
pub fn open_port(upstream: &Rc<Upstream>) -> io::Result<(Rc<Port>, AbortHandle)> {
    let port = Rc::new(Port::open(upstream.config.address)?);
    let (upstream, heard) = (Rc::clone(upstream), Rc::clone(&port));
    let task =
        spawn_local(supervise("receiver", move || receive_all(Rc::clone(&upstream), Rc::clone(&heard))));
    Ok((port, task.abort_handle()))
}

async fn receive_all(upstream: Rc<Upstream>, port: Rc<Port>) {
    while let Ok(ready) = port.socket.ready(HEARD).await {
        let mut got = 0;
        // tokio looks at one of them at a time.
        let heard = if ready.is_error() { Interest::ERROR } else { Interest::READABLE };
        let result = port.socket.try_io(heard, || {
            got = upstream.fleet.inbound.borrow_mut().receive(port.socket.as_raw_fd())?;
            // Fewer than asked for: the kernel's queue is empty.
            if got < BATCH_MAX { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        if got > 0 {
            upstream.fleet.counters.add(Counter::BackendReceiveCalls, 1);
            upstream.fleet.counters.add(Counter::BackendReceived, got as u64);
            deliver(&upstream, &port, got);
            if got == BATCH_MAX {
                // A flood must not starve the sessions.
                tokio::task::yield_now().await;
            }
        } else if let Err(error) = result {
            if udp::says_nobody_is_there(&error) {
                upstream.is_unreachable(&port.ids);
            } else if path::says_too_long(&error) {
                path::leave_to_streams(&upstream, &port);
            }
        }
    }
}

/// Gives each datagram of the batch to whoever waits for it.
fn deliver(upstream: &Rc<Upstream>, port: &Rc<Port>, count: usize) {
    arrivals::begin_batch(Instant::now());
    let inbound = upstream.fleet.inbound.borrow();
    for (datagram, is_cut) in inbound.datagrams(count) {
        match upstream.fleet.deliver(upstream, &port.ids, datagram, Half::Datagram, is_cut) {
            Match::Response | Match::Withdrawn => {
                upstream.outcomes.note_answer();
                upstream.wake();
            }
            Match::Truncated(slot) => ask_again(upstream, slot),
            Match::WithoutEdns(_) | Match::NotOurs(_) => {}
        }
    }
}

/// A datagram is too small for the response (RFC 9210 §3): asks again over a connection.
fn ask_again(upstream: &Upstream, slot: u16) {
    upstream.fleet.counters.add(Counter::BackendTruncated, 1);
    upstream.ask_by_stream(slot);
}
