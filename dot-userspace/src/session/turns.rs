//! Turns: how much of a worker's time each client has before others run, however many connections it has.
//!
//! Before: a session is polled. After: its reader knows how many units it may use; a session whose client has used up
//! its units waits here until the runtime has checked its sockets again.
//! Holds: the waiting sessions: clients in the order of service, each with its sessions in order (deficit round robin
//! over prefixes; RFC 8290 §1.3 does it for flows).
//! Never: delays a client that has used less than its share, or one client's session behind another client's; starts
//! turns by a clock: a turn ends when the worker is idle, or when sessions wait for their turns.
//!
//! A unit is some 0.4 µs of a worker's time, as [`super::turn`] counts it.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
};

use tokio::{sync::Notify, task::yield_now};

use super::{
    Inbox,
    clients::{Clients, Row},
};

/// Units of one turn, for all waiting clients together: about 0.8 ms.
const TURN_UNITS: u32 = 2048;
/// Least units of a client in a turn, however many wait: a few sessions with a few messages each.
const CLIENT_UNITS_MIN: u32 = 64;
/// Fewest units of a session that has waited: its read, its write and some messages.
const SESSION_UNITS_MIN: u32 = 32;

/// Empty queues kept for the next waiting clients: with 500 sessions each they are 64 KiB.
const SPARE_MAX: usize = 16;

thread_local! {
    static IDLE_TIMES: Cell<u32> = const { Cell::new(0) };
}

/// The worker of this thread is idle: every session that could run has run, so a turn is over.
pub fn note_idle() {
    IDLE_TIMES.set(IDLE_TIMES.get().wrapping_add(1));
}

/// The turns of one worker.
pub(super) struct Turns {
    number: Cell<u32>,
    /// How often the worker had been idle when the turn began.
    idle_times: Cell<u32>,
    /// Units that each client has of this turn.
    share: Cell<u32>,
    queue: RefCell<Queue>,
    bell: Notify,
}

/// The sessions that wait.
#[derive(Default)]
struct Queue {
    order: VecDeque<Row>,
    sessions: HashMap<Row, VecDeque<Rc<Inbox>>, BuildHasherDefault<RowHasher>>,
    /// Empty queues for the next waiting clients, so that a turn allocates nothing.
    spare: Vec<VecDeque<Rc<Inbox>>>,
}

/// The hash of a row, which is part of a keyed hash already: one multiplication spreads it over the bits that a table looks at.
#[derive(Default)]
struct RowHasher(u64);

impl Hasher for RowHasher {
    fn write(&mut self, octets: &[u8]) {
        octets.iter().for_each(|octet| self.write_u16(u16::from(*octet)));
    }

    fn write_u16(&mut self, row: u16) {
        // 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, §6.4).
        self.0 = (self.0 ^ u64::from(row)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(32)
    }
}

impl Default for Turns {
    fn default() -> Self {
        let share = Cell::new(TURN_UNITS);
        Self {
            number: Cell::new(0),
            idle_times: Cell::new(0),
            share,
            queue: RefCell::default(),
            bell: Notify::new(),
        }
    }
}

impl Turns {
    /// Units that a session of `row` may use now; `granted`: units that it has waited for.
    pub(super) fn units(&self, clients: &Clients, row: Row, granted: u32) -> u32 {
        if granted > 0 {
            return granted;
        }
        let idle_times = IDLE_TIMES.get();
        if self.idle_times.replace(idle_times) != idle_times {
            // No session waits: a waiting session keeps the worker from being idle.
            self.number.set(self.number.get().wrapping_add(1));
            self.share.set(TURN_UNITS);
        }
        let queue = self.queue.borrow();
        // Sessions of the same client that have waited come first.
        if !queue.order.is_empty() && queue.sessions.contains_key(&row) {
            return 0;
        }
        let share = self.share.get();
        let left = share.saturating_sub(clients.units(row, self.number.get()));
        // A session that begins last may finish its batch, which would have to be copied otherwise.
        if left == 0 { 0 } else { left.max(share / 4) }
    }

    /// Adds units that a session of `row` has used.
    pub(super) fn spend(&self, clients: &Clients, row: Row, units: u32) {
        if units > 0 {
            clients.spend(row, self.number.get(), units);
        }
    }

    /// Makes the session wait for its turn.
    pub(super) fn wait(&self, row: Row, inbox: &Rc<Inbox>) {
        let queue = &mut *self.queue.borrow_mut();
        let Queue { order, sessions, spare } = queue;
        let line = sessions.entry(row).or_insert_with(|| {
            order.push_back(row);
            spare.pop().unwrap_or_default()
        });
        line.push_back(Rc::clone(inbox));
        self.bell.notify_one();
    }

    /// Begins a turn each time the runtime has checked its sockets, while sessions wait. Runs until aborted.
    pub(super) async fn run(&self) {
        loop {
            while !self.queue.borrow().order.is_empty() {
                yield_now().await;
                self.begin();
            }
            self.bell.notified().await;
        }
    }

    /// Begins a turn: grants units to waiting sessions, client by client.
    fn begin(&self) {
        self.number.set(self.number.get().wrapping_add(1));
        let queue = &mut *self.queue.borrow_mut();
        let clients = queue.order.len();
        self.share.set(share(clients));
        let mut left = TURN_UNITS;
        for _ in 0..clients {
            let Some(row) = queue.order.pop_front_if(|_| left > 0) else { break };
            let Some(sessions) = queue.sessions.get_mut(&row) else { continue };
            left = left.saturating_sub(grant(sessions, self.share.get()));
            if sessions.is_empty() {
                let line = queue.sessions.remove(&row).filter(|_| queue.spare.len() < SPARE_MAX);
                queue.spare.extend(line);
            } else {
                queue.order.push_back(row);
            }
        }
    }
}

/// Units of each client in a turn if this many wait and one more may come.
fn share(clients: usize) -> u32 {
    let clients = u32::try_from(clients).unwrap_or(u32::MAX).saturating_add(1);
    if clients == 1 { TURN_UNITS } else { (TURN_UNITS / clients).max(CLIENT_UNITS_MIN) }
}

/// Gives the first of `sessions` their parts of `share`; returns the number of units granted.
fn grant(sessions: &mut VecDeque<Rc<Inbox>>, share: u32) -> u32 {
    let part = part(share, sessions.len());
    let mut given = 0;
    while given + part <= share
        && let Some(session) = sessions.pop_front()
    {
        // A session that has ended takes nothing.
        if session.take_turn(part) {
            given += part;
        }
    }
    given
}

/// Units of each session if this many wait.
fn part(share: u32, sessions: usize) -> u32 {
    let sessions = u32::try_from(sessions).unwrap_or(u32::MAX).max(1);
    (share / sessions).max(SESSION_UNITS_MIN).min(share)
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;
    use crate::{
        ledger::WorkerCounters,
        proxy::Client,
        session::{WorkerShared, scripted::worker_shared},
    };

    fn inbox(shared: &Rc<WorkerShared>, last: u8) -> Rc<Inbox> {
        let address = std::net::SocketAddr::from(([192, 0, 2, last], 853));
        let client =
            Client { source: address, destination: address, is_datagram: false, tls: None, tlvs: None };
        Inbox::open(Rc::clone(shared), client.into(), std::time::Instant::now())
    }

    /// Runs `body` with what a worker shares.
    fn with_shared(body: impl FnOnce(&Rc<WorkerShared>)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, async { body(&worker_shared(&WorkerCounters::default())) });
    }

    /// Goal: a client's units are one sum over all its connections, and another client has its own. Method: sessions of
    /// one client use up a turn; one that has waited goes on, one that has not does not; one of another client does.
    ///
    #[test]
    fn connections_of_a_client_share_its_turn() {
        with_shared(|shared| {
            let (turns, clients) = (Turns::default(), Clients::default());
            let (flood, innocent) = (Row(1), Row(2));
            assert_eq!(turns.units(&clients, flood, 0), TURN_UNITS);
            (0..50).for_each(|_| turns.spend(&clients, flood, 50));
            assert_eq!(turns.units(&clients, flood, 0), 0);
            assert_eq!(turns.units(&clients, innocent, 0), TURN_UNITS);
            turns.wait(flood, &inbox(shared, 1));
            turns.begin();
            assert_eq!(turns.units(&clients, flood, 0), TURN_UNITS / 2, "its only session has its turn");
            turns.wait(flood, &inbox(shared, 1));
            assert_eq!((turns.units(&clients, flood, 0), turns.units(&clients, flood, 40)), (0, 40));
            assert_eq!(turns.units(&clients, innocent, 0), TURN_UNITS / 2);
        });
    }

    /// Goal: a client that has used up its turn has a whole new one as soon as the worker was idle.
    ///
    #[test]
    fn an_idle_worker_begins_a_turn() {
        let (turns, clients, row) = (Turns::default(), Clients::default(), Row(1));
        turns.spend(&clients, row, TURN_UNITS);
        assert_eq!(turns.units(&clients, row, 0), 0);
        note_idle();
        assert_eq!(turns.units(&clients, row, 0), TURN_UNITS);
        turns.spend(&clients, row, TURN_UNITS);
        assert_eq!(turns.units(&clients, row, 0), 0, "one turn for each time");
    }

    /// Goal: a turn grants no more than its units, equally to clients, whatever the number of their sessions, and to a
    /// client's sessions in their order, so that none starves. Method: one client with 400 sessions, three with one each;
    /// turn by turn until all have had theirs.
    #[test]
    fn a_turn_is_shared_by_clients_and_no_session_starves() {
        with_shared(|shared| {
            let turns = Turns::default();
            let crowd: Vec<_> = (0..400).map(|_| inbox(shared, 1)).collect();
            let single: Vec<_> = (2..5).map(|last| inbox(shared, last)).collect();
            crowd.iter().for_each(|session| turns.wait(Row(1), session));
            (2..5).zip(&single).for_each(|(row, session)| turns.wait(Row(row), session));
            turns.begin();
            let granted =
                |sessions: &[Rc<Inbox>]| sessions.iter().map(|session| session.granted()).sum::<u32>();
            let each = TURN_UNITS / 5;
            assert!(single.iter().all(|session| session.granted() == each));
            let first = each / SESSION_UNITS_MIN;
            assert_eq!(granted(&crowd), first * SESSION_UNITS_MIN);
            assert!(crowd.iter().take(first as usize).all(|session| session.granted() == SESSION_UNITS_MIN));
            for turn in 1.. {
                let before = granted(&crowd);
                turns.begin();
                if granted(&crowd) == before {
                    assert!((10..60).contains(&turn), "{turn} turns");
                    break;
                }
                assert!(granted(&crowd) - before <= TURN_UNITS);
            }
            assert!(crowd.iter().all(|session| session.granted() >= SESSION_UNITS_MIN));
        });
    }

    /// Goal: a turn ends however many clients wait, and the next one goes on where it ended. Method: 1,000 clients;
    /// sessions that have ended meanwhile take nothing.
    #[test]
    fn a_turn_ends_however_many_clients_wait() {
        with_shared(|shared| {
            let turns = Turns::default();
            let sessions: Vec<_> = (0..1000).map(|_| inbox(shared, 1)).collect();
            (0..1000).zip(&sessions).for_each(|(row, session)| turns.wait(Row(row), session));
            for session in sessions.iter().step_by(2) {
                session.close();
            }
            let served = || sessions.iter().filter(|session| session.granted() > 0).count();
            let in_a_turn = (TURN_UNITS / CLIENT_UNITS_MIN) as usize;
            for turn in 1..=20 {
                turns.begin();
                assert_eq!(served(), (in_a_turn * turn).min(500));
            }
            assert!(turns.queue.borrow().sessions.is_empty() && turns.queue.borrow().order.is_empty());
        });
    }
}
