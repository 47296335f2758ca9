//! Module `policy`: the operator's rules about clients. Who may ask.
//!
//! Before: a config, and a connection, a datagram or a handshake of some client. After: `worker` and `session` do what the
//! verdict says and count it.
//! Holds: immutable tables that all workers share; a reload makes new ones.
//! Never: locks, allocates or waits where a query is judged.

mod access;
mod prefixes;

pub use access::{Access, AccessReason, Denial, Identity};
pub use prefixes::PrefixMap;
