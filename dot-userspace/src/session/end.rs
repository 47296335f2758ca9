//! How a session ends. These are lawful ends, not errors: each has one line in the ledger.
//!
//! Before: `session::serve` came to an end. After: `worker::accept` counts it.
//! Never: logs; a client that leaves is no news.

use crate::ledger::Counter;

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
    /// A length prefix of zero, or a message too short to answer.
    Framing,
    /// Broken TLS inside the session.
    Tls,
    /// dotd is stopping.
    Drain,
}

impl SessionEnd {
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
            Self::Framing => Counter::EndFraming,
            Self::Tls => Counter::EndTls,
            Self::Drain => Counter::EndDrain,
        }
    }

    /// The client is owed close_notify (RFC 8446 §6.1).
    #[must_use]
    pub fn is_orderly(self) -> bool {
        !matches!(self, Self::Transport | Self::SlowReader | Self::Tls)
    }

    /// Responses still owed are not waited for.
    #[must_use]
    pub fn is_abrupt(self) -> bool {
        matches!(self, Self::Transport | Self::Tls)
    }
}
