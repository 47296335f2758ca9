//! Connections that have queries and do not answer: queries behind the oldest one move away, and no new ones
//! come.
//!
//! Before: the sweeper runs, twenty times a second. After: a connection that was silent for long gets no new
//! queries until it answers; the queries behind its oldest one are asked over another connection, and the oldest
//! too after its share of the deadline.
//! Why in runs of the sweeper: reading a clock for each query would cost every query, so silence is counted in
//! runs.
//! Never: takes the oldest query from a connection before its share is over, because the query may be slow and
//! not the connection; exceeds the retry budget while the whole backend is silent.

use std::rc::Rc;

use tokio::time::Instant;

use super::{
    Streams,
    connection::{Connection, Heard, Lane},
    trials,
};
use crate::{
    backend::{
        flights::{Flight, Half},
        history::History,
        pool::SWEEP_INTERVAL,
        sink::Failure,
        worker_backend::Backend,
    },
    ledger::Counter,
};

/// A connection is silent after at least this many runs without an answer: 100 ms.
const SILENT_LOOKS_MIN: u32 = 2;
/// How often one query is moved.
const MOVES_MAX: u8 = 3;
/// Silent connections of one backend that are kept for their oldest query. If there are more, the one that has
/// been silent longest is closed.
const SILENT_MAX: usize = 4;
/// The weight of the mean of the usual silence: each new value counts as one part in this many.
const PARTS: u32 = 8;

/// Examines every connection.
pub fn look(streams: &Streams, now: Instant) {
    let backend = &streams.backend;
    let usual = streams.usual_silence.get();
    // Twice the usual time, and at most half of a query's time at this backend.
    let most = half_of_looks(backend);
    let bound = (2 * usual / PARTS + 1).clamp(SILENT_LOOKS_MIN, most.max(SILENT_LOOKS_MIN));
    let mut silent = Vec::new();
    let (mut reorders, mut is_due) = (false, false);
    streams.for_each(|connection| {
        streams.limits.note_answers(connection.answered(), now);
        reorders |= connection.reorders();
        // If answers come in any order, one slow query says nothing about the others.
        match connection.look(if connection.reorders() { most.max(bound) } else { bound }) {
            Heard::Nothing => is_due |= connection.is_due(),
            Heard::Answers(0) => {}
            Heard::Answers(after) => streams.usual_silence.set(usual - usual / PARTS + after),
            Heard::Silent(looks) => {
                silent.push((looks, Rc::clone(connection)));
            }
        }
    });
    if is_due {
        streams.forget_quota();
    }
    if reorders {
        streams.limits.note_reordering(now);
    }
    if usual > 0 && silent.is_empty() && streams.is_answering() {
        streams.usual_silence.set(usual.saturating_sub(usual.div_ceil(PARTS * PARTS)));
    }
    let crowded =
        [Lane::Shared, Lane::Trial, Lane::Apart].map(|lane| longest_of_many(streams, &silent, lane));
    for (looks, connection) in silent {
        let is_crowded = crowded.iter().flatten().any(|one| Rc::ptr_eq(one, &connection));
        match connection.lane {
            _ if connection.ids.outstanding() == 0 => connection.end(),
            Lane::PerClient(_) if looks >= looks_in(backend) => leave(streams, &connection),
            Lane::PerClient(_) => {}
            _ if is_crowded => leave(streams, &connection),
            _ if looks >= most.max(bound) => relieve(streams, &connection, looks, now),
            _ => {}
        }
    }
    streams.look();
}

/// Runs of the sweeper in a query's time at one backend, before another is asked.
fn looks_in(backend: &Backend) -> u32 {
    u32::try_from(backend.patience().as_millis() / SWEEP_INTERVAL.as_millis()).unwrap_or(u32::MAX)
}

/// Half of that, at least one.
fn half_of_looks(backend: &Backend) -> u32 {
    (looks_in(backend) / 2).max(1)
}

/// The connection of this lane that has been silent longest, if there are more than are kept and the backend
/// answers others.
fn longest_of_many(
    streams: &Streams,
    silent: &[(u32, Rc<Connection>)],
    lane: Lane,
) -> Option<Rc<Connection>> {
    let most = if lane == Lane::Shared { SILENT_MAX } else { trials::SILENT_MAX - 1 };
    // A connection that was abandoned before ends by itself when no query waits on it.
    let of_lane = silent.iter().filter(|(_, one)| one.lane == lane && !one.is_over());
    if !streams.is_answering() || of_lane.clone().count() <= most {
        return None;
    }
    of_lane.max_by_key(|(looks, _)| *looks).map(|(_, connection)| Rc::clone(connection))
}

/// Moves the queries of `connection`, which was silent for `looks` runs, except its oldest one.
fn relieve(streams: &Streams, connection: &Connection, looks: u32, now: Instant) {
    let pool = &streams.pool;
    // If other connections answer, this one is slow, and moving its queries costs no budget. Otherwise the
    // backend may be slow.
    let since = now.checked_sub(SWEEP_INTERVAL.saturating_mul(looks));
    let is_free = streams.answered_at.get().is_some_and(|at| Some(at) > since);
    let holds_others = connection.ids.outstanding() > 1;
    if is_free && connection.lane == Lane::Shared && (holds_others || connection.was_relieved()) {
        streams.note_stall(now);
    }
    if !holds_others || streams.back_off.is_any() {
        return;
    }
    connection.note_relief();
    let mut slots = pool.flights.borrow().find(|flight| flight.is_over(&connection.ids));
    {
        let flights = pool.flights.borrow();
        slots.sort_unstable_by_key(|slot| flights.get(*slot).map(|flight| flight.history.order));
    }
    for slot in slots.into_iter().skip(1) {
        if !is_free && pool.moved(slot) {
            continue;
        }
        let may_move = |flight: &&mut Flight| !flight.is_once && flight.history.moves < MOVES_MAX;
        let mut flights = pool.flights.borrow_mut();
        let Some(flight) = flights.get_mut(slot).filter(may_move) else { continue };
        // The first move of a query is free: the connection is slow.
        if (!is_free || flight.history.moves > 0) && !streams.backend.retries.spend() {
            return;
        }
        flight.history.moves += 1;
        requeue(streams, flight, slot);
    }
}

/// Takes the queries from `connection`, which ends and frees its place. A query that must not be asked again
/// stays on it without holding a place; in a lane for suspects it fails.
fn leave(streams: &Streams, connection: &Rc<Connection>) {
    let pool = &streams.pool;
    let slots = pool.flights.borrow().find(|flight| flight.is_over(&connection.ids));
    for slot in slots {
        let is_trial = matches!(connection.lane, Lane::Trial | Lane::Apart);
        let mut flights = pool.flights.borrow_mut();
        let may_move = |flight: &&mut Flight| !flight.is_once && flight.history.moves < MOVES_MAX;
        let may_spend = |_: &&mut Flight| connection.lane == Lane::Shared || streams.backend.retries.spend();
        let Some(flight) = flights.get_mut(slot).filter(may_move).filter(may_spend) else {
            drop(flights);
            if is_trial {
                pool.try_elsewhere(slot, Failure::Silent);
            }
            continue;
        };
        if !matches!(connection.lane, Lane::PerClient(_)) {
            // The others wait for one of them.
            flight.history.company = 1;
        }
        flight.history.moves += 1;
        requeue(streams, flight, slot);
    }
    streams.per_client.forget(connection);
    connection.end();
}

fn requeue(streams: &Streams, flight: &mut Flight, slot: u16) {
    flight.take_back();
    streams.pool.counters.add(Counter::BackendMoved, 1);
    streams.put_in_line(slot, &flight.history);
    streams.look();
}

/// The query in `slot` had its share of the deadline, and no other backend can have it. If its connection was
/// silent for half of that time, the query is asked over another connection too; the first answer counts.
pub fn ask_apart(streams: &Streams, slot: u16) {
    let (pool, backend) = (&streams.pool, &streams.backend);
    let is_stuck = {
        let flights = pool.flights.borrow();
        let may_ask = |flight: &&Flight| !flight.is_once && flight.other.is_none();
        let Some(flight) = flights.get(slot).filter(may_ask) else { return };
        let mut is_stuck = false;
        streams.for_each(|connection| {
            // A query with a connection of its own delays no other, and would take a second place.
            let is_for_all = connection.lane == Lane::Shared;
            is_stuck |= is_for_all
                && connection.silent_looks() >= half_of_looks(backend)
                && flight.is_over(&connection.ids);
        });
        is_stuck
    };
    if !is_stuck || backend.config.proxy_v2 || !backend.retries.spend() {
        return;
    }
    let mut flights = pool.flights.borrow_mut();
    let Some(second) = flights.split(slot) else { return };
    let patience_until = flights.get(slot).map(|flight| flight.deadline);
    if let (Some(flight), Some(until)) = (flights.get_mut(second), patience_until) {
        (flight.backend, flight.half, flight.patience_until) = (backend.index, Half::Stream, until);
        flight.given_at = Instant::now();
        flight.history = History { company: 1, is_apart: true, was_given: true, ..History::default() };
        streams.suspects.enqueue(second, &flight.history);
    }
    drop(flights);
    backend.begin();
    pool.counters.add(Counter::BackendMoved, 1);
    streams.look();
}
