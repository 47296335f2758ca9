//! The asker of a query, as the cache, policy zones and `misused` see it: a session, the sender of a datagram, or a rule's alias.
//!
//! Before: a query was read. After: its asker has one outcome.
//! Holds: nothing. Never: knows a transport.

use std::{net::IpAddr, rc::Rc};

use super::SessionEnd;
use crate::{
    backend::Sink,
    dns::{Asked, Query, Reply},
    events::What,
    ledger::Counter,
    policy::TenantId,
    proxy::Client,
};

/// The asker of a query: a session, or the sender of a datagram.
pub(super) trait Asker {
    /// Passes a response on at once. `false`: that is impossible.
    fn pass(&self, asked: Asked, response: &[u8]) -> bool;
    /// Returns the sink through which one outcome will come later.
    fn expect(&self) -> Rc<dyn Sink>;
    /// The client.
    fn client(&self) -> Option<Client>;
    /// Its address.
    fn source(&self) -> IpAddr;
    /// Passes a policy's response on. `is_cut`: as a truncated one, because a datagram has no room for it.
    fn pass_made(&self, asked: Asked, response: &[u8], is_cut: bool);
    /// Whether it asks by datagrams, and TC=1 can tell it to ask over TCP.
    fn is_datagram(&self) -> bool;
    /// Whether the query must not go to a backend now; the asker has been told.
    fn is_deferred(&self, message: &[u8], query: &Query) -> bool;
    /// The tenant whose client asks.
    fn tenant(&self) -> TenantId;
    /// The client whose misuse this may be; `None`: the query is dotd's own.
    fn suspect(&self) -> Option<&dyn Suspect>;
}

/// The client of a query that is judged.
pub(super) trait Suspect {
    /// Gives a response of dotd's own.
    fn reply(&self, message: &[u8], reply: &Reply);
    /// Has a client that asks by datagrams come over TCP; counts the response.
    fn send_to_tcp(&self, message: &[u8], query: &Query);
    /// Ends the session, if there is one.
    fn end_by(&self, end: SessionEnd);
    /// Tells operators what happens to it, and why it is refused.
    fn tell(&self, what: What, refused: Option<Counter>);
}
