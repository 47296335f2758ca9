//! A connection for unit tests of a session: a closure provides the octets, and no limit is reached.
//!
//! Before: a test says what each read gives. After: a session, which may write anything.
//! Never: touches a socket.

use std::{
    cell::Cell,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use dot_common::rate::Rate;

use super::{Limits, Link, OwedLimits, QueryRate, WorkerShared};
use crate::{
    backend::Backends,
    config::{ClientSubnet, Policy, QueriesOver},
    dns::Allowed,
    ledger::WorkerCounters,
    tls::{self, ReadEnd},
};

/// The result of a read: where in the scratch buffer the octets are and their cost, or how the connection ended.
pub type Read = Poll<Result<tls::Read, ReadEnd>>;

/// A read of this many octets at the front of the scratch buffer, in one record.
pub fn found(octets: usize) -> Read {
    Poll::Ready(Ok(tls::Read { plaintext: 0..octets, octets, records: 1 }))
}

/// A client that sends what the closure puts into the scratch buffer, and takes responses while it takes anything.
pub struct Scripted<F> {
    read: F,
    unsent: usize,
    is_taking: Rc<Cell<bool>>,
    lingers: bool,
    /// `None`: it has nothing to free.
    may_rest: Option<Rc<Cell<bool>>>,
}

impl<F: FnMut(&mut [u8]) -> Read> Scripted<F> {
    /// A client that takes everything at once.
    pub fn new(read: F) -> Self {
        Self::taking(Rc::new(Cell::new(true)), read)
    }

    /// A client that takes everything at once while `is_taking`, and nothing otherwise.
    pub fn taking(is_taking: Rc<Cell<bool>>, read: F) -> Self {
        Self { read, unsent: 0, is_taking, lingers: false, may_rest: None }
    }

    /// A client whose kernel acknowledges nothing and that never closes: a session that is over waits for it.
    pub fn lingering(read: F) -> Self {
        Self { lingers: true, ..Self::new(read) }
    }

    /// A client whose connection has memory to free while `may_rest`.
    pub fn resting(may_rest: &Rc<Cell<bool>>, read: F) -> Self {
        Self { may_rest: Some(Rc::clone(may_rest)), ..Self::new(read) }
    }
}

impl<F: FnMut(&mut [u8]) -> Read> Link for Scripted<F> {
    fn poll_read(&mut self, _: &mut Context<'_>, scratch: &mut [u8]) -> Read {
        (self.read)(scratch)
    }

    fn is_mid_record(&self) -> bool {
        false
    }

    fn may_rest(&self) -> bool {
        self.may_rest.as_ref().is_some_and(|may_rest| may_rest.get())
    }

    fn rest(&mut self) {
        self.may_rest.iter().for_each(|may_rest| may_rest.set(false));
    }

    fn send(&mut self, _: &mut Context<'_>, content: &[u8], _: &mut Vec<u8>) -> io::Result<()> {
        self.unsent += content.len();
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>, _: bool) -> Poll<io::Result<()>> {
        if self.is_taking.get() {
            self.unsent = 0;
        }
        if self.unsent == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn unsent(&self) -> usize {
        self.unsent
    }

    fn unacknowledged(&self) -> usize {
        usize::from(self.lingers)
    }

    fn taken(&self) -> u64 {
        0
    }

    fn poll_farewell(&mut self, _: &mut Context<'_>) -> Poll<io::Result<bool>> {
        Poll::Ready(Ok(!self.lingers))
    }

    fn reset(&mut self) {}

    fn poll_discard(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.lingers { Poll::Pending } else { Poll::Ready(Ok(0)) }
    }

    /// It has no socket.
    fn octets_to_move(&self) -> Option<usize> {
        None
    }

    fn hand_over(&mut self, _: &mut Vec<u8>) -> Option<OwnedFd> {
        None
    }
}

/// Limits that no test reaches.
pub fn no_limits() -> Limits {
    let long = Duration::from_secs(3600);
    Limits {
        message_timeout: long,
        write_timeout: long,
        idle_timeout: long,
        duration_max: long,
        queries_max: u64::MAX,
        in_flight_max: 256,
        query_rate: QueryRate { rate: Rate::new(0, 0), over: QueriesOver::Refuse },
        prefix_bits: (32, 56),
        padding: false,
        keepalive: false,
        allowed: Allowed::default(),
        owed: OwedLimits { session: 4 << 20, client: 16 << 20, worker: 64 << 20 },
    }
}

/// The shared state of sessions without backends. Must be called inside a `LocalSet`.
pub fn worker_shared(counters: &WorkerCounters) -> Rc<WorkerShared> {
    let backends = Backends::start(&[], Policy::First, 0, ClientSubnet::Pass, counters);
    let shared = Rc::new(WorkerShared::new(no_limits(), backends, counters.clone(), Arc::default()));
    tokio::task::spawn_local(Rc::clone(&shared).take_turns());
    shared
}
