//! What waits at a backend while no connection to it can be opened: it goes elsewhere, waits on, or fails.
//!
//! Before: `streams` has no connection and backs off. After: whatever waited has a place, or its failure.
//! Never: has a query fail on the first failures, which are a server that restarts.

use tokio::time::Instant;

use super::{flights::Half, sink::Failure, upstream::Upstream};

/// Whether what waits goes on to wait although no connection can be opened.
pub fn is_patient(upstream: &Upstream) -> bool {
    let streams = &upstream.streams;
    let is_there = !streams.is_unconnected.get() && upstream.config.health.is_up();
    let is_worth_waiting = streams.back_off.is_worth_waiting(upstream.timeout(), Instant::now());
    (is_worth_waiting || is_there) && !streams.is_insecure()
}

/// There is no connection, and none can be opened now: what waits goes to other backends. Where there is
/// none it waits on through the first failures, or while checks are answered, and fails after them.
pub fn refuse_waiting(upstream: &Upstream) {
    let streams = &upstream.streams;
    let is_refused = streams.is_insecure() && upstream.refuses_without_tls();
    let is_patient = is_patient(upstream);
    let failure = if streams.is_insecure() { Failure::NotSecure } else { Failure::Unreachable };
    for slot in streams.take() {
        let record = {
            let flights = upstream.fleet.flights.borrow();
            let waiting = flights.get(slot).filter(|flight| flight.waits_at(upstream.index, Half::Stream));
            waiting.map(|flight| flight.record)
        };
        let Some(record) = record else { continue };
        if !is_refused && upstream.fleet.moved(slot) {
            continue;
        }
        match is_patient {
            true => streams.put_in_line(upstream, slot, &record),
            false => upstream.fleet.give_up(slot, failure),
        }
    }
}
