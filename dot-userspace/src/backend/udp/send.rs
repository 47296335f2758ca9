//! The sending half of UDP: one `sendmmsg` for a turn's queries, over a random port (RFC 5452 §9.2).
//!
//! Before: `pool` queued queries. After: `receive` waits for what comes back to the port.
//! Holds: the sender of each backend and worker.
//! Never: sends a query twice in a batch, or fragments one.
//! Cancel safety: tasks are aborted only with their worker or pool; a receiver also when no query waits on its
//! port.

use std::{io, os::fd::AsRawFd, rc::Rc};

use tokio::{io::Interest, time::Instant};

use super::{
    Datagrams,
    mmsg::{self, BATCH_MAX},
    path_mtu, receive, says_nobody_is_there,
    socket::Port,
};
use crate::{
    backend::{flights::Half, sink::Failure, tapped},
    ledger::{Counter, turn_time},
};

/// Source ports in use at a time; each batch leaves over a random one.
const PORTS: usize = 8;

/// Closes retired ports without waiting queries.
pub fn close_quiet(datagrams: &Datagrams) {
    datagrams.retired.borrow_mut().retain(|(port, task)| {
        if port.is_quiet() {
            task.abort();
        }
        !port.is_quiet()
    });
}

/// The result of sending a batch.
enum Sent {
    /// The queue is empty.
    All,
    /// The socket's buffer is full.
    Blocked(Rc<Port>),
    /// There is more to send.
    More,
}

/// Sends the queue as long as there is one. A sender that starts after a panic begins with the queue: nothing else would wake it for queries that already
/// wait.
pub async fn send_queue(datagrams: Rc<Datagrams>) {
    let backend = &datagrams.backend;
    loop {
        loop {
            match send_batch(&datagrams) {
                Sent::All => break,
                Sent::More => {}
                Sent::Blocked(port) => {
                    if port.socket.writable().await.is_err() {
                        datagrams.pool.unreachable(backend, &port.ids);
                    }
                }
            }
        }
        backend.datagram_queue.work.notified().await;
    }
}

/// Sends up to [`BATCH_MAX`] queries of the queue over one port.
fn send_batch(datagrams: &Rc<Datagrams>) -> Sent {
    let backend = &datagrams.backend;
    let mut batch = [0u16; BATCH_MAX];
    let count = take_queue(datagrams, &mut batch);
    let Some(batch) = batch.get_mut(..count).filter(|batch| !batch.is_empty()) else {
        return if backend.datagram_queue.is_empty() { Sent::All } else { Sent::More };
    };
    let port = match fresh_port(datagrams) {
        Ok(port) => port,
        Err(error) => {
            tracing::debug!(%error, backend = %backend.config.name, "no socket towards the backend");
            backend.rest();
            batch.iter().for_each(|slot| datagrams.pool.try_elsewhere(*slot, Failure::Unreachable));
            return Sent::More;
        }
    };
    turn_time::begin(Instant::now());
    let count = address_batch(datagrams, &port, batch);
    let batch = batch.get(..count).unwrap_or_default();
    let result = give_to_kernel(datagrams, &port, batch);
    settle_batch(datagrams, port, batch, result)
}

/// Sends the queries in these slots over `port`, in one call; returns how many the kernel took.
pub fn give_to_kernel(datagrams: &Datagrams, port: &Port, batch: &[u16]) -> io::Result<usize> {
    let (pool, backend) = (&datagrams.pool, &datagrams.backend);
    let flights = pool.flights.borrow();
    let queries = batch.iter().filter_map(|slot| flights.get(*slot));
    let mut proxy_batch = datagrams.proxy_batch.borrow_mut();
    if backend.config.proxy_v2 {
        proxy_batch.fill(queries.clone());
    }
    port.socket.try_io(Interest::WRITABLE, || {
        pool.counters.add(Counter::BackendSendCalls, 1);
        let (socket, can_segment) = (port.socket.as_raw_fd(), port.can_segment.get());
        match backend.config.proxy_v2 {
            true => mmsg::send(socket, proxy_batch.datagrams(), can_segment),
            false => mmsg::send(socket, queries.map(|flight| flight.query.as_slice()), can_segment),
        }
    })
}

fn take_queue(datagrams: &Datagrams, batch: &mut [u16; BATCH_MAX]) -> usize {
    let backend = &datagrams.backend;
    let flights = datagrams.pool.flights.borrow();
    let mut kept = 0;
    backend.datagram_queue.drain(BATCH_MAX, |slot| {
        // A query may have ended, or moved to another backend, while it waited.
        let waits = flights.get(slot).is_some_and(|flight| flight.waits_at(backend.index, Half::Datagram));
        if let (true, Some(entry)) = (waits, batch.get_mut(kept)) {
            *entry = slot;
            kept += 1;
        }
    });
    kept
}

/// Writes each query's ID. Returns how many have one; these come first. If a port has no free ID (half of them in
/// use) the query fails. A slot that was queued twice is sent once.
fn address_batch(datagrams: &Datagrams, port: &Rc<Port>, batch: &mut [u16]) -> usize {
    let pool = &datagrams.pool;
    let mut addressed = 0;
    for position in 0..batch.len() {
        let Some(&slot) = batch.get(position) else { break };
        let mut flights = pool.flights.borrow_mut();
        let Some(flight) = flights.get_mut(slot).filter(|flight| flight.sent.is_none()) else { continue };
        if flight.send_over(slot, &port.ids, &pool.random) {
            flight.note_sent(&pool.counters);
            batch.swap(addressed, position);
            addressed += 1;
        } else {
            drop(flights);
            pool.try_elsewhere(slot, Failure::Full);
        }
    }
    // Queries of one length stand next to each other, so they leave as one datagram.
    let flights = pool.flights.borrow();
    let length = |slot: &u16| flights.get(*slot).map(|flight| flight.query.len());
    batch.get_mut(..addressed).unwrap_or_default().sort_unstable_by_key(length);
    addressed
}

fn settle_batch(datagrams: &Datagrams, port: Rc<Port>, batch: &[u16], result: io::Result<usize>) -> Sent {
    let (pool, backend) = (&datagrams.pool, &datagrams.backend);
    let counters = &pool.counters;
    let (done, blocked) = match result {
        Ok(sent) => {
            counters.add(Counter::BackendSent, sent as u64);
            tapped::sent(&backend.config, &pool.flights, batch.get(..sent).unwrap_or_default());
            backend.retries.earn(sent);
            port.count_sent(sent);
            (sent, false)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, true),
        // This datagram is too long, or an earlier one was. The kernel sent none.
        Err(error) if path_mtu::says_too_long(&error) && datagrams.leave_long_to_streams(&port) => (0, false),
        // The kernel sent none; all are sent again, each by itself.
        Err(error) if port.can_segment.get() && mmsg::lacks_segmentation(&error) => {
            port.can_segment.set(false);
            (0, false)
        }
        // Often the error of an earlier datagram, which the kernel reports now. It sent none of these.
        Err(error) if says_nobody_is_there(&error) => {
            pool.unreachable(backend, &port.ids);
            return Sent::More;
        }
        // Longer than the kernel says that the path allows. The others may be short enough.
        Err(error) if path_mtu::says_too_long(&error) => {
            batch.first().into_iter().for_each(|slot| datagrams.leave_to_streams(*slot));
            (1, false)
        }
        Err(error) => {
            tracing::debug!(%error, backend = %backend.config.name, "the kernel refused a datagram");
            counters.add(Counter::BackendSendFailed, 1);
            // The kernel had no memory: the query counts as lost on the way; it has its port and ID, and is sent
            // again.
            if let Some(slot) = batch.first().filter(|slot| !pool.moved(**slot))
                && !mmsg::lacks_memory(&error)
            {
                pool.give_up(*slot, Failure::Unreachable);
            }
            (1, false)
        }
    };
    requeue(datagrams, batch.get(done..).unwrap_or_default());
    match blocked {
        true => Sent::Blocked(port),
        false if backend.datagram_queue.is_empty() => Sent::All,
        false => Sent::More,
    }
}

/// Puts unsent queries back to the front of the queue and frees their IDs.
fn requeue(datagrams: &Datagrams, unsent: &[u16]) {
    if unsent.is_empty() {
        return;
    }
    let mut flights = datagrams.pool.flights.borrow_mut();
    for slot in unsent {
        if let Some(flight) = flights.get_mut(*slot) {
            flight.take_back();
        }
    }
    datagrams.backend.datagram_queue.put_back(unsent);
}

/// A random one of the ports in use; a worn one is replaced first. Without a free descriptor (EMFILE) the open
/// ports are used on.
fn fresh_port(datagrams: &Rc<Datagrams>) -> io::Result<Rc<Port>> {
    let mut ports = datagrams.ports.borrow_mut();
    while ports.len() < PORTS {
        match receive::open_port(datagrams) {
            Ok(port) => ports.push(port),
            Err(error) if ports.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    let drawn = datagrams.pool.random.u16().ok_or_else(|| io::Error::other("no random numbers"))?;
    let position = usize::from(drawn).checked_rem(ports.len()).unwrap_or_default();
    let Some(entry) = ports.get_mut(position) else { return Err(io::Error::other("no port")) };
    if entry.0.is_worn()
        && let Ok(fresh) = receive::open_port(datagrams)
    {
        let worn = std::mem::replace(entry, fresh);
        datagrams.retired.borrow_mut().push(worn);
    }
    Ok(Rc::clone(&entry.0))
}
