//! Sums of what this worker's clients cost and did wrong, on their way to the budgets and bans.
//!
//! Before: `accept` saw the end of a handshake or a session. After: the control thread gets a batch, at most ten a
//! second.
//! Holds: one sum for each client that was active since the last batch; bounded.
//! Never: makes a system call for a connection, or waits: a batch without room is lost and counted.

use std::{
    cell::RefCell,
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use dot_common::{ban::Cause, charge::Charge, network::Network};
use tokio::{sync::mpsc, task::spawn_local, time::sleep};

use crate::{session::SessionEnd, tls::HandshakeFailure, xdp::Charges};

/// Time from a batch's first charge until the batch is sent.
const BATCH_TIME: Duration = Duration::from_millis(100);
/// Clients in a batch; one more sends it at once.
const BATCH_CLIENTS_MAX: usize = 4096;
/// Batches of all workers that may be on their way.
const BATCHES_MAX: usize = 64;

/// The channel to the control thread, shared by all workers.
#[derive(Clone)]
pub struct ChargesSink {
    sender: mpsc::Sender<Charges>,
    shared: Arc<Shared>,
}

struct Shared {
    is_wanted: AtomicBool,
    lost: AtomicU64,
}

impl ChargesSink {
    /// A sink, and the receiver of its batches. Charges are not wanted yet.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Charges>) {
        let (sender, receiver) = mpsc::channel(BATCHES_MAX);
        let shared = Arc::new(Shared { is_wanted: AtomicBool::new(false), lost: AtomicU64::new(0) });
        (Self { sender, shared }, receiver)
    }

    /// Sets whether charges are needed: there is a budget, or there are bans.
    pub fn want(&self, is_wanted: bool) {
        self.shared.is_wanted.store(is_wanted, Relaxed);
    }

    /// Batches lost for lack of room.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Relaxed)
    }
}

/// This worker's batch.
pub(super) struct Accounts {
    sink: ChargesSink,
    batch: RefCell<Charges>,
}

impl Accounts {
    pub(super) fn new(sink: ChargesSink) -> Rc<Self> {
        Rc::new(Self { sink, batch: RefCell::default() })
    }

    /// The account of one connection's client.
    pub(super) fn account(self: &Rc<Self>, client: IpAddr) -> Account {
        Account { accounts: Rc::clone(self), host: Network::of_host(client) }
    }

    fn charge(self: &Rc<Self>, host: Network, charge: &Charge) {
        if *charge == Charge::default() || !self.sink.shared.is_wanted.load(Relaxed) {
            return;
        }
        let mut batch = self.batch.borrow_mut();
        let is_first = batch.is_empty();
        batch.entry(host).or_default().add(charge);
        if batch.len() >= BATCH_CLIENTS_MAX {
            self.send(std::mem::take(&mut *batch));
        } else if is_first {
            let accounts = Rc::clone(self);
            spawn_local(async move {
                sleep(BATCH_TIME).await;
                let batch = accounts.batch.take();
                accounts.send(batch);
            });
        }
    }

    fn send(&self, batch: Charges) {
        if !batch.is_empty() && self.sink.sender.try_send(batch).is_err() {
            self.sink.shared.lost.fetch_add(1, Relaxed);
        }
    }
}

/// Charges one connection's client.
pub(super) struct Account {
    accounts: Rc<Accounts>,
    host: Network,
}

impl Account {
    /// A handshake was done.
    pub(super) fn handshake(&self, is_resumed: bool) {
        self.accounts.charge(self.host, &Charge::handshake(is_resumed));
    }

    /// A handshake failed.
    pub(super) fn failure(&self, failure: HandshakeFailure) {
        self.accounts.charge(self.host, &of_failure(failure));
    }

    /// A cap had no place for it.
    pub(super) fn refusal(&self) {
        self.accounts.charge(self.host, &Charge::refusal());
    }

    /// A session ended.
    pub(super) fn end(&self, end: SessionEnd) {
        self.accounts.charge(self.host, &of_end(end));
    }
}

/// Behaviour that no carefully configured client shows is an offence. Leaving early, being far away, distrusting our
/// certificate, or using a server name that is no host name are no offences: a whole network behind one address may do that at
/// once.
pub(super) fn of_failure(failure: HandshakeFailure) -> Charge {
    let charge = Charge::failure();
    match failure {
        HandshakeFailure::Probe => Charge::probe(),
        HandshakeFailure::NotTls => charge.with(Cause::Garbage, 1),
        HandshakeFailure::Version
        | HandshakeFailure::NoCommonParameters
        | HandshakeFailure::Alpn
        | HandshakeFailure::ClientCertificate
        | HandshakeFailure::Timeout
        | HandshakeFailure::Other => charge.with(Cause::Handshakes, 1),
        HandshakeFailure::Closed | HandshakeFailure::ClientAlert(_) | HandshakeFailure::ServerName => charge,
    }
}

/// Strikes that are a ban by themselves: `xdp::costs` allows 60 at once.
const STRIKES_TO_BAN: u32 = 1000;

/// A reader that stalls occupies memory for as long as it may: five strikes.
fn of_end(end: SessionEnd) -> Charge {
    let nothing = Charge::default();
    match end {
        // More than any client may have at once.
        SessionEnd::MisuseBan => nothing.with(Cause::Misuse, STRIKES_TO_BAN),
        SessionEnd::SlowReader => nothing.with(Cause::SlowReads, 5),
        SessionEnd::Framing | SessionEnd::Malformed | SessionEnd::Tls | SessionEnd::MessageTimeout => {
            nothing.with(Cause::Malformed, 1)
        }
        SessionEnd::Client
        | SessionEnd::Transport
        | SessionEnd::Idle
        | SessionEnd::Duration
        | SessionEnd::Queries
        | SessionEnd::Evicted
        | SessionEnd::Starved
        | SessionEnd::Owed
        | SessionEnd::Denied
        | SessionEnd::Misuse
        | SessionEnd::Banned
        | SessionEnd::Drain
        | SessionEnd::Moved => nothing,
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    fn run<F: Future>(body: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, body)
    }

    /// Goal: many connections of two clients are one batch with two sums; an idle worker sends none.
    #[test]
    fn charges_come_in_batches() {
        run(async {
            let (sink, mut batches) = ChargesSink::new();
            let accounts = Accounts::new(sink.clone());
            let account = |client: &str| accounts.account(client.parse().unwrap());
            account("192.0.2.1").handshake(false);
            assert!(accounts.batch.borrow().is_empty(), "charges are not wanted");
            sink.want(true);
            for _ in 0..10 {
                account("192.0.2.1").handshake(false);
                account("2001:db8::1").failure(HandshakeFailure::NotTls);
                account("2001:db8::2").end(SessionEnd::Client);
            }
            let batch = batches.recv().await.unwrap();
            assert_eq!(batch.len(), 2, "{batch:?}");
            let of = |client: &str| batch[&Network::of_host(client.parse().unwrap())];
            assert_eq!(of("192.0.2.1").units, 50);
            assert_eq!((of("2001:db8::9").units, of("2001:db8::9").worst()), (150, Some(Cause::Garbage)));
            assert!(batches.try_recv().is_err() && sink.lost() == 0);
        });
    }

    /// Goal: a client with a server name that is no host name, or one that left, is charged as a failure and commits no
    /// offence.
    /// Covers: C-296
    #[test]
    fn a_wrong_name_is_no_offence() {
        for failure in
            [HandshakeFailure::ServerName, HandshakeFailure::Closed, HandshakeFailure::ClientAlert(48)]
        {
            assert_eq!(of_failure(failure).worst(), None, "{failure:?}");
        }
        assert_eq!(of_failure(HandshakeFailure::Other).worst(), Some(Cause::Handshakes));
    }

    /// Goal: a client that connects and leaves without an octet, as load balancers do, is charged less than one with a
    /// full handshake, and commits no offence; one that leaves in the middle of a handshake is charged as for any
    /// failure.
    #[test]
    fn a_probe_costs_less_than_a_handshake() {
        let (probe, closed) = (of_failure(HandshakeFailure::Probe), of_failure(HandshakeFailure::Closed));
        assert!(probe.units > 0 && probe.units < Charge::handshake(false).units);
        assert_eq!((probe.worst(), closed), (None, Charge::failure()));
    }

    /// Goal: batches on their way are bounded; batches without room are lost and counted. Method: more clients than all
    /// batches hold, and no receiver.
    #[test]
    fn batches_without_room_are_lost_and_counted() {
        run(async {
            let (sink, mut batches) = ChargesSink::new();
            sink.want(true);
            let accounts = Accounts::new(sink.clone());
            for client in 0..(BATCHES_MAX + 2) * BATCH_CLIENTS_MAX {
                let client = std::net::Ipv4Addr::from_bits(u32::try_from(client).unwrap());
                accounts.account(client.into()).handshake(false);
            }
            assert_eq!(sink.lost(), 2);
            let mut received = 0;
            while batches.try_recv().is_ok() {
                received += 1;
            }
            assert_eq!(received, BATCHES_MAX);
        });
    }
}
