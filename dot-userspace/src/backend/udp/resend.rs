//! Sends datagrams that may be lost once more: in batches, few at a time, within the retry budget.
//!
//! Before: `pool` found that a backend was silent about a query for its share of the deadline, and that no other
//! backend can have it. After: the same octets left over the same port, so the answer to either datagram matches,
//! however slow the backend is.
//! Why few at a time: a burst that was lost because a socket's buffer was full would be lost again.
//! Holds: the queries to be sent again in this run of the sweeper.
//! Never: sends a query again that has moved, or exceeds the retry budget.

use std::{cell::RefCell, io, rc::Rc, time::Duration};

use tokio::time::Instant;

use super::{
    mmsg::{self, BATCH_MAX},
    path_mtu, says_nobody_is_there,
    send::give_to_kernel,
    socket::Port,
};
use crate::{
    backend::{flights::Flight, pool::SWEEP_INTERVAL, tapped, worker_backend::Backend},
    ledger::Counter,
};

/// Datagrams that are sent again in one run of the sweeper.
const AGAIN_MAX: usize = 2 * BATCH_MAX;
/// A query that found no room is tried again after this time.
const LATER: Duration = Duration::from_millis(2 * SWEEP_INTERVAL.as_millis() as u64);

/// An answer within this part of a query's share of its deadline came soon.
const SOON: u32 = 4;

/// Queries to be sent again.
#[derive(Default)]
pub struct Again(RefCell<Vec<u16>>);

/// Sends the query of `flight`, in `slot`, again, in this run or a later one.
pub fn enqueue(backend: &Backend, slot: u16, flight: &mut Flight) {
    let mut again = backend.datagrams.again.0.borrow_mut();
    if again.len() < AGAIN_MAX && backend.retries.spend() {
        flight.history.was_resent = true;
        again.push(slot);
    } else {
        flight.patience_until = Instant::now() + LATER;
    }
}

/// The query of `flight` is answered now. If that is soon after its second try, the first one was lost.
pub fn note_answer(backend: &Backend, flight: &Flight, now: Instant) {
    let patience = backend.patience();
    // Its share of the deadline started again with the second try.
    let soon = flight.patience_until.checked_sub(patience - patience / SOON);
    if flight.history.was_resent && soon.is_some_and(|soon| now < soon) {
        backend.retries.was_needed();
    }
}

/// Sends the queued queries.
pub fn send(backend: &Backend) {
    let slots = backend.datagrams.again.0.take();
    if slots.is_empty() {
        return;
    }
    for port in backend.datagrams.open_ports() {
        let mut batch = [0; BATCH_MAX];
        let mut left = slots.as_slice();
        while !left.is_empty() {
            let count = fill(backend, &port, &mut left, &mut batch);
            let batch = batch.get(..count).unwrap_or_default();
            if !batch.is_empty() && !send_batch(backend, &port, batch) {
                break;
            }
        }
    }
    // The vector is used again in the next run.
    let mut slots = slots;
    slots.clear();
    backend.datagrams.again.0.replace(slots);
}

/// Takes from `slots` those that were sent over `port`, up to a batch. Returns their number.
fn fill(backend: &Backend, port: &Port, slots: &mut &[u16], batch: &mut [u16; BATCH_MAX]) -> usize {
    let flights = backend.pool.flights.borrow();
    let mut count = 0;
    while let Some((slot, rest)) = slots.split_first() {
        let Some(place) = batch.get_mut(count) else { break };
        if flights.get(*slot).is_some_and(|flight| flight.is_over(&port.ids)) {
            *place = *slot;
            count += 1;
        }
        *slots = rest;
    }
    count
}

/// Sends a batch. A datagram that cannot be sent now counts as lost again. `false`: the port is of no use.
fn send_batch(backend: &Backend, port: &Rc<Port>, batch: &[u16]) -> bool {
    let mut result = give_to_kernel(backend, port, batch);
    if let Err(error) = &result
        && port.can_segment.get()
        && mmsg::lacks_segmentation(error)
    {
        port.can_segment.set(false);
        result = give_to_kernel(backend, port, batch);
    }
    match result {
        Ok(sent) => {
            let counters = &backend.pool.counters;
            counters.add(Counter::BackendSent, sent as u64);
            counters.add(Counter::BackendRetransmitted, sent as u64);
            tapped::sent(&backend.config, &backend.pool.flights, batch.get(..sent).unwrap_or_default());
            true
        }
        Err(error) => !is_about_the_way(backend, port, &error, batch),
    }
}

fn is_about_the_way(backend: &Backend, port: &Rc<Port>, error: &io::Error, batch: &[u16]) -> bool {
    if says_nobody_is_there(error) {
        backend.is_unreachable(&port.ids);
        return true;
    }
    if !path_mtu::says_too_long(error) {
        backend.pool.counters.add(Counter::BackendSendFailed, 1);
    } else if !path_mtu::leave_to_streams(backend, port) {
        batch.first().into_iter().for_each(|slot| path_mtu::leave_to_stream(backend, *slot));
    }
    false
}
