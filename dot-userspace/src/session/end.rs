//! How a session ends. These are regular ends, not errors: each has one counter in the ledger.
//!
//! Before: `session::serve` came to an end. After: `worker::accept` counts it.
//! Never: logs; that a client leaves is not worth a line.

use std::{io, net::SocketAddr};

use crate::{ledger::Counter, tls::ReadEnd};

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client closed, and has every response to its queries.
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
    /// The client does not read its responses.
    SlowReader,
    /// Its worker held too many octets for slow clients, and most of them for this one.
    Owed,
    /// A length prefix of zero, or a message too short to answer.
    Framing,
    /// Far more unparsable messages than queries.
    Malformed,
    /// Broken TLS inside the session.
    Tls,
    /// Idle, and another connection needed its place.
    Evicted,
    /// Idle, and another connection needed its descriptor: it ends without waiting for its client.
    Starved,
    /// The client may not ask.
    Denied,
    /// Its client misuses the service.
    Misuse,
    /// The same, and the client is to be banned.
    MisuseBan,
    /// An operator banned the client.
    Banned,
    /// dotd is stopping.
    Drain,
    /// The session continues in the next engine.
    Moved,
}

/// A session that is over.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its client.
    pub client: SocketAddr,
    /// The configured listen address at which the client came in.
    pub listener: Option<SocketAddr>,
    /// The way it ended.
    pub end: SessionEnd,
    /// Its number.
    pub session: u64,
    /// Messages that its client sent.
    pub queries: u32,
    /// Octets that its client has acknowledged; 0 unless connections are logged.
    pub octets_taken: u64,
}

impl SessionEnd {
    /// Whether dotd ended the session because of the client's behaviour, or because it had no place for it.
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
            | Self::Misuse
            | Self::MisuseBan
            | Self::Banned
            | Self::Drain
            | Self::Moved => false,
        }
    }

    /// Its counter in the ledger.
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
            Self::Misuse | Self::MisuseBan => Counter::EndMisuse,
            Self::Banned => Counter::EndBanned,
            Self::Drain => Counter::EndDrain,
            Self::Moved => Counter::EndMoved,
        }
    }

    /// Whether the client gets a last record: close_notify, or the alert that names the fault (RFC 8446 §6).
    #[must_use]
    pub fn is_orderly(self) -> bool {
        !matches!(self, Self::Transport | Self::SlowReader | Self::Owed | Self::Banned | Self::Moved)
    }

    /// Whether unwritten responses are dropped.
    #[must_use]
    pub fn is_abrupt(self) -> bool {
        matches!(self, Self::Transport | Self::Tls)
    }
}

/// The session's end for an end of reading.
pub(super) fn end_of_reading(end: ReadEnd) -> SessionEnd {
    match end {
        ReadEnd::Closed => SessionEnd::Client,
        ReadEnd::Transport => SessionEnd::Transport,
        ReadEnd::Tls => SessionEnd::Tls,
    }
}

/// The session's end for an error of writing.
pub(super) fn end_of_sending(error: &io::Error) -> SessionEnd {
    match error.kind() {
        // The key has sealed 2^24 records: as many as a session may have queries.
        io::ErrorKind::QuotaExceeded => SessionEnd::Queries,
        _ => SessionEnd::Transport,
    }
}
