//! Module `policy`: the operator's rules about clients, names and addresses: which clients may ask, and which answers are changed.
//!
//! Before: a config and the files that it names; a connection, a datagram or a handshake of some client; a query, an answer.
//! After: `worker` and `session` do what the verdict says and count it.
//! Holds: immutable tables that all workers share; a reload makes new ones.
//! Never: locks, allocates or waits where a query is judged.

mod access;
mod builder;
mod copy;
mod explain;
mod hits;
mod index;
mod key_file;
mod lists;
mod misuse;
mod name_hash;
mod names;
mod notified;
mod prefixes;
mod rpz;
mod rules;
mod screen;
mod tenants;
mod words;
mod write;
mod zone;

#[cfg(test)]
mod tests;

pub use access::{Access, AccessReason, Denial, Identity};
pub use copy::{Arriving, Bounds, COPY_PREFIX, Draft, Unfit, copy_of, remove_drafts};
pub use explain::{Explained, Question, RuleSeen};
pub use index::Index;
pub use key_file::{key_in, key_of};
pub use misuse::{Kind as MisuseKind, Misuse, Suspect, Verdict};
pub use names::Names;
pub use notified::{Notice, Notified, Sender};
pub use prefixes::PrefixMap;
pub use rules::{Action, Rules};
pub use screen::{Answered, Found, Judged, OfAnswer, Ruling, Screen};
pub use tenants::{Member, TenantId, Tenants};
pub use write::{Place, alias_of, write};
pub use zone::{Loaded, Zone, ZoneError};
