//! Queries that wait at a backend while no connection to it can be opened: they go elsewhere, wait on, or fail.
//!
//! Before: there is no connection and backs off. After: each waiting query has another place, or its
//! failure.
//! Never: fails a query on the first failures, which may be a server that restarts.

use tokio::time::Instant;

use super::Streams;
use crate::backend::{flights::Half, sink::Failure};

/// Whether queries go on waiting although no connection can be opened.
pub fn is_patient(streams: &Streams) -> bool {
    let backend = &streams.backend;
    let is_there = !streams.is_unconnected.get() && backend.config.health.is_up();
    let is_worth_waiting = streams.back_off.is_worth_waiting(backend.timeout(), Instant::now());
    (is_worth_waiting || is_there) && !backend.is_insecure.get()
}

/// There is no connection, and none can be opened now: queries go to other backends. If there is no other, they
/// wait during the first failures, or while checks are answered, and fail after that.
pub fn refuse_waiting(streams: &Streams) {
    let (pool, backend) = (&streams.pool, &streams.backend);
    let is_refused = backend.is_insecure.get() && backend.refuses_without_tls();
    let is_patient = is_patient(streams);
    let failure = if backend.is_insecure.get() { Failure::NotSecure } else { Failure::Unreachable };
    for slot in streams.take() {
        let history = {
            let flights = pool.flights.borrow();
            let waiting = flights.get(slot).filter(|flight| flight.waits_at(backend.index, Half::Stream));
            waiting.map(|flight| flight.history)
        };
        let Some(history) = history else { continue };
        if !is_refused && pool.moved(slot) {
            continue;
        }
        match is_patient {
            true => streams.put_in_line(slot, &history),
            false => pool.give_up(slot, failure),
        }
    }
}
