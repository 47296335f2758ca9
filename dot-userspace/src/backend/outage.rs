//! Queries that wait at a backend while no connection to it can be opened: they go elsewhere, wait on, or fail.
//!
//! Before: `streams` has no connection and backs off. After: each waiting query has another place, or its
//! failure.
//! Never: fails a query on the first failures, which may be a server that restarts.

use tokio::time::Instant;

use super::{flights::Half, sink::Failure, worker_backend::Backend};

/// Whether queries go on waiting although no connection can be opened.
pub fn is_patient(backend: &Backend) -> bool {
    let streams = &backend.streams;
    let is_there = !streams.is_unconnected.get() && backend.config.health.is_up();
    let is_worth_waiting = streams.back_off.is_worth_waiting(backend.timeout(), Instant::now());
    (is_worth_waiting || is_there) && !streams.is_insecure()
}

/// There is no connection, and none can be opened now: queries go to other backends. If there is no other, they
/// wait during the first failures, or while checks are answered, and fail after that.
pub fn refuse_waiting(backend: &Backend) {
    let streams = &backend.streams;
    let is_refused = streams.is_insecure() && backend.refuses_without_tls();
    let is_patient = is_patient(backend);
    let failure = if streams.is_insecure() { Failure::NotSecure } else { Failure::Unreachable };
    for slot in streams.take() {
        let history = {
            let flights = backend.pool.flights.borrow();
            let waiting = flights.get(slot).filter(|flight| flight.waits_at(backend.index, Half::Stream));
            waiting.map(|flight| flight.history)
        };
        let Some(history) = history else { continue };
        if !is_refused && backend.pool.moved(slot) {
            continue;
        }
        match is_patient {
            true => streams.put_in_line(backend, slot, &history),
            false => backend.pool.give_up(slot, failure),
        }
    }
}
