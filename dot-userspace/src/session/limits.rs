//! The deadlines, caps and budgets of sessions.
//!
//! Before: `start` read the config. After: [`super::WorkerShared`] hands it to sessions, running ones too.
//! Never: changes a limit by itself.

use std::time::Duration;

use super::{owed::OwedLimits, rates::QueryRate};
use crate::dns::Allowed;

/// Deadlines and caps of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From a message's first octet to its last.
    pub message_timeout: Duration,
    /// How long a client may leave responses unread, beside the time that its reading gains it.
    pub write_timeout: Duration,
    /// Time without a whole message.
    pub idle_timeout: Duration,
    /// Time since the handshake.
    pub duration_max: Duration,
    /// Queries of a session.
    pub queries_max: u64,
    /// Unanswered queries of a session.
    pub in_flight_max: usize,
    /// Messages of a client over connections.
    pub query_rate: QueryRate,
    /// Lengths of client prefixes, IPv4 and IPv6.
    pub prefix_bits: (u8, u8),
    /// Pad responses to padded queries.
    pub padding: bool,
    /// Answer edns-tcp-keepalive.
    pub keepalive: bool,
    /// Kinds of messages besides queries that go to backends.
    pub allowed: Allowed,
    /// Octets that may wait for clients.
    pub owed: OwedLimits,
}
