//! Module `cache`: responses of the backends, kept by each worker for as long as their TTLs say.
//!
//! Before: `dns::triage` said forward. After: a copy of a kept response, or a backend is asked.
//! The line: [`Key::of`] → [`Cache::look`] → [`Cache::write`]; and back: a response → [`Cache::keep`].
//! Holds: one worker's entries, bounded in number and in octets; the hash is keyed, so that no client can
//! choose names that collide.
//! Never: shares with another worker, allocates for a hit, keeps what is for one client alone, or pauses: each
//! step is bounded, however many entries there are.
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

/// Octets an entry may have on average, what it costs beside them included: `cache_entries` bounds memory too.
pub const ENTRY_OCTETS: usize = 512;
/// Room of the smallest cache.
const OCTETS_MIN: usize = 64 * 1024;
/// Rest after a backend failed to give a newer answer, before it is asked again for a stale one.
const RECHECK_TICKS: Tick = SECOND;
/// Entries of one step of what goes over all of them.
const STEP_ENTRIES: usize = 4096;

/// What is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Responses, of [`ENTRY_OCTETS`] on average; 0: no cache.
    pub entries: u32,
    /// Between what their lives must be.
    pub bounds: dns::Bounds,
    /// For how many seconds after its end one is given while no backend gives a newer one.
    pub stale_seconds: u32,
}

impl Keeping {
    /// So many entries, and for the rest what holds where the config says nothing.
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

/// Which answers an operator wants forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forget {
    /// Those for this name, in wire format and lower case…
    pub name: Box<[u8]>,
    /// …or for it and all below it.
    pub is_suffix: bool,
    /// Of this type alone; `None`: of each.
    pub qtype: Option<u16>,
}

impl Forget {
    /// Whether answers to `question`, in lower case, are to go.
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
    /// Where TTLs stand in the response that is being kept.
    ttls: Vec<u16>,
    /// A response without its client subnet.
    bare: Vec<u8>,
    /// What the gauges say of this cache.
    shown: Cell<(u64, u64)>,
}

/// What the cache has for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// An answer. `wants_refresh`: it is popular and ends soon.
    Fresh(Place, bool),
    /// An answer that has ended, for when no backend gives a newer one. `has_failed`: none did a moment ago.
    Stale(Place, bool),
    /// None.
    Nothing,
}

/// Where an answer stands and how old it is. Good until the cache is next changed.
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

    /// Looks for the answer to `key`. Counts nothing: the caller knows what became of it.
    ///
    /// Of a client subnet the answer for it counts, then the one for all (RFC 7871 §7.3.1: the longest match).
    pub fn look(&mut self, key: &Key, now: Instant) -> Found {
        let now = self.tick(now);
        let own = self.look_for(key, now, false);
        if matches!(own, Found::Fresh(..)) || key.subnet().is_none() {
            return own;
        }
        self.look_for_all(key, now, own)
    }

    /// The answer for all subnets, where the client's own has none.
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

    /// Writes the answer at `place`, which was found for `key`, for a client that wrote its question as `question`, with
    /// TTLs as of now.
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

    /// Keeps `response` as the answer to `key`, if it may be kept; as one for all where it says that it is.
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
                // For some alone; or its OPT stands where it cannot be edited.
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
            // A failure is not worth an answer.
            old.failed = now.max(1);
            return;
        }
        if let Some(evicted) = self.table.put(hash, old, entry, now) {
            self.counters.add(Counter::CacheInserted, 1);
            self.counters.add(Counter::CacheEvicted, evicted);
        }
        self.show_size();
    }

    /// No backend gave a newer answer to `key`: the old one, if there is one, is given meanwhile.
    pub fn note_failure(&mut self, key: &Key, now: Instant) {
        let now = self.tick(now);
        for key in key.shared().iter().chain([key]) {
            let slot = self.slot(self.hash(key), key);
            if let Some(entry) = slot.and_then(|slot| self.table.entry_mut(slot)) {
                entry.failed = now.max(1);
            }
        }
    }

    /// Forgets some entries of a cache that is no longer used. `false`: none is left.
    pub fn dismantle(&mut self) -> bool {
        let gone = self.table.dismantle(STEP_ENTRIES);
        self.show_size();
        gone == STEP_ENTRIES
    }

    /// Ends the answers that `forget` means among some slots from `start` on. Returns where to go on.
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

    /// Brings the gauges to where the table is.
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
