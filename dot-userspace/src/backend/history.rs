//! A query's past on the connections to one backend. It decides which queries may share its next connection.
//!
//! Before: a backend got a query. After: `suspects` and `silence` read here where the query goes next.
//! Never: outlives the query's stay at that backend.

/// What happened to a query over the connections of the backend that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Its number in the sequence of queries on its connection.
    pub order: u32,
    /// The most queries that may be unanswered on its connection, itself included.
    pub company: u16,
    /// Connections that closed while it was the only one unanswered.
    pub lone_ends: u8,
    /// Those of them that were new connections: only this query explains their end.
    pub new_ends: u8,
    /// How often it was moved from a silent connection.
    pub moves: u8,
    /// It shares no connection because of other queries, and waits behind queries whose connection closed.
    pub is_apart: bool,
    /// This backend has had it before.
    pub was_given: bool,
    /// Its datagram was sent again.
    pub was_resent: bool,
}

impl Default for History {
    fn default() -> Self {
        Self {
            order: 0,
            company: u16::MAX,
            lone_ends: 0,
            new_ends: 0,
            moves: 0,
            is_apart: false,
            was_given: false,
            was_resent: false,
        }
    }
}

impl History {
    /// Whether it may have closed a connection. It shares connections only with such queries.
    pub fn is_suspect(&self) -> bool {
        self.company < u16::MAX
    }
}
