//! Collects the refusals of a worker for the control thread, which logs them.
//!
//! Before: a connection, a handshake, a session or a query was refused. After: the control thread has a batch; each
//! worker sends at most ten a second.
//! Holds: a table of fixed size with a sum for each client and reason since the last batch.
//! Never: allocates for a refusal once the worker runs, makes a system call for one, or waits: refusals that find no
//! room are counted.

use std::{
    cell::RefCell,
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::mpsc, task::spawn_local, time::sleep};

use super::{Effort, Heavy, Tracing, What, key_of};
use crate::ledger::Counter;

/// Time from a batch's first refusal until it is sent.
const BATCH_TIME: Duration = Duration::from_millis(100);
/// Most pairs of client and reason in a batch.
const PLACES: usize = 256;
/// Positions in the table at which one pair may be.
const PROBES: usize = 4;
/// Most batches that wait for the control thread, of all workers.
const BATCHES_MAX: usize = 64;

/// A refusal of a client, and how often it happened since the last batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The whole address; the control thread shows as much of it as the config permits.
    pub client: IpAddr,
    /// The reason, by its counter.
    pub reason: Counter,
    /// The alert that the client sent, if that is the reason.
    pub alert: Option<u8>,
    /// How often it happened.
    pub count: u32,
}

/// The destination of all workers' events, and which events operators want.
#[derive(Clone)]
pub struct EventSink {
    refusals: mpsc::Sender<Vec<Refused>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    logs_connections: AtomicBool,
    lost: AtomicU64,
}

impl EventSink {
    /// A sink, and the channel through which its batches come out.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Vec<Refused>>) {
        let (refusals, receiver) = mpsc::channel(BATCHES_MAX);
        (Self { refusals, shared: Arc::default() }, receiver)
    }

    /// Sets whether a line is logged for each connection that ends.
    pub fn log_connections(&self, is_wanted: bool) {
        self.shared.logs_connections.store(is_wanted, Relaxed);
    }

    /// Whether a line is logged for each connection that ends.
    #[must_use]
    pub fn logs_connections(&self) -> bool {
        self.shared.logs_connections.load(Relaxed)
    }

    /// Events that found no room.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Relaxed)
    }

    fn lose(&self, events: u64) {
        self.shared.lost.fetch_add(events, Relaxed);
    }
}

/// The events of one worker. The default reports nothing.
#[derive(Default)]
pub struct Events {
    sink: Option<EventSink>,
    batch: RefCell<Batch>,
    /// Counts of clients, while an operator watches.
    pub heavy: Rc<Heavy>,
    /// Traces of clients.
    pub trace: Tracing,
}

impl Events {
    /// Reports to `sink`.
    #[must_use]
    pub fn to(sink: EventSink) -> Rc<Self> {
        let batch = RefCell::new(Batch { places: vec![None; PLACES], ..Batch::default() });
        Rc::new(Self { sink: Some(sink), batch, heavy: Rc::default(), trace: Tracing::default() })
    }

    /// Whether a line is logged for each connection that ends.
    #[must_use]
    pub fn logs_connections(&self) -> bool {
        self.sink.as_ref().is_some_and(EventSink::logs_connections)
    }

    /// A client was refused, for this reason.
    pub fn refused(self: &Rc<Self>, client: SocketAddr, reason: Counter) {
        self.refused_by(client, None, reason, None);
    }

    /// As [`Events::refused`], in a session, or with the alert that the client sent.
    pub fn refused_by(
        self: &Rc<Self>,
        client: SocketAddr,
        session: Option<u64>,
        reason: Counter,
        alert: Option<u8>,
    ) {
        self.heavy.add(client.ip(), Effort::Refusals, 1);
        self.trace.tell(client, session, |_| What::Refused {
            reason: reason.label().to_owned(),
            key: key_of(reason).map(str::to_owned),
            alert,
        });
        if self.sink.is_some() && self.batch.borrow_mut().add(client.ip(), reason, alert) {
            let events = Rc::clone(self);
            spawn_local(async move {
                sleep(BATCH_TIME).await;
                events.send();
            });
        }
    }

    fn send(&self) {
        let Some(sink) = &self.sink else { return };
        let (refused, unlisted) = self.batch.borrow_mut().take();
        let count = refused.iter().fold(unlisted, |sum, refused| sum + u64::from(refused.count));
        let lost = if sink.refusals.try_send(refused).is_err() { count } else { unlisted };
        if lost > 0 {
            sink.lose(lost);
        }
    }
}

/// Refusals since the last batch.
#[derive(Default)]
struct Batch {
    places: Vec<Option<Refused>>,
    /// Refusals of clients that found no position.
    unlisted: u64,
    is_waiting: bool,
    hasher: RandomState,
}

impl Batch {
    /// `true`: it is the first refusal of a batch for which no sending is scheduled.
    fn add(&mut self, client: IpAddr, reason: Counter, alert: Option<u8>) -> bool {
        let is_first = !std::mem::replace(&mut self.is_waiting, true);
        let hash = usize::try_from(self.hasher.hash_one((client, reason, alert))).unwrap_or_default();
        for probe in 0..PROBES {
            let Some(place) = self.places.get_mut(hash.wrapping_add(probe) % PLACES) else { break };
            match place {
                None => {
                    *place = Some(Refused { client, reason, alert, count: 1 });
                    return is_first;
                }
                Some(there) if (there.client, there.reason, there.alert) == (client, reason, alert) => {
                    there.count = there.count.saturating_add(1);
                    return is_first;
                }
                Some(_) => {}
            }
        }
        self.unlisted += 1;
        is_first
    }

    /// The refusals, and how many found no position. The batch is empty afterwards.
    fn take(&mut self) -> (Vec<Refused>, u64) {
        self.is_waiting = false;
        let refused = self.places.iter_mut().filter_map(Option::take).collect();
        (refused, std::mem::take(&mut self.unlisted))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::task::LocalSet;

    use super::*;

    fn run<F: Future>(body: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, body)
    }

    /// Goal: many refusals form one batch with a sum for each client and reason, and a worker without a listener does
    /// nothing.
    /// Method: two clients, two reasons, two alerts.
    #[test]
    fn refusals_come_in_batches() {
        run(async {
            Rc::new(Events::default()).refused(([127, 0, 0, 1], 1).into(), Counter::RefusedTotal);
            let (sink, mut batches) = EventSink::new();
            let events = Events::to(sink.clone());
            let clients: [SocketAddr; 2] =
                ["192.0.2.1:1", "[2001:db8::1]:1"].map(|client| client.parse().unwrap());
            for _ in 0..3 {
                clients.iter().for_each(|client| events.refused(*client, Counter::RefusedPrefix));
                events.refused(clients[0], Counter::QueriesRefused);
                events.refused_by(clients[0], None, Counter::HandshakeAlert, Some(48));
            }
            let batch = batches.recv().await.unwrap();
            assert_eq!((batch.len(), batch.iter().map(|one| one.count).sum::<u32>()), (4, 12), "{batch:?}");
            let alerts: Vec<_> = batch.iter().filter_map(|one| one.alert).collect();
            assert_eq!((alerts, sink.lost()), (vec![48], 0));
            events.refused(clients[0], Counter::RefusedPrefix);
            assert_eq!(batches.recv().await.unwrap()[0].count, 1, "a batch begins anew");
        });
    }

    /// Goal: a flood of clients costs no memory, and refusals that are not reported are counted. Method: more clients
    /// than a batch has positions, and more batches than may wait.
    #[test]
    fn what_finds_no_room_is_counted() {
        run(async {
            let (sink, mut batches) = EventSink::new();
            let events = Events::to(sink.clone());
            let mut refused = 0;
            for _ in 0..=BATCHES_MAX {
                for client in 0..2 * PLACES {
                    let client = Ipv4Addr::from_bits(u32::try_from(client).unwrap());
                    events.refused((client, 1).into(), Counter::RefusedTotal);
                    refused += 1;
                }
                assert_eq!(events.batch.borrow().places.capacity(), PLACES);
                events.send();
            }
            let mut told = 0;
            while let Ok(batch) = batches.try_recv() {
                told += batch.iter().map(|one| u64::from(one.count)).sum::<u64>();
            }
            assert!(told >= PLACES as u64 / 2 * BATCHES_MAX as u64);
            assert_eq!(told + sink.lost(), refused);
        });
    }
}
