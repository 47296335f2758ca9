//! Sends datagrams that may be lost once more: in batches, few at a time, within the retry budget.
//!
//! Before: `sweep` found that a backend was silent about a query for its share of the deadline, and that no other
//! backend can have it. After: the same octets left over the same port, so the answer to either datagram matches,
//! however slow the backend is.
//! Why few at a time: a burst that was lost because a socket's buffer was full would be lost again.
//! Holds: the queries to be sent again in this run of the sweeper.
//! Never: sends a query again that has moved, or exceeds the retry budget.

use std::{cell::RefCell, io, rc::Rc, time::Duration};

use tokio::time::Instant;

use super::{
    Datagrams,
    mmsg::{self, BATCH_MAX},
    path_mtu, says_nobody_is_there,
    send::give_to_kernel,
    socket::Port,
};
use crate::{
    backend::{flights::Flight, pool::SWEEP_INTERVAL, tapped},
    ledger::Counter,
};

/// Datagrams that are sent again in one run of the sweeper.
const AGAIN_MAX: usize = 2 * BATCH_MAX;
/// A query that found no room is tried again after this time.
const LATER: Duration = Duration::from_millis(2 * SWEEP_INTERVAL.as_millis() as u64);

/// Queries to be sent again.
#[derive(Default)]
pub struct Again(RefCell<Vec<u16>>);

/// Sends the query of `flight`, in `slot`, again, in this run or a later one.
pub fn enqueue(datagrams: &Datagrams, slot: u16, flight: &mut Flight) {
    let mut again = datagrams.again.0.borrow_mut();
    if again.len() < AGAIN_MAX && datagrams.backend.retries.spend() {
        flight.history.was_resent = true;
        again.push(slot);
    } else {
        flight.patience_until = Instant::now() + LATER;
    }
}

/// Sends the queued queries.
pub fn send(datagrams: &Datagrams) {
    let slots = datagrams.again.0.take();
    if slots.is_empty() {
        return;
    }
    for port in datagrams.open_ports() {
        let mut batch = [0; BATCH_MAX];
        let mut left = slots.as_slice();
        while !left.is_empty() {
            let count = fill(datagrams, &port, &mut left, &mut batch);
            let batch = batch.get(..count).unwrap_or_default();
            if !batch.is_empty() && !send_batch(datagrams, &port, batch) {
                break;
            }
        }
    }
    // The vector is used again in the next run.
    let mut slots = slots;
    slots.clear();
    datagrams.again.0.replace(slots);
}

/// Takes from `slots` those that were sent over `port`, up to a batch. Returns their number.
fn fill(datagrams: &Datagrams, port: &Port, slots: &mut &[u16], batch: &mut [u16; BATCH_MAX]) -> usize {
    let flights = datagrams.pool.flights.borrow();
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
fn send_batch(datagrams: &Datagrams, port: &Rc<Port>, batch: &[u16]) -> bool {
    let pool = &datagrams.pool;
    let mut result = give_to_kernel(datagrams, port, batch);
    if let Err(error) = &result
        && port.can_segment.get()
        && mmsg::lacks_segmentation(error)
    {
        port.can_segment.set(false);
        result = give_to_kernel(datagrams, port, batch);
    }
    match result {
        Ok(sent) => {
            pool.counters.add(Counter::BackendSent, sent as u64);
            pool.counters.add(Counter::BackendRetransmitted, sent as u64);
            tapped::sent(&datagrams.backend.config, &pool.flights, batch.get(..sent).unwrap_or_default());
            true
        }
        Err(error) => !is_about_the_way(datagrams, port, &error, batch),
    }
}

fn is_about_the_way(datagrams: &Datagrams, port: &Rc<Port>, error: &io::Error, batch: &[u16]) -> bool {
    let pool = &datagrams.pool;
    if says_nobody_is_there(error) {
        pool.unreachable(&datagrams.backend, &port.ids);
        return true;
    }
    if !path_mtu::says_too_long(error) {
        pool.counters.add(Counter::BackendSendFailed, 1);
    } else if !datagrams.leave_long_to_streams(port) {
        batch.first().into_iter().for_each(|slot| datagrams.leave_to_streams(*slot));
    }
    false
}
