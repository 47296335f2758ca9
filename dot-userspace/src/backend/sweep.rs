//! The tasks of one worker's backends: started together, and ended together by the sweeper, which also looks after queries
//! twenty times a second.
//!
//! Before: `Backends::start` made a pool. After: no query waits past its deadline, or for a backend that is silent while
//! another may answer; when the pool is retired and no query waits, every task and every socket of it has ended. Those of a backend that
//! is asked no more end with its last query.
//! Holds: the transports of each backend. Nothing refers to them but their own tasks, which end here.
//! Never: holds a borrow over an await.

use std::{cell::RefCell, rc::Rc};

use tokio::{
    task::{AbortHandle, spawn_local},
    time::{Instant, sleep},
};

use super::{
    flights::Half,
    pool::{Pool, SWEEP_INTERVAL},
    second_tries,
    sink::Failure,
    stream::{self, Scratch, Streams, silence},
    udp::{self, Datagrams, Inbound, path_mtu, resend},
    worker_backend::Backend,
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
    tasks: [AbortHandle; 2],
}

impl Transports {
    fn close(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.datagrams.close();
        self.streams.close();
    }
}

/// The transports of all backends of a pool.
pub struct Tasks {
    pool: Rc<Pool>,
    inbound: Rc<RefCell<Inbound>>,
    scratch: Scratch,
    transports: RefCell<Vec<Transports>>,
}

impl Tasks {
    /// Starts the tasks of a backend; opens no socket yet.
    pub fn begin(&self, backend: &Rc<Backend>) {
        let datagrams = Rc::new(Datagrams::new(&self.pool, backend, &self.inbound));
        let streams = Rc::new(Streams::new(&self.pool, backend, &self.scratch));
        let (sending, distributing) = (Rc::clone(&datagrams), Rc::clone(&streams));
        let tasks = [
            spawn_local(supervise("sender", move || udp::send_queue(Rc::clone(&sending)))).abort_handle(),
            spawn_local(supervise("distributor", move || stream::distribute(Rc::clone(&distributing))))
                .abort_handle(),
        ];
        self.transports.borrow_mut().push(Transports { datagrams, streams, tasks });
    }

    /// Ends the tasks of backends that are asked no more and have no query left.
    pub fn end_those_that_left(&self) {
        self.transports.borrow_mut().retain(|one| {
            let is_over = self.pool.roster.borrow_mut().forgets(&one.streams.backend);
            if is_over {
                one.close();
            }
            !is_over
        });
    }
}

/// Starts the tasks of `pool`; opens no socket yet.
pub fn start(pool: &Rc<Pool>) -> Rc<Tasks> {
    let tasks = Rc::new(Tasks {
        pool: Rc::clone(pool),
        inbound: Rc::default(),
        scratch: Scratch::default(),
        transports: RefCell::default(),
    });
    pool.roster.borrow().asked().iter().for_each(|backend| tasks.begin(backend));
    let all = Rc::clone(&tasks);
    spawn_local(async move {
        let pool = Rc::clone(&all.pool);
        let hedging = pool.hedging.is_on().then(|| {
            let pool = Rc::clone(&pool);
            spawn_local(supervise("hedging", move || second_tries::watch(Rc::clone(&pool)))).abort_handle()
        });
        supervise("sweeper", || sweep(&pool, &all)).await;
        hedging.iter().for_each(AbortHandle::abort);
        all.transports.take().iter().for_each(Transports::close);
    });
    tasks
}

/// Ends queries past their deadline, moves those whose backend is silent, closes unused ports.
async fn sweep(pool: &Rc<Pool>, tasks: &Tasks) {
    loop {
        let is_quiet = pool.flights.borrow().outstanding() == 0;
        if is_quiet && pool.is_retired() {
            return;
        }
        let has_retired = |one: &Transports| one.datagrams.has_retired();
        if is_quiet && !tasks.transports.borrow().iter().any(has_retired) {
            pool.flying.notified().await;
        }
        sleep(SWEEP_INTERVAL).await;
        let now = Instant::now();
        turn_time::begin(now);
        let late = pool.flights.borrow().find(|flight| flight.deadline <= now);
        late.into_iter().for_each(|slot| pool.give_up(slot, Failure::Silent));
        let silent = pool.flights.borrow().find(|flight| flight.patience_until <= now);
        let transports = tasks.transports.borrow();
        silent.into_iter().for_each(|slot| lose_patience(pool, &transports, slot));
        compare(pool, now);
        for one in transports.iter() {
            resend::send(&one.datagrams);
            udp::close_quiet(&one.datagrams);
            one.streams.backend.retries.refill();
            one.streams.sweep(now);
        }
        drop(transports);
        tasks.end_those_that_left();
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
    let has_it = |one: &&Transports| one.streams.backend.index == flight.backend;
    let Some(Transports { datagrams, streams, .. }) = transports.iter().find(has_it) else { return };
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
    let roster = pool.roster.borrow();
    let best = roster.asked().iter().filter_map(|backend| backend.outcomes.percent()).max();
    let is_other_good = best.is_some_and(|best| best >= GOOD_PERCENT);
    for backend in roster.asked() {
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
