//! One cached response: its octets, the positions of its TTLs, and its times.
//!
//! Before: `dns::lifetime` said that it may be cached. After: it is copied for each client that asks the same
//! question.
//! Never: changes its octets after it was cached; a newer response replaces it whole.

use super::Key;
use crate::dns::HEADER_OCTETS;

/// Tenths of a second since the cache was made; 32 bits last for 13 years.
pub type Tick = u32;
/// Length of a tick.
pub const TICK_MILLISECONDS: u32 = 100;
/// Ticks of a second.
pub const SECOND: Tick = 1000 / TICK_MILLISECONDS;
/// Memory of an entry beside its octets: slot, cells, queues, ghost, and the rounding of the allocator.
pub const ENTRY_OVERHEAD_OCTETS: usize = 96;

/// A cached response. Shape of the octets: `[message, its question in lower case][offset of a TTL: u16
/// big-endian]…[the part of the key that is not in the question]`.
#[derive(Debug, Default)]
pub struct Entry {
    octets: Box<[u8]>,
    message_octets: u16,
    question_octets: u16,
    ttls: u16,
    /// The response is SERVFAIL.
    pub is_failure: bool,
    /// The response is for every client subnet, and answers a query that carried one.
    pub tells_subnet: bool,
    /// When the response came.
    pub stored: Tick,
    /// When its lifetime ends.
    pub expires: Tick,
    /// Until when it may be used as a stale answer, while no backend gives a newer one.
    pub stale_until: Tick,
    /// When a backend last failed to give a newer one; zero: never.
    pub failed: Tick,
}

/// The freshness of an entry at a given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Its lifetime has not ended.
    Fresh,
    /// Its lifetime has ended, and it may be used if no newer response is available.
    Stale,
    /// It may not be used any more.
    Over,
}

impl Entry {
    /// Makes an entry of `response`, with TTLs at the offsets `ttls`, under `key`. `None`: a length does not fit its
    /// field.
    pub fn new(key: &Key, response: &[u8], ttls: &[u16]) -> Option<Self> {
        let mut octets = Vec::with_capacity(response.len() + 2 * ttls.len() + key.circumstances().len());
        octets.extend_from_slice(response);
        octets.get_mut(HEADER_OCTETS..key.question_end())?.copy_from_slice(key.question());
        octets.extend(ttls.iter().flat_map(|offset| offset.to_be_bytes()));
        octets.extend_from_slice(key.circumstances());
        Some(Self {
            octets: octets.into_boxed_slice(),
            message_octets: u16::try_from(response.len()).ok()?,
            question_octets: u16::try_from(key.question().len()).ok()?,
            ttls: u16::try_from(ttls.len()).ok()?,
            ..Self::default()
        })
    }

    /// Whether it answers the question of `key`.
    pub fn is_for(&self, key: &Key) -> bool {
        self.question() == key.question()
            && self.octets.get(self.behind_ttls()..) == Some(key.circumstances())
    }

    /// The question, its name in lower case.
    pub fn question(&self) -> &[u8] {
        let end = HEADER_OCTETS + usize::from(self.question_octets);
        self.octets.get(HEADER_OCTETS..end).unwrap_or_default()
    }

    /// The response as it came, except for the case of its question.
    pub fn message(&self) -> &[u8] {
        self.octets.get(..usize::from(self.message_octets)).unwrap_or_default()
    }

    /// Offsets of its TTLs, each a pair of octets.
    pub fn ttls(&self) -> &[u8] {
        self.octets.get(usize::from(self.message_octets)..self.behind_ttls()).unwrap_or_default()
    }

    fn behind_ttls(&self) -> usize {
        usize::from(self.message_octets) + 2 * usize::from(self.ttls)
    }

    /// Memory of the entry, in octets.
    pub fn cost(&self) -> usize {
        self.octets.len() + ENTRY_OVERHEAD_OCTETS
    }

    /// Its freshness at `now`.
    pub fn freshness(&self, now: Tick) -> Freshness {
        match now {
            _ if now < self.expires => Freshness::Fresh,
            _ if now < self.stale_until => Freshness::Stale,
            _ => Freshness::Over,
        }
    }

    /// Ends its lifetime: it is not used any more, not even as a stale answer.
    pub fn end(&mut self) {
        (self.expires, self.stale_until) = (0, 0);
    }

    /// Whether it is in the last tenth of its lifetime.
    pub fn is_ending(&self, now: Tick) -> bool {
        let life = self.expires.saturating_sub(self.stored);
        self.expires.saturating_sub(now) <= life / 10
    }

    /// Whether a backend failed to give a newer one less than `ticks` ago.
    pub fn has_failed_within(&self, ticks: Tick, now: Tick) -> bool {
        self.failed != 0 && now.saturating_sub(self.failed) < ticks
    }
}
