//! How a session ends. These are lawful ends, not errors: each has one line in the ledger.
//!
//! Before: `session::serve` came to an end. After: `worker::accept` counts it.
//! Never: logs; a client that leaves is no news.

use std::io;

use crate::{ledger::Counter, tls::ReadEnd};

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client closed, and has every response it was owed.
    Client,
    /// Reset, or another error of the transport.
    Transport,
    /// No whole message for `idle_timeout`.
    Idle,
    /// A message not whole within `message_timeout`.
    MessageTimeout,
    /// `duration_max`.
    Duration,
    /// `queries_max`.
    Queries,
    /// The client does not take its responses.
    SlowReader,
    /// Its worker owed too much, and it was owed most.
    Owed,
    /// A length prefix of zero, or a message too short to answer.
    Framing,
    /// Far more messages that nobody can read than queries.
    Malformed,
    /// Broken TLS inside the session.
    Tls,
    /// Idle, and another connection needed its place.
    Evicted,
    /// Idle, and another connection needed its descriptor: nobody waits for its client.
    Starved,
    /// The client may not ask.
    Denied,
    /// dotd is stopping.
    Drain,
}

/// A session that is over.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How.
    pub end: SessionEnd,
    /// Messages that its client sent.
    pub queries: u32,
    /// Octets that its client has acknowledged; 0 where no connections are logged.
    pub octets_taken: u64,
}

impl SessionEnd {
    /// dotd ended it for what its client did, or for want of a place.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        match self {
            Self::MessageTimeout
            | Self::SlowReader
            | Self::Owed
            | Self::Framing
            | Self::Malformed
            | Self::Tls
            | Self::Evicted
            | Self::Starved => true,
            Self::Client
            | Self::Transport
            | Self::Idle
            | Self::Duration
            | Self::Queries
            | Self::Denied
            | Self::Drain => false,
        }
    }

    /// Its line in the ledger.
    #[must_use]
    pub fn counter(self) -> Counter {
        match self {
            Self::Client => Counter::EndClient,
            Self::Transport => Counter::EndTransport,
            Self::Idle => Counter::EndIdle,
            Self::MessageTimeout => Counter::EndMessageTimeout,
            Self::Duration => Counter::EndDuration,
            Self::Queries => Counter::EndQueries,
            Self::SlowReader => Counter::EndSlowReader,
            Self::Owed => Counter::EndOwed,
            Self::Framing => Counter::EndFraming,
            Self::Malformed => Counter::EndMalformed,
            Self::Tls => Counter::EndTls,
            Self::Evicted | Self::Starved => Counter::EndEvicted,
            Self::Denied => Counter::EndDenied,
            Self::Drain => Counter::EndDrain,
        }
    }

    /// The client is owed a last word: close_notify, or the alert that says what was wrong (RFC 8446 §6).
    #[must_use]
    pub fn is_orderly(self) -> bool {
        !matches!(self, Self::Transport | Self::SlowReader | Self::Owed)
    }

    /// Responses still owed are not waited for.
    #[must_use]
    pub fn is_abrupt(self) -> bool {
        matches!(self, Self::Transport | Self::Tls)
    }
}

/// The end of what a client says.
pub(super) fn end_of_reading(end: ReadEnd) -> SessionEnd {
    match end {
        ReadEnd::Closed => SessionEnd::Client,
        ReadEnd::Transport => SessionEnd::Transport,
        ReadEnd::Tls => SessionEnd::Tls,
    }
}

/// What an error of writing means.
pub(super) fn end_of_sending(error: &io::Error) -> SessionEnd {
    match error.kind() {
        // A key that has sealed 2^24 records: as many queries, at most, as a session may ask.
        io::ErrorKind::QuotaExceeded => SessionEnd::Queries,
        _ => SessionEnd::Transport,
    }
}
