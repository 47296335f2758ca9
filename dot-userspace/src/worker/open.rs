//! A connection from accept to its end: its place in the gauge and under the caps, and its times.
//!
//! Before: `accept` has a connection with a place. After: the ledger has exactly one end for it, however it ends.
//! Never: outlives its connection, or counts two ends.

use std::time::Duration;

use tokio::time::Instant;

use super::{admission::Place, charges::Account};
use crate::{
    ledger::{Counter, Stage, WorkerCounters},
    proxy::Client,
    tls::{Handshake, HandshakeKind},
    xdp::StatusWriter,
};

/// An open connection: counted in the gauge and holding a place, both until it ends.
pub(super) struct Open {
    pub(super) counters: WorkerCounters,
    /// Its place, until the session takes it.
    pub(super) place: Option<Place>,
    account: Option<Account>,
    /// When it was accepted.
    pub(super) began: Instant,
    /// Time from its SYN to its accept, if the kernel half saw the SYN.
    pub(super) syn_us: Option<u32>,
    /// The times of its handshake, once it is done.
    pub(super) shaken: Option<Shaken>,
    /// The end to count if its task panics. `None`: its end is counted already.
    pub(super) panic_end: Option<Counter>,
}

/// A finished handshake.
#[derive(Clone, Copy)]
pub(super) struct Shaken {
    pub(super) kind: HandshakeKind,
    /// From accept to the first octets of the ClientHello.
    pub(super) hello_us: u32,
    /// From the ClientHello to the keys.
    pub(super) handshake_us: u32,
}

/// Saturates: a handshake's deadline is a minute at most.
fn microseconds(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

impl Open {
    /// A connection that was accepted now.
    pub(super) fn new(counters: &WorkerCounters, place: Place, account: Option<Account>) -> Self {
        counters.add(Counter::Open, 1);
        Self {
            counters: counters.clone(),
            place: Some(place),
            account,
            began: Instant::now(),
            syn_us: None,
            shaken: None,
            panic_end: Some(Counter::HandshakePanic),
        }
    }

    /// A session that continues here. Another engine accepted its connection and completed the handshake; the caller
    /// counts it.
    pub(super) fn going_on(
        counters: &WorkerCounters,
        place: Option<Place>,
        account: Option<Account>,
        (began, shaken): (Instant, Option<Shaken>),
    ) -> Self {
        counters.add(Counter::Open, 1);
        Self { counters: counters.clone(), place, account, began, syn_us: None, shaken, panic_end: None }
    }

    /// Measures the time since the SYN of its client; a load balancer's SYN is not measured.
    pub(super) fn note_syn(&mut self, status: &StatusWriter, client: &Client) {
        if let Some(took) = status.since_syn(client.source, client.destination) {
            self.counters.stages().record(Stage::SynToAccept, took);
            self.syn_us = Some(microseconds(took));
        }
    }

    /// Its handshake was completed: counts it and its duration.
    pub(super) fn shook_hands(&mut self, handshake: &Handshake) {
        let kind = handshake.kind;
        self.counters.add(kind.counter(), 1);
        let stages = self.counters.stages();
        let hello = handshake.heard_at.saturating_duration_since(self.began);
        let handshake = handshake.heard_at.elapsed();
        stages.record(Stage::AcceptToHello, hello);
        let stage = if kind.is_resumed { Stage::HandshakeResumed } else { Stage::HandshakeFull };
        stages.record(stage, handshake);
        self.shaken =
            Some(Shaken { kind, hello_us: microseconds(hello), handshake_us: microseconds(handshake) });
    }

    /// Counts how it ended.
    pub(super) fn end(&mut self, end: Counter) {
        self.panic_end = None;
        self.counters.add(end, 1);
    }

    /// Charges its client, unless that is a load balancer.
    pub(super) fn charge(&self, with: impl FnOnce(&Account)) {
        if let Some(account) = &self.account {
            with(account);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counters.subtract(Counter::Open, 1);
        // The connection's task has panicked.
        if let Some(end) = self.panic_end.filter(|_| std::thread::panicking()) {
            self.counters.add(end, 1);
        }
    }
}
