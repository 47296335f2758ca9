//! The stages of a connection and of a query whose durations a worker measures.
//!
//! Before: a stage is over. After: `ledger::latency` has the histograms of all workers, by metric and labels.
//! Holds: one histogram a stage and worker, made once.
//! Never: allocates, or reads a clock: the caller gives the duration.

use std::{array, sync::Arc, time::Duration};

use super::Histogram;

/// Names one stage per line: variant, metric, and the values of that metric's labels.
macro_rules! stages {
    ($($(#[$doc:meta])* $variant:ident = $metric:ident($($value:literal),*);)*) => {
        /// The durations that a worker measures.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Stage { $($(#[$doc])* $variant),* }

        impl Stage {
            /// Every stage, in the order of the histograms.
            pub const ALL: &'static [Stage] = &[$(Stage::$variant),*];

            /// Its metric, and the values of the metric's labels.
            #[must_use]
            pub const fn labels(self) -> (Measure, &'static [&'static str]) {
                match self { $(Stage::$variant => (Measure::$metric, &[$($value),*])),* }
            }
        }
    };
}

/// A family of histograms with the same labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The stages of a connection, and of a query within dotd.
    Stage,
    /// A whole query, from its last octet until its response is written.
    Query,
    /// A backend, from sending a query to its response.
    Backend,
}

impl Measure {
    /// Its name in snapshots, and the beginning of its metric's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Query => "query",
            Self::Backend => "backend",
        }
    }

    /// The names of its labels.
    #[must_use]
    pub const fn label_names(self) -> &'static [&'static str] {
        match self {
            Self::Stage => &["stage"],
            Self::Query => &["transport", "disposition"],
            Self::Backend => &["backend", "transport"],
        }
    }
}

stages! {
    /// From the kernel's answer to a SYN to the accept of its connection, where the kernel half sees the answer.
    SynToAccept = Stage("syn_to_accept");
    /// From `accept` to the first octets of a hello, of handshakes that were done.
    AcceptToHello = Stage("accept_to_hello");
    /// From the first octets of a hello to the keys, whole.
    HandshakeFull = Stage("handshake_full");
    /// The same, by a ticket or a session.
    HandshakeResumed = Stage("handshake_resumed");
    /// Part of a handshake: the wait for its turn among others.
    HandshakeTurn = Stage("handshake_turn");
    /// From the moment when a session was not read any more by the engine before to that when it goes on here, after an upgrade.
    Moved = Stage("moved");
    /// From a query's being read to its being sent to a backend.
    Queue = Stage("queue");
    /// From the first response that waits for a connection to all of them being with the kernel.
    Write = Stage("write");
    /// A backend was asked, for this query or an equal one.
    DotForwarded = Query("dot", "forwarded");
    /// The cache had the answer.
    DotCached = Query("dot", "cached");
    /// dotd answered by itself.
    DotResponded = Query("dot", "responded");
    /// No backend answered: SERVFAIL.
    DotFailed = Query("dot", "failed");
    /// A backend was asked, for this query or an equal one.
    TcpForwarded = Query("do53-tcp", "forwarded");
    /// The cache had the answer.
    TcpCached = Query("do53-tcp", "cached");
    /// dotd answered by itself.
    TcpResponded = Query("do53-tcp", "responded");
    /// No backend answered: SERVFAIL.
    TcpFailed = Query("do53-tcp", "failed");
    /// A backend was asked, for this query or an equal one.
    UdpForwarded = Query("do53-udp", "forwarded");
    /// The cache had the answer.
    UdpCached = Query("do53-udp", "cached");
    /// dotd answered by itself.
    UdpResponded = Query("do53-udp", "responded");
    /// No backend answered: SERVFAIL.
    UdpFailed = Query("do53-udp", "failed");
}

/// The source of a query's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposal {
    /// A backend was asked, for this query or an equal one.
    Forwarded,
    /// The cache had it.
    Cached,
    /// dotd made it.
    Responded,
    /// No backend answered.
    Failed,
}

impl Disposal {
    /// Its name in an answer.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Cached => "cached",
            Self::Responded => "responded",
            Self::Failed => "failed",
        }
    }

    /// The stage of a query that came by `transport`.
    #[must_use]
    pub const fn of(self, transport: QueryTransport) -> Stage {
        use QueryTransport::{Dot, Tcp, Udp};
        match (transport, self) {
            (Dot, Self::Forwarded) => Stage::DotForwarded,
            (Dot, Self::Cached) => Stage::DotCached,
            (Dot, Self::Responded) => Stage::DotResponded,
            (Dot, Self::Failed) => Stage::DotFailed,
            (Tcp, Self::Forwarded) => Stage::TcpForwarded,
            (Tcp, Self::Cached) => Stage::TcpCached,
            (Tcp, Self::Responded) => Stage::TcpResponded,
            (Tcp, Self::Failed) => Stage::TcpFailed,
            (Udp, Self::Forwarded) => Stage::UdpForwarded,
            (Udp, Self::Cached) => Stage::UdpCached,
            (Udp, Self::Responded) => Stage::UdpResponded,
            (Udp, Self::Failed) => Stage::UdpFailed,
        }
    }
}

/// How a client sent a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryTransport {
    /// DNS over TLS.
    Dot,
    /// Cleartext over TCP.
    Tcp,
    /// Cleartext over UDP.
    Udp,
}

/// One worker's histograms, one for each stage. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Stages(Arc<[Histogram; Stage::ALL.len()]>);

impl Default for Stages {
    fn default() -> Self {
        Self(Arc::new(array::from_fn(|_| Histogram::default())))
    }
}

impl Stages {
    /// Records one duration of a stage. Only the owning worker may call this.
    #[inline]
    pub fn record(&self, stage: Stage, took: Duration) {
        if let Some(histogram) = self.0.get(stage as usize) {
            histogram.record(took);
        }
    }

    /// Records a duration of a stage in nanoseconds, `times` times. Only the owning worker may call this.
    #[inline]
    pub fn record_times(&self, stage: Stage, nanoseconds: u64, times: u64) {
        if let Some(histogram) = self.0.get(stage as usize) {
            histogram.record_times(nanoseconds, times);
        }
    }

    /// The histogram of a stage.
    #[must_use]
    pub fn of(&self, stage: Stage) -> Option<&Histogram> {
        self.0.get(stage as usize)
    }
}
