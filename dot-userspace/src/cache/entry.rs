//! One kept response: its octets, where its TTLs stand, and until when it holds.
//!
//! Before: `dns::lifetime` said that it may be kept. After: it is copied for each client that asks the same.
//! Never: changes once it is kept; a newer response replaces it whole.

use super::Key;
use crate::dns::HEADER_OCTETS;

/// Tenths of a second since the cache was made; 13 years fit.
pub type Tick = u32;
/// Length of a tick.
pub const TICK_MILLISECONDS: u32 = 100;
/// Ticks of a second.
pub const SECOND: Tick = 1000 / TICK_MILLISECONDS;
/// What an entry costs beside its octets: slot, cells, queues, ghost, and the allocator's rounding.
pub const ENTRY_OVERHEAD_OCTETS: usize = 96;

/// A kept response. Shape of the octets: `[message, its question in lower case][offset of a TTL: u16 big-endian]…[what
/// the key holds beside the question]`.
#[derive(Debug, Default)]
pub struct Entry {
    octets: Box<[u8]>,
    message_octets: u16,
    question_octets: u16,
    ttls: u16,
    /// SERVFAIL.
    pub is_failure: bool,
    /// It is for every client subnet, and was told of one.
    pub tells_subnet: bool,
    /// When it came.
    pub stored: Tick,
    /// When it ends.
    pub expires: Tick,
    /// Until when it may be given while no backend gives a newer one.
    pub stale_until: Tick,
    /// When a backend last failed to give a newer one; zero: it has not.
    pub failed: Tick,
}

/// How an entry stands at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It holds.
    Fresh,
    /// It has ended, and may be given when there is nothing newer.
    Stale,
    /// It is of no more use.
    Over,
}

impl Entry {
    /// Keeps `response`, with TTLs at the offsets `ttls`, under `key`. `None`: its lengths do not fit.
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

    /// Whether it answers what `key` asks.
    pub fn is_for(&self, key: &Key) -> bool {
        self.question() == key.question()
            && self.octets.get(self.behind_ttls()..) == Some(key.circumstances())
    }

    /// The question, its name in lower case.
    pub fn question(&self) -> &[u8] {
        let end = HEADER_OCTETS + usize::from(self.question_octets);
        self.octets.get(HEADER_OCTETS..end).unwrap_or_default()
    }

    /// The response as it came, but for the case of its question.
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

    /// Memory that it takes.
    pub fn cost(&self) -> usize {
        self.octets.len() + ENTRY_OVERHEAD_OCTETS
    }

    /// How it stands at `now`.
    pub fn freshness(&self, now: Tick) -> Freshness {
        match now {
            _ if now < self.expires => Freshness::Fresh,
            _ if now < self.stale_until => Freshness::Stale,
            _ => Freshness::Over,
        }
    }

    /// Ends its life: it is not given any more, not even as a stale answer.
    pub fn end(&mut self) {
        (self.expires, self.stale_until) = (0, 0);
    }

    /// Whether it is in the last tenth of its life.
    pub fn is_ending(&self, now: Tick) -> bool {
        let life = self.expires.saturating_sub(self.stored);
        self.expires.saturating_sub(now) <= life / 10
    }

    /// Whether a backend failed to give a newer one less than `ticks` ago.
    pub fn has_failed_within(&self, ticks: Tick, now: Tick) -> bool {
        self.failed != 0 && now.saturating_sub(self.failed) < ticks
    }
}
