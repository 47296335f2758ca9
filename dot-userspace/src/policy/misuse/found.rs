//! The misuses that are found now, for operators.
//!
//! Before: a domain or a client is above a limit. After: `dotd misuse` shows it.
//! Holds: at most [`FOUND_MAX`]. A new one takes the place of one that has ended; without a place it is only counted.
//! Never: outlives the process, or is written to a log.

use dot_common::prefix::ClientPrefix;

use super::Kind;

/// Most misuses of each worker that are shown.
const FOUND_MAX: usize = 64;

/// One misuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its kind.
    pub kind: Kind,
    /// The client. `None`: many clients take part.
    pub client: Option<ClientPrefix>,
    /// The registered domain in wire format; empty: no domain is involved.
    pub domain: Box<[u8]>,
    /// The second at which it was found.
    pub since: u32,
    /// The second at which it is forgotten.
    pub until: u32,
    /// Queries and messages since it was found.
    pub hits: u64,
    key: u64,
}

/// All of them.
#[derive(Default)]
pub(super) struct Findings(Vec<Found>);

/// A misuse, and the key of its row.
pub(super) struct Finding<'n> {
    pub(super) kind: Kind,
    pub(super) key: u64,
    pub(super) client: Option<ClientPrefix>,
    pub(super) domain: &'n [u8],
}

impl Findings {
    /// Notes one, or that it continues until `until`. One that has ended begins again.
    pub(super) fn note(&mut self, finding: &Finding<'_>, now: u32, until: u32) {
        let Finding { kind, key, client, domain } = *finding;
        let known = self.0.iter().position(|found| (found.kind, found.key) == (kind, key));
        if let Some(found) = known.and_then(|place| self.0.get_mut(place)).filter(|found| found.until > now) {
            found.until = until.max(found.until);
            return;
        }
        let found = || Found { kind, client, domain: domain.into(), since: now, until, hits: 0, key };
        let place = known.or_else(|| self.0.iter().position(|found| found.until <= now));
        if let Some(over) = place.and_then(|place| self.0.get_mut(place)) {
            *over = found();
        } else if self.0.len() < FOUND_MAX {
            self.0.push(found());
        }
    }

    /// Counts a query or a message of a misuse.
    pub(super) fn hit(&mut self, kind: Kind, key: u64) {
        if let Some(found) = self.0.iter_mut().find(|found| (found.kind, found.key) == (kind, key)) {
            found.hits = found.hits.saturating_add(1);
        }
    }

    /// The misuses that have not ended.
    pub(super) fn now(&self, second: u32) -> impl Iterator<Item = &Found> {
        self.0.iter().filter(move |found| found.until > second)
    }
}
