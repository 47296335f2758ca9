//! Room `backend`: queries leave in batches, each outcome comes back to the session that asked.
//!
//! Before: `dns::triage` said forward. After: a [`Sink`] has a response or a [`Failure`]. Step 8 of 9.
//! The line: [`Backends::submit`] → `upstream` queues → `udp` sends and matches → `tcp` where too small.
//! Never: knows what a session is, changes what a response says, or waits longer than its deadline.

mod embedded;
mod flights;
mod mmsg;
mod port;
mod random;
mod sink;
mod tcp;
mod udp;
mod upstream;

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

pub use embedded::Embedded;
pub use sink::{Broken, Failure, Sink};
use upstream::Upstream;

use crate::{
    config::Policy,
    dns::Query,
    ledger::{Counter, WorkerCounters},
};

/// One backend, as the workers need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// How long a query may take.
    pub timeout: Duration,
    /// Its share.
    pub weight: u16,
    /// How long it rests after nobody was there.
    pub rest: Duration,
}

/// All backends of one worker.
pub struct Backends {
    upstreams: Vec<Rc<Upstream>>,
    policy: Policy,
    turn: Cell<usize>,
    counters: WorkerCounters,
}

impl Backends {
    /// Opens nothing yet; starts the tasks that will. Must run on the worker's runtime.
    #[must_use]
    pub fn start(configs: &[UpstreamConfig], policy: Policy, counters: &WorkerCounters) -> Self {
        let inbound = Rc::new(RefCell::default());
        let random = Rc::new(random::Random::default());
        let upstreams = configs.iter().map(|config| {
            let upstream = Upstream::new(config, Rc::clone(&inbound), Rc::clone(&random), counters.clone());
            let upstream = Rc::new(upstream);
            udp::start(&upstream);
            upstream
        });
        Self { upstreams: upstreams.collect(), policy, turn: Cell::new(0), counters: counters.clone() }
    }

    /// Sends `message`, which `query` describes, with this turn's batch. The outcome goes to `sink`.
    ///
    /// # Errors
    /// The sink will hear nothing: [`Failure::Full`], or [`Failure::Unreachable`] without a backend.
    pub fn submit(&self, message: &[u8], query: &Query, sink: Rc<dyn Sink>) -> Result<(), Failure> {
        let upstream = self.choose().ok_or(Failure::Unreachable)?;
        let outcome = upstream.submit(message, query, sink);
        match outcome {
            Ok(()) => self.counters.add(Counter::Forwarded, 1),
            Err(failure) => upstream.count_failure(failure),
        }
        outcome
    }

    /// The backend for the next query: by policy among those that do not rest; if all rest, the one that has
    /// rested longest.
    fn choose(&self) -> Option<&Rc<Upstream>> {
        if let [only] = self.upstreams.as_slice() {
            return Some(only);
        }
        let awake = self.upstreams.iter().filter(|upstream| !upstream.is_resting());
        match self.policy {
            Policy::First => awake.chain(self.longest_at_rest()).next(),
            Policy::LeastOutstanding | Policy::Hash => awake
                .min_by_key(|upstream| upstream.outstanding() * 1000 / usize::from(upstream.weight))
                .or_else(|| self.longest_at_rest()),
            Policy::RoundRobin => {
                let turn = self.turn.get().wrapping_add(1);
                self.turn.set(turn);
                let awake: Vec<_> = awake.collect();
                let shares = awake
                    .iter()
                    .flat_map(|upstream| std::iter::repeat_n(*upstream, usize::from(upstream.weight)));
                let total: usize = awake.iter().map(|upstream| usize::from(upstream.weight)).sum();
                shares.skip(turn.checked_rem(total).unwrap_or_default()).chain(self.longest_at_rest()).next()
            }
        }
    }

    fn longest_at_rest(&self) -> Option<&Rc<Upstream>> {
        self.upstreams.iter().min_by_key(|upstream| upstream.rests_until())
    }
}

/// A reload brings new backends; the old ones finish what they have, then their tasks and sockets go.
impl Drop for Backends {
    fn drop(&mut self) {
        self.upstreams.iter().for_each(|upstream| upstream.end());
    }
}
