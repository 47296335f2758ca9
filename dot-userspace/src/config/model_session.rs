//! The shape of `[session]` in `dotd.toml`: deadlines, caps and rates of clients' connections.
//!
//! Before: `model` has the file's text. After: `range` and `consistency` check it.
//! Holds: names that are the contract with operators, as `model` does.
//! Never: decides how a limit is enforced.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;

/// `[session]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// Absolute time for a handshake, from accept.
    #[serde(with = "duration")]
    pub handshake_timeout: Duration,
    /// Absolute time from a message's first octet to its last.
    #[serde(with = "duration")]
    pub message_timeout: Duration,
    /// Time in which a client must read the responses that wait for it.
    #[serde(with = "duration")]
    pub write_timeout: Duration,
    /// Time without a whole message before dotd closes the session.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Longest life of a session.
    #[serde(with = "duration")]
    pub duration_max: Duration,
    /// Most queries of a session.
    pub queries_max: u64,
    /// Most unanswered queries of a session; at this number dotd stops reading.
    pub in_flight_max: u16,
    /// Most octets of responses that may wait for a session's client.
    pub owed_octets_max: u32,
    /// The same for one client prefix, on each worker.
    pub owed_octets_per_prefix_max: u32,
    /// The same for all clients of a worker.
    pub owed_octets_per_worker_max: u32,
    /// Most connections of the process.
    pub connections_max: u32,
    /// Most connections of one client prefix.
    pub connections_per_prefix_max: u32,
    /// Open connections of one listen address; 0: as many as in total.
    pub connections_per_listener_max: u32,
    /// Handshakes a second of one client prefix, in the engine; 0: no limit.
    pub handshakes_per_second: u32,
    /// Messages per second of one client prefix over connections; 0: no limit.
    pub queries_per_second: u32,
    /// Burst of such messages.
    pub queries_burst: u32,
    /// The action for messages above that rate.
    pub queries_over: QueriesOver,
    /// Whether sessions move to the next engine at an upgrade.
    pub move_at_upgrade: bool,
}

/// `session.queries_over`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QueriesOver {
    /// Answer, and count.
    Count,
    /// Answer later, at the rate; a message that would wait for more than a second is refused.
    Delay,
    /// Answer REFUSED.
    Refuse,
}
