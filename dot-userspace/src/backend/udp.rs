//! The UDP half of a backend: one `sendmmsg` for a turn's queries, one `recvmmsg` for what came back.
//!
//! Before: `Upstream::submit` queued queries. After: each outcome is with its sink.
//! Holds: three tasks per backend and worker: the sender, the receivers (one a port), the sweeper.
//! Never: believes a response whose port, ID or question does not match (RFC 5452 §9.1).
//!
//! # Cancel safety
//! The tasks are aborted only with their worker or, a receiver, when nobody waits on its port.

use std::{io, os::fd::AsRawFd, rc::Rc, time::Duration};

use tokio::{io::Interest, task::spawn_local, time::Instant};

use super::{
    mmsg::{self, BATCH_MAX},
    port::Port,
    sink::Failure,
    tcp,
    upstream::Upstream,
};
use crate::{dns, ledger::Counter};

/// Source ports in use at a time; each batch leaves over a random one.
const PORTS: usize = 8;
/// How often deadlines are looked at; a time-out is late by at most this.
const SWEEP_INTERVAL: Duration = Duration::from_millis(50);

/// Starts the tasks of `upstream`. They end with the worker's runtime.
pub fn start(upstream: &Rc<Upstream>) {
    spawn_local(send_queue(Rc::clone(upstream)));
    spawn_local(sweep(Rc::clone(upstream)));
}

/// What became of a batch.
enum Sent {
    /// The queue is empty.
    All,
    /// The socket's buffer is full.
    Blocked(Rc<Port>),
    /// There is more to send.
    More,
}

async fn send_queue(upstream: Rc<Upstream>) {
    while !upstream.is_over() {
        upstream.work.notified().await;
        loop {
            match send_batch(&upstream) {
                Sent::All => break,
                Sent::More => {}
                Sent::Blocked(port) => {
                    if port.socket.writable().await.is_err() {
                        upstream.unreachable(&port);
                    }
                }
            }
        }
    }
}

/// Sends up to [`BATCH_MAX`] queries of the queue over one port.
fn send_batch(upstream: &Rc<Upstream>) -> Sent {
    let mut batch = [0u16; BATCH_MAX];
    let count = take_queue(upstream, &mut batch);
    let Some(batch) = batch.get_mut(..count).filter(|batch| !batch.is_empty()) else {
        // All that was taken had timed out; there may be more.
        return if upstream.queue.borrow().is_empty() { Sent::All } else { Sent::More };
    };
    let port = match fresh_port(upstream) {
        Ok(port) => port,
        Err(error) => {
            tracing::debug!(%error, backend = %upstream.address, "no socket towards the backend");
            upstream.rest();
            batch.iter().for_each(|slot| upstream.fail(*slot, Failure::Unreachable));
            return Sent::More;
        }
    };
    let count = address_batch(upstream, &port, batch);
    let batch = batch.get(..count).unwrap_or_default();
    let result = {
        let flights = upstream.flights.borrow();
        let datagrams =
            batch.iter().filter_map(|slot| flights.get(*slot)).map(|flight| flight.query.as_slice());
        port.socket.try_io(Interest::WRITABLE, || {
            upstream.counters.add(Counter::BackendSendCalls, 1);
            mmsg::send(port.socket.as_raw_fd(), datagrams)
        })
    };
    settle_batch(upstream, port, batch, result)
}

fn take_queue(upstream: &Upstream, batch: &mut [u16; BATCH_MAX]) -> usize {
    let mut queue = upstream.queue.borrow_mut();
    let mut flights = upstream.flights.borrow_mut();
    let count = queue.len().min(BATCH_MAX);
    let mut kept = 0;
    for slot in queue.drain(..count) {
        flights.set_queued(slot, false);
        // A query may have timed out while it waited.
        if let (Some(_), Some(entry)) = (flights.get(slot), batch.get_mut(kept)) {
            *entry = slot;
            kept += 1;
        }
    }
    kept
}

/// Writes each query's ID; returns how many have one, moved to the front. A port without a free one (half its
/// IDs in use) fails the query.
fn address_batch(upstream: &Upstream, port: &Rc<Port>, batch: &mut [u16]) -> usize {
    let mut kept = 0;
    for at in 0..batch.len() {
        let Some(slot) = batch.get(at).copied() else { break };
        let claimed = port.claim(slot, &upstream.random);
        let mut flights = upstream.flights.borrow_mut();
        match (claimed, flights.get_mut(slot)) {
            (Some(id), Some(flight)) => {
                if let Some(octets) = flight.query.first_chunk_mut::<2>() {
                    *octets = id.to_be_bytes();
                }
                flight.sent = Some((Rc::clone(port), id));
                if let Some(room) = batch.get_mut(kept) {
                    *room = slot;
                }
                kept += 1;
            }
            _ => {
                drop(flights);
                upstream.fail(slot, Failure::Full);
            }
        }
    }
    kept
}

fn settle_batch(upstream: &Rc<Upstream>, port: Rc<Port>, batch: &[u16], result: io::Result<usize>) -> Sent {
    let (taken, blocked) = match result {
        Ok(sent) => {
            upstream.counters.add(Counter::BackendSent, sent as u64);
            (sent, false)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, true),
        // An earlier datagram met a closed port, or there is no way there: none of these was sent either.
        Err(error) if mmsg::is_of_the_way(&error) => {
            upstream.unreachable(&port);
            return Sent::More;
        }
        Err(error) => {
            tracing::debug!(%error, backend = %upstream.address, "the kernel refused a datagram");
            upstream.counters.add(Counter::BackendSendFailed, 1);
            if let Some(slot) = batch.first() {
                upstream.fail(*slot, Failure::Unreachable);
            }
            (1, false)
        }
    };
    requeue(upstream, batch.get(taken..).unwrap_or_default());
    match blocked {
        true => Sent::Blocked(port),
        false if upstream.queue.borrow().is_empty() => Sent::All,
        false => Sent::More,
    }
}

/// Puts what was not sent back into the queue, its IDs free again.
fn requeue(upstream: &Upstream, unsent: &[u16]) {
    if unsent.is_empty() {
        return;
    }
    let mut flights = upstream.flights.borrow_mut();
    for slot in unsent {
        if let Some((port, id)) = flights.get_mut(*slot).and_then(|flight| flight.sent.take()) {
            port.release(id);
        }
    }
    upstream.enqueue(&mut flights, unsent);
}

/// A random port of those in use; a worn one is replaced first.
fn fresh_port(upstream: &Rc<Upstream>) -> io::Result<Rc<Port>> {
    let mut ports = upstream.ports.borrow_mut();
    while ports.len() < PORTS {
        match open_port(upstream) {
            Ok(port) => ports.push(port),
            Err(error) if ports.is_empty() => return Err(error),
            // Fewer ports are less spread, and still serve.
            Err(_) => break,
        }
    }
    let drawn = upstream.random.u16().ok_or_else(|| io::Error::other("no random numbers"))?;
    let index = usize::from(drawn).checked_rem(ports.len()).unwrap_or_default();
    let Some(entry) = ports.get_mut(index) else { return Err(io::Error::other("no port")) };
    // A worn port is better than none: without a descriptor for its successor it stays.
    if let Some(new) = entry.0.is_worn().then(|| open_port(upstream).ok()).flatten() {
        let worn = std::mem::replace(entry, new);
        upstream.retired.borrow_mut().push(worn);
    }
    Ok(Rc::clone(&entry.0))
}

fn open_port(upstream: &Rc<Upstream>) -> io::Result<(Rc<Port>, tokio::task::AbortHandle)> {
    let port = Rc::new(Port::open(upstream.address)?);
    let task = spawn_local(receive_all(Rc::clone(upstream), Rc::clone(&port)));
    Ok((port, task.abort_handle()))
}

async fn receive_all(upstream: Rc<Upstream>, port: Rc<Port>) {
    while port.socket.readable().await.is_ok() {
        let mut got = 0;
        let result = port.socket.try_io(Interest::READABLE, || {
            got = upstream.inbound.borrow_mut().receive(port.socket.as_raw_fd())?;
            // Fewer than asked for: the kernel's queue is empty, so wait without asking once more.
            if got < BATCH_MAX { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        if got > 0 {
            upstream.counters.add(Counter::BackendReceiveCalls, 1);
            upstream.counters.add(Counter::BackendReceived, got as u64);
            deliver(&upstream, &port, got);
        }
        match result {
            // There is more; but a flooding backend must not keep the sessions from their turn.
            Ok(()) => tokio::task::yield_now().await,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock && mmsg::is_of_the_way(&error) => {
                upstream.unreachable(&port);
            }
            Err(_) => {}
        }
    }
}

/// Gives each datagram of the batch to whoever waits for it.
fn deliver(upstream: &Rc<Upstream>, port: &Rc<Port>, count: usize) {
    let inbound = upstream.inbound.borrow();
    for (datagram, is_cut) in inbound.datagrams(count) {
        let id = datagram.first_chunk::<2>().map(|octets| u16::from_be_bytes(*octets));
        let Some(slot) = id.and_then(|id| port.slot_of(id)) else {
            upstream.counters.add(Counter::BackendUnmatched, 1);
            continue;
        };
        match judge(upstream, slot, datagram, is_cut) {
            Match::Response => {
                if upstream.flights.borrow_mut().end(slot).is_some() {
                    upstream.counters.subtract(Counter::BackendOutstanding, 1);
                }
            }
            Match::Truncated => tcp::ask_again(upstream, slot),
            Match::NotOurs => upstream.counters.add(Counter::BackendUnmatched, 1),
        }
    }
}

/// What a datagram with a known ID is.
enum Match {
    Response,
    Truncated,
    NotOurs,
}

/// Compares the datagram with the query; a true response is with its sink when this returns.
fn judge(upstream: &Upstream, slot: u16, datagram: &[u8], is_cut: bool) -> Match {
    let flights = upstream.flights.borrow();
    let Some(flight) = flights.get(slot) else { return Match::NotOurs };
    if !dns::question_matches(datagram, &flight.query, usize::from(flight.asked.question_end)) {
        return Match::NotOurs;
    }
    if is_cut || dns::is_truncated(datagram) {
        return Match::Truncated;
    }
    match flight.sink.as_ref().map(|sink| sink.response(flight.asked, datagram)) {
        Some(Ok(())) => Match::Response,
        _ => Match::NotOurs,
    }
}

/// Ends flights past their deadline, sends lost ones again, and closes retired ports that nobody waits on.
async fn sweep(upstream: Rc<Upstream>) {
    while !upstream.is_over() {
        if upstream.flights.borrow().outstanding() == 0
            && upstream.retired.borrow().is_empty()
            && !upstream.is_ending.get()
        {
            upstream.flying.notified().await;
        }
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let now = Instant::now();
        let late = upstream.flights.borrow().find(|flight| flight.deadline <= now);
        for slot in late {
            upstream.fail(slot, Failure::Silent);
        }
        let lost = upstream.flights.borrow().find(|flight| flight.retransmit <= now);
        for slot in lost {
            upstream.retransmit(slot);
        }
        upstream.retired.borrow_mut().retain(|(port, task)| {
            if port.is_quiet() {
                task.abort();
            }
            !port.is_quiet()
        });
    }
    // The last task of an ending backend: the receivers hold it, and it holds them.
    let ports = upstream.ports.take().into_iter().chain(upstream.retired.take());
    ports.for_each(|(_, task)| task.abort());
    upstream.work.notify_one();
}
