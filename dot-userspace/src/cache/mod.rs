//! Module `cache`: responses of backends, cached by each worker for as long as their TTLs allow.
//!
//! Before: `dns::triage` said forward. After: the client has a copy of a cached response, or a backend is asked.
//! The path of a query: [`Key::of`] → [`Cache::look`] → [`Cache::write`]; the path of a response: [`Cache::keep`].
//! Holds: the entries of one worker, limited in number and in octets; the hash is keyed, so that no client can choose
//! names that collide.
//! Never: shares entries with another worker, allocates for a hit, caches a response that is for one client only, or
//! pauses: each step is bounded, however many entries there are.
//!
//! Source: RFC 2308, RFC 8767, RFC 7871 §7.3.

mod entry;
mod index;
mod key;
mod pending;
mod table;

#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use tokio::time::Instant;

pub use entry::ENTRY_OVERHEAD_OCTETS;
use entry::{Entry, Freshness, SECOND, TICK_MILLISECONDS, Tick};
pub use key::Key;
pub use pending::{Joined, Pending};
use table::Table;

use crate::{
    config::{Limit, limit},
    dns::{self, HEADER_OCTETS, Scope},
    ledger::{Counter, WorkerCounters},
};

/// Average octets of an entry, its overhead included: so `cache_entries` limits memory too.
pub const ENTRY_OCTETS: usize = 512;
/// Octets of the smallest cache.
const OCTETS_MIN: usize = 64 * 1024;
/// After a backend failed to give a newer answer, the wait before it is asked again while a stale one is used.
const RECHECK_TICKS: Tick = SECOND;
/// Entries that one step of a walk over all entries handles.
const STEP_ENTRIES: usize = 4096;

/// The limits of the cache, and how long it keeps responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Most responses, of [`ENTRY_OCTETS`] on average; 0: no cache.
    pub entries: u32,
    /// Bounds of their lifetimes.
    pub bounds: dns::Bounds,
    /// Seconds after the end of its lifetime for which a response may be used while no backend gives a newer one.
    pub stale_seconds: u32,
}

impl Keeping {
    /// This many entries, and the defaults of the config for everything else.
    #[must_use]
    pub fn of(entries: u32) -> Self {
        let seconds = |limit: &Limit<Duration>| u32::try_from(limit.default.as_secs()).unwrap_or(u32::MAX);
        let bounds = dns::Bounds {
            least: seconds(&limit::CACHE_TTL_MIN),
            most: seconds(&limit::CACHE_TTL_MAX),
            negative_most: seconds(&limit::CACHE_NEGATIVE_TTL_MAX),
        };
        Self { entries, bounds, stale_seconds: seconds(&limit::CACHE_STALE) }
    }
}

/// The answers that an operator wants removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forget {
    /// The answers for this name, in wire format and lower case…
    pub name: Box<[u8]>,
    /// …or for it and all names below it.
    pub is_suffix: bool,
    /// Only those of this type. `None`: those of every type.
    pub qtype: Option<u16>,
}

impl Forget {
    /// Whether answers to `question`, in lower case, are removed.
    fn means(&self, question: &[u8]) -> bool {
        let Some((name, [high, low, ..])) = question.split_last_chunk::<4>() else { return false };
        let is_type = self.qtype.is_none_or(|qtype| qtype == u16::from_be_bytes([*high, *low]));
        let is_name = if self.is_suffix { dns::is_below(name, &self.name) } else { *name == *self.name };
        is_type && is_name
    }
}

/// One worker's cache.
pub struct Cache {
    table: Table,
    hasher: RandomState,
    made: Instant,
    counters: WorkerCounters,
    keeping: Keeping,
    /// Offsets of the TTLs in the response that is being cached.
    ttls: Vec<u16>,
    /// A response without its client subnet.
    bare: Vec<u8>,
    /// The values that this cache last added to the gauges.
    shown: Cell<(u64, u64)>,
}

/// The result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// An answer whose lifetime has not ended. The second value: it is popular and will end soon, so it should be
    /// refreshed.
    Fresh(Place, bool),
    /// A stale answer, for use if no backend gives a newer one. The second value: a backend has failed to do so just
    /// now.
    Stale(Place, bool),
    /// There is no answer.
    Nothing,
}

/// The slot of an answer and its age. Valid until the cache is next changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    slot: u32,
    age_seconds: u32,
    is_stale: bool,
    is_for_all: bool,
}

impl Place {
    /// The answer is for every client subnet.
    #[must_use]
    pub fn is_for_all(self) -> bool {
        self.is_for_all
    }
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(keeping: Keeping, counters: &WorkerCounters) -> Self {
        let entries = usize::try_from(keeping.entries).unwrap_or(usize::MAX).max(1);
        let octets = entries.saturating_mul(ENTRY_OCTETS).max(OCTETS_MIN);
        Self {
            table: Table::new(entries, octets),
            hasher: RandomState::new(),
            made: Instant::now(),
            counters: counters.clone(),
            keeping,
            ttls: Vec::with_capacity(dns::TTLS_MAX),
            bare: Vec::new(),
            shown: Cell::new((0, 0)),
        }
    }

    /// Looks for the answer to `key`. Counts nothing: the caller counts the outcome.
    ///
    /// The answer for the client's own subnet is preferred to the one for all subnets (RFC 7871 §7.3.1: the longest
    /// match).
    pub fn look(&mut self, key: &Key, now: Instant) -> Found {
        let now = self.tick(now);
        let own = self.look_for(key, now, false);
        if matches!(own, Found::Fresh(..)) || key.subnet().is_none() {
            return own;
        }
        self.look_for_all(key, now, own)
    }

    /// The answer for all subnets, where the cache has no answer for the client's own subnet.
    #[cold]
    fn look_for_all(&mut self, key: &Key, now: Tick, own: Found) -> Found {
        let Some(shared) = key.shared() else { return own };
        match (self.look_for(&shared, now, true), own) {
            (fresh @ Found::Fresh(..), _) | (fresh, Found::Nothing) => fresh,
            (_, own) => own,
        }
    }

    #[inline]
    fn look_for(&mut self, key: &Key, now: Tick, is_for_all: bool) -> Found {
        let Some(slot) = self.slot(self.hash(key), key) else { return Found::Nothing };
        let Some(entry) = self.table.entry(slot) else { return Found::Nothing };
        let age_seconds = now.saturating_sub(entry.stored) / SECOND;
        let has_failed = entry.has_failed_within(RECHECK_TICKS, now);
        let place = |is_stale| Place { slot, age_seconds, is_stale, is_for_all };
        match entry.freshness(now) {
            Freshness::Fresh => {
                let is_ending = entry.is_ending(now) && !has_failed && !entry.is_failure;
                let hits = self.table.hit(slot);
                Found::Fresh(place(false), is_ending && hits > 0)
            }
            Freshness::Stale => Found::Stale(place(true), has_failed),
            Freshness::Over => Found::Nothing,
        }
    }

    /// Writes the answer at `place`, which was found for `key`. The question is written as the client wrote it
    /// (`question`), and the TTLs as of now.
    pub fn write(&self, place: Place, key: &Key, question: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let Some(entry) = self.table.entry(place.slot) else { return };
        out.extend_from_slice(entry.message());
        let question_end = HEADER_OCTETS + question.len();
        if let Some(octets) = out.get_mut(HEADER_OCTETS..question_end) {
            octets.copy_from_slice(question);
        }
        if place.is_stale {
            dns::make_stale(out, entry.ttls(), question_end);
        } else {
            dns::count_down(out, entry.ttls(), place.age_seconds);
        }
        if let Some(subnet) = key.subnet().filter(|_| place.is_for_all && entry.tells_subnet) {
            dns::tell_subnet(out, question_end, subnet);
        }
    }

    /// Caches `response` as the answer to `key`, if that is permitted; as one for all subnets if the response says
    /// so.
    pub fn keep(&mut self, key: &Key, response: &[u8], now: Instant) {
        let (mut ttls, mut bare) = (std::mem::take(&mut self.ttls), std::mem::take(&mut self.bare));
        let bounds = self.keeping.bounds;
        let lifetime =
            dns::lifetime(response, key.question_end(), key.qtype(), key.subnet(), bounds, &mut ttls);
        if let Some(lifetime) = lifetime {
            let shared = key.shared().filter(|_| lifetime.scope != Scope::Some && !lifetime.is_failure);
            let tells_subnet = shared.is_some() && lifetime.scope == Scope::All;
            let is_told =
                tells_subnet && dns::without_subnet(response, key.question_end(), &mut bare).is_some();
            match shared {
                Some(shared) if is_told => self.keep_as(&shared, &bare, &ttls, lifetime, true, now),
                Some(shared) if !tells_subnet => self.keep_as(&shared, response, &ttls, lifetime, false, now),
                // It is for some subnets only; or its OPT is at a place where it cannot be edited.
                _ => self.keep_as(key, response, &ttls, lifetime, false, now),
            }
        }
        (self.ttls, self.bare) = (ttls, bare);
    }

    fn keep_as(
        &mut self,
        key: &Key,
        response: &[u8],
        ttls: &[u16],
        lifetime: dns::Lifetime,
        tells_subnet: bool,
        now: Instant,
    ) {
        let Some(mut entry) = Entry::new(key, response, ttls) else { return };
        entry.is_failure = lifetime.is_failure;
        entry.tells_subnet = tells_subnet;
        entry.stored = self.tick(now);
        entry.expires = entry.stored.saturating_add(lifetime.seconds.saturating_mul(SECOND));
        let stale_seconds = if lifetime.is_failure { 0 } else { self.keeping.stale_seconds };
        entry.stale_until = entry.expires.saturating_add(stale_seconds.saturating_mul(SECOND));
        self.put(key, entry);
    }

    fn put(&mut self, key: &Key, entry: Entry) {
        let (hash, now) = (self.hash(key), entry.stored);
        let old = self.slot(hash, key);
        if let Some(old) = old.and_then(|slot| self.table.entry_mut(slot)).filter(|_| entry.is_failure)
            && !old.is_failure
            && old.freshness(now) != Freshness::Over
        {
            // A failure does not replace an answer.
            old.failed = now.max(1);
            return;
        }
        if let Some(evicted) = self.table.put(hash, old, entry, now) {
            self.counters.add(Counter::CacheInserted, 1);
            self.counters.add(Counter::CacheEvicted, evicted);
        }
        self.show_size();
    }

    /// No backend gave a newer answer to `key`: the old one, if there is one, is used meanwhile.
    pub fn note_failure(&mut self, key: &Key, now: Instant) {
        let now = self.tick(now);
        for key in key.shared().iter().chain([key]) {
            let slot = self.slot(self.hash(key), key);
            if let Some(entry) = slot.and_then(|slot| self.table.entry_mut(slot)) {
                entry.failed = now.max(1);
            }
        }
    }

    /// Removes some entries of a cache that is no longer used. `false`: none is left.
    pub fn dismantle(&mut self) -> bool {
        let gone = self.table.dismantle(STEP_ENTRIES);
        self.show_size();
        gone == STEP_ENTRIES
    }

    /// Ends the lifetime of the answers that `forget` selects in some slots from `start` on. Returns the slot to
    /// continue with.
    pub fn forget(&mut self, forget: &Forget, start: usize) -> Option<usize> {
        self.table.expire(start, STEP_ENTRIES, |entry| forget.means(entry.question()))
    }

    fn slot(&self, hash: u32, key: &Key) -> Option<u32> {
        self.table.find(hash, |entry| entry.is_for(key))
    }

    fn hash(&self, key: &Key) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key.octets());
        hasher.finish() as u32
    }

    fn tick(&self, now: Instant) -> Tick {
        let since = now.saturating_duration_since(self.made);
        let ticks =
            since.as_secs() * u64::from(SECOND) + u64::from(since.subsec_millis() / TICK_MILLISECONDS);
        Tick::try_from(ticks).unwrap_or(Tick::MAX)
    }

    /// Updates the gauges.
    fn show_size(&self) {
        self.show(self.table.entries() as u64, self.table.octets() as u64);
    }

    fn show(&self, entries: u64, octets: u64) {
        let (shown_entries, shown_octets) = self.shown.replace((entries, octets));
        self.counters.add(Counter::CacheEntries, entries.wrapping_sub(shown_entries));
        self.counters.add(Counter::CacheOctets, octets.wrapping_sub(shown_octets));
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.show(0, 0);
    }
}
