//! The tasks of one worker's backends: started together, and ended together by the sweeper, which also looks after queries
//! twenty times a second.
//!
//! Before: `Backends::start` made a pool. After: no query waits past its deadline, or for a backend that is silent while
//! another may answer; when the pool is retired and no query waits, every task and every socket of it has ended.
//! Holds: the transports of each backend. Nothing refers to them but their own tasks, which end here.
//! Never: holds a borrow over an await.

use std::{cell::RefCell, rc::Rc};

use tokio::{
    task::{JoinSet, spawn_local},
    time::{Instant, sleep},
};

use super::{
    flights::Half,
    pool::{Pool, SWEEP_INTERVAL},
    second_tries,
    sink::Failure,
    stream::{self, Scratch, Streams, silence},
    udp::{self, Datagrams, Inbound, path_mtu, resend},
};
use crate::{ledger::turn_time, supervise::supervise};

/// A backend that answers a smaller percentage is set aside…
const POOR_PERCENT: u32 = 50;
/// …if another one answers at least this percentage.
const GOOD_PERCENT: u32 = 80;

/// The sockets of one worker towards one backend.
struct Transports {
    datagrams: Rc<Datagrams>,
    streams: Rc<Streams>,
}

/// Starts the tasks of `pool`; opens no socket yet.
pub fn start(pool: &Rc<Pool>) {
    let pool = Rc::clone(pool);
    let (inbound, scratch) = (Rc::<RefCell<Inbound>>::default(), Scratch::default());
    let transports_of = |backend: &Rc<_>| Transports {
        datagrams: Rc::new(Datagrams::new(&pool, backend, &inbound)),
        streams: Rc::new(Streams::new(&pool, backend, &scratch)),
    };
    let transports: Rc<[Transports]> = pool.backends.iter().map(transports_of).collect();
    spawn_local(async move {
        let mut tasks = JoinSet::new();
        for Transports { datagrams, streams } in transports.iter() {
            let (datagrams, streams) = (Rc::clone(datagrams), Rc::clone(streams));
            tasks.spawn_local(supervise("sender", move || udp::send_queue(Rc::clone(&datagrams))));
            tasks.spawn_local(supervise("distributor", move || stream::distribute(Rc::clone(&streams))));
        }
        if pool.hedging.is_on() {
            let pool = Rc::clone(&pool);
            tasks.spawn_local(supervise("hedging", move || second_tries::watch(Rc::clone(&pool))));
        }
        supervise("sweeper", || sweep(&pool, &transports)).await;
        for one in transports.iter() {
            one.datagrams.close();
            one.streams.close();
        }
    });
}

/// Ends queries past their deadline, moves those whose backend is silent, closes unused ports.
async fn sweep(pool: &Rc<Pool>, transports: &[Transports]) {
    loop {
        let is_quiet = pool.flights.borrow().outstanding() == 0;
        if is_quiet && pool.is_retired() {
            return;
        }
        if is_quiet && !transports.iter().any(|one| one.datagrams.has_retired()) {
            pool.flying.notified().await;
        }
        sleep(SWEEP_INTERVAL).await;
        let now = Instant::now();
        turn_time::begin(now);
        let late = pool.flights.borrow().find(|flight| flight.deadline <= now);
        late.into_iter().for_each(|slot| pool.give_up(slot, Failure::Silent));
        let silent = pool.flights.borrow().find(|flight| flight.patience_until <= now);
        silent.into_iter().for_each(|slot| lose_patience(pool, transports, slot));
        compare(pool, now);
        for one in transports {
            resend::send(&one.datagrams);
            udp::close_quiet(&one.datagrams);
            one.streams.backend.retries.refill();
            one.streams.sweep(now);
        }
    }
}

/// Its backend has been silent for its share of the deadline. Another backend gets the query. Without another backend, a
/// datagram is sent again, or its query goes over a connection if the datagram may be too long for the path; a query on a connection
/// keeps waiting.
fn lose_patience(pool: &Pool, transports: &[Transports], slot: u16) {
    let Some(last) = pool.backend_of(slot) else { return };
    if pool.moved(slot) {
        return last.note_loss();
    }
    let mut flights = pool.flights.borrow_mut();
    let Some(flight) = flights.get_mut(slot) else { return };
    let Some(Transports { datagrams, streams }) = transports.get(flight.backend) else { return };
    flight.patience_until = Instant::now() + last.patience();
    match flight.half {
        Half::Datagram if flight.is_spare() => {}
        Half::Datagram if last.datagram_octets(flight.query.len()) <= path_mtu::CARRIED_OCTETS => {
            resend::enqueue(datagrams, slot, flight);
        }
        half => {
            drop(flights);
            match half {
                Half::Stream => silence::ask_apart(streams, slot),
                Half::Datagram => datagrams.leave_to_streams(slot),
            }
        }
    }
}

/// Reports what each backend answered, and sets it aside if it answers much less than another.
fn compare(pool: &Pool, now: Instant) {
    let best = pool.backends.iter().filter_map(|backend| backend.outcomes.percent()).max();
    let is_other_good = best.is_some_and(|best| best >= GOOD_PERCENT);
    for backend in &pool.backends {
        let is_poor = backend.outcomes.percent().is_some_and(|percent| percent < POOR_PERCENT);
        if is_poor && is_other_good {
            backend.set_aside(now);
            backend.outcomes.forget();
        }
        if let Some((answered, lost)) = backend.outcomes.look()
            && (answered > 0 || lost > 0)
        {
            backend.config.health.note_outcomes(answered, lost);
        }
    }
}
