//! The work that every peer is given, each as a command line of `dotload`.
//!
//! Before: nothing. After: `rounds` adds server, time and names. Holds: the one table of work.

use super::catalog::Backend;

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) arguments: &'static [&'static str],
    /// One handshake for each query: latencies are handshakes'.
    pub(crate) is_handshake: bool,
    /// The backend behind relays.
    pub(crate) backend: Backend,
    /// Are system calls counted too, in a load of their own?
    pub(crate) counts_calls: bool,
    /// Is it an open loop at the rate of `--rate`?
    pub(crate) is_at_rate: bool,
}

const CLOSED: Work = Work {
    name: "",
    about: "",
    arguments: &[],
    is_handshake: false,
    backend: Backend::Nsd,
    counts_calls: false,
    is_at_rate: false,
};

/// All work, in the order of the tables.
pub(crate) const WORK: &[Work] = &[
    Work {
        name: "w100x1",
        about: "100 warm connections, one query in flight on each",
        arguments: &["--connections=100", "--depth=1"],
        counts_calls: true,
        ..CLOSED
    },
    Work {
        name: "w1000x1",
        about: "1000 warm connections, one query in flight on each",
        arguments: &["--connections=1000", "--depth=1"],
        ..CLOSED
    },
    Work {
        name: "w100x10",
        about: "100 warm connections, ten queries in flight on each",
        arguments: &["--connections=100", "--depth=10"],
        ..CLOSED
    },
    Work {
        name: "w10x100",
        about: "10 warm connections, a hundred queries in flight on each",
        arguments: &["--connections=10", "--depth=100"],
        counts_calls: true,
        ..CLOSED
    },
    Work {
        name: "c10x100",
        about: "10 warm connections, a hundred queries in flight on each, relays over TCP to a backend that answers all \
                queries of a read in one write",
        arguments: &["--connections=10", "--depth=100"],
        backend: Backend::Coalescing,
        counts_calls: true,
        ..CLOSED
    },
    Work {
        name: "hsfull",
        about: "a full handshake and one query for each connection, 32 at once",
        arguments: &["--connections=32", "--per-connection=1", "--no-resumption", "--sources=64"],
        is_handshake: true,
        ..CLOSED
    },
    Work {
        name: "hsres",
        about: "a resumed handshake and one query for each connection, 32 at once",
        arguments: &["--connections=32", "--per-connection=1", "--sources=64"],
        is_handshake: true,
        ..CLOSED
    },
    Work {
        name: "open5k",
        about: "100 warm connections, 5000 queries a second at random times whatever comes back (open loop)",
        arguments: &["--connections=100", "--depth=100", "--rate=5000"],
        ..CLOSED
    },
    Work {
        name: "open",
        about: "100 warm connections, queries at random times at the offered rate, whatever comes back (open loop)",
        arguments: &["--connections=100", "--depth=100"],
        is_at_rate: true,
        ..CLOSED
    },
];
