//! Room `cache`: responses of the backends, kept by each worker for as long as their TTLs say.
//!
//! Before: `dns::triage` said forward. After: a copy of a kept response, or a backend is asked.
//! The line: [`Key::of`] → [`Cache::look`] → [`Cache::write`]; and back: a response → [`Cache::keep`].
//! Holds: one worker's entries, bounded in number and in octets; the hash is keyed, so that nobody outside can
//! choose names that collide.
//! Never: shares with another worker, allocates for a hit, keeps what is for one client alone, or pauses: each
//! step is bounded, however many entries there are.
//!
//! Source: RFC 2308, RFC 8767.

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
};

use tokio::time::Instant;

pub use entry::ENTRY_OVERHEAD_OCTETS;
use entry::{Entry, Freshness, SECOND, TICK, Tick};
pub use key::Key;
pub use pending::{Joined, Pending};
use table::Table;

use crate::{
    dns::{self, HEADER_OCTETS},
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

/// One worker's cache.
pub struct Cache {
    table: Table,
    hasher: RandomState,
    made: Instant,
    counters: WorkerCounters,
    /// Where TTLs stand in the response that is being kept.
    ttls: Vec<u16>,
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
}

impl Cache {
    /// An empty cache for so many entries of [`ENTRY_OCTETS`] on average.
    #[must_use]
    pub fn new(entries: u32, counters: &WorkerCounters) -> Self {
        let entries = usize::try_from(entries).unwrap_or(usize::MAX).max(1);
        let octets = entries.saturating_mul(ENTRY_OCTETS).max(OCTETS_MIN);
        Self {
            table: Table::new(entries, octets),
            hasher: RandomState::new(),
            made: Instant::now(),
            counters: counters.clone(),
            ttls: Vec::with_capacity(dns::TTLS_MAX),
            shown: Cell::new((0, 0)),
        }
    }

    /// Looks for the answer to `key`. Counts nothing: the caller knows what became of it.
    pub fn look(&mut self, key: &Key, now: Instant) -> Found {
        let now = self.tick(now);
        let Some(slot) = self.slot(self.hash(key), key) else { return Found::Nothing };
        let Some(entry) = self.table.entry(slot) else { return Found::Nothing };
        let age_seconds = now.saturating_sub(entry.stored) / SECOND;
        let has_failed = entry.has_failed_within(RECHECK_TICKS, now);
        match entry.freshness(now) {
            Freshness::Fresh => {
                let is_ending = entry.is_ending(now) && !has_failed && !entry.is_failure;
                let hits = self.table.hit(slot);
                Found::Fresh(Place { slot, age_seconds, is_stale: false }, is_ending && hits > 0)
            }
            Freshness::Stale => Found::Stale(Place { slot, age_seconds, is_stale: true }, has_failed),
            Freshness::Over => Found::Nothing,
        }
    }

    /// Writes the answer at `place` for a client that wrote its question as `question`, with TTLs as of now.
    pub fn write(&self, place: Place, question: &[u8], out: &mut Vec<u8>) {
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
    }

    /// Keeps `response` as the answer to `key`, if it may be kept.
    pub fn keep(&mut self, key: &Key, response: &[u8], now: Instant) {
        let mut ttls = std::mem::take(&mut self.ttls);
        let (qtype, has_subnet) = (key.qtype(), key.has_subnet());
        let lifetime = dns::lifetime(response, key.question_end(), qtype, has_subnet, &mut ttls);
        let entry = lifetime.and_then(|lifetime| Some((lifetime, Entry::new(key, response, &ttls)?)));
        self.ttls = ttls;
        let Some((lifetime, mut entry)) = entry else { return };
        entry.is_failure = lifetime.is_failure;
        entry.stored = self.tick(now);
        entry.expires = entry.stored.saturating_add(lifetime.seconds.saturating_mul(SECOND));
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
        let slot = self.slot(self.hash(key), key);
        if let Some(entry) = slot.and_then(|slot| self.table.entry_mut(slot)) {
            entry.failed = now.max(1);
        }
    }

    /// Forgets some entries of a cache that is no longer used. `false`: none is left.
    pub fn dismantle(&mut self) -> bool {
        let gone = self.table.dismantle(STEP_ENTRIES);
        self.show_size();
        gone == STEP_ENTRIES
    }

    /// Ends the answers for `name` (wire format, lower case) among some slots from `start` on. Returns where to
    /// go on.
    pub fn forget(&mut self, name: &[u8], start: usize) -> Option<usize> {
        let is_of_name =
            |entry: &Entry| entry.question().split_last_chunk::<4>().is_some_and(|(own, _)| own == name);
        self.table.expire(start, STEP_ENTRIES, is_of_name)
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
        let ticks = now.saturating_duration_since(self.made).as_millis() / TICK.as_millis();
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
