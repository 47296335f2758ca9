//! What connections to one backend did with a query, so that it is asked again in the right company.
//!
//! Before: a query was given to a backend. After: `suspects` and `silence` read here where it goes next.
//! Never: outlives the query's stay at that backend.

/// What happened to a query over the connections of the backend that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Its place in the order of what its connection was given.
    pub order: u32,
    /// Most queries that may be unanswered on a connection with it, itself included.
    pub company: u16,
    /// Connections that closed while it was the only one unanswered.
    pub lone_ends: u8,
    /// Those of them that were new: nothing but this query explains their end.
    pub new_ends: u8,
    /// Times it was moved from a connection that was silent.
    pub moves: u8,
    /// It shares no connection because of what others did, and waits behind those that an accident left.
    pub is_apart: bool,
    /// This backend was given it before.
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
    /// It may have closed a connection, and shares none with queries that did not.
    pub fn is_suspect(&self) -> bool {
        self.company < u16::MAX
    }
}
