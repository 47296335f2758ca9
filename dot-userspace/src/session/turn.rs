//! How much work a session may be in one turn of its worker, before others are heard.
//!
//! Before: the runtime wakes the session. After: the reader asks before each read and each message whether there is more.
//! Holds: what is left of the turn, and what it cost: a unit is some 0.4 µs, a message that is answered without a backend.
//! Never: looks at a clock, or at what was read.

use crate::tls::Read;

/// Messages of one turn, a millisecond or less of the worker's time: what is answered without a backend, from the cache
/// or by dotd itself, is never in flight, so that nothing else would end a turn before its client is slower than we are.
const MESSAGES_MAX: u16 = 512;
/// Reads of one turn: 2 µs each for the system call.
const READS_MAX: u16 = 32;
/// Records of one turn: 0.2 µs each for the AEAD, however little they hold. The last read may exceed it by the records
/// that fit one read, some 3,000, so that 64 KiB of the smallest records cost less than a millisecond too.
const RECORDS_MAX: usize = 1024;
/// Octets of one turn: 0.1 ms of decryption and copying.
const OCTETS_MAX: usize = 256 * 1024;

/// Units of a read.
const READ_UNITS: u32 = 5;
/// Units of writing what a turn has answered.
const WRITE_UNITS: u32 = 8;
/// Records of a unit.
const RECORDS_OF_UNIT: u32 = 2;
/// Octets of a unit.
const OCTETS_OF_UNIT: u32 = 1024;

/// What is left of a turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    messages: u16,
    reads: u16,
    records: usize,
    octets: usize,
    spent: u32,
}

impl Default for Turn {
    fn default() -> Self {
        Self::of(u32::from(MESSAGES_MAX))
    }
}

impl Turn {
    /// A turn of so many units, and no more than any may be.
    pub(super) fn of(units: u32) -> Self {
        let times = |each: u32| usize::try_from(units.saturating_mul(each)).unwrap_or(usize::MAX);
        Self {
            messages: u16::try_from(units).map_or(MESSAGES_MAX, |units| units.min(MESSAGES_MAX)),
            reads: u16::try_from(units.div_ceil(READ_UNITS)).map_or(READS_MAX, |reads| reads.min(READS_MAX)),
            records: times(RECORDS_OF_UNIT).min(RECORDS_MAX),
            octets: times(OCTETS_OF_UNIT).min(OCTETS_MAX),
            spent: 0,
        }
    }

    /// Units that it has cost: nothing, where nothing was read.
    pub(super) fn spent(self) -> u32 {
        if self.spent == 0 { 0 } else { self.spent + WRITE_UNITS }
    }

    /// One message was taken.
    pub(super) fn note_message(&mut self) {
        self.messages = self.messages.saturating_sub(1);
        self.spent = self.spent.saturating_add(1);
    }

    /// One read was done.
    pub(super) fn note_read(&mut self, read: &Read) {
        self.reads = self.reads.saturating_sub(1);
        self.records = self.records.saturating_sub(read.records);
        self.octets = self.octets.saturating_sub(read.octets);
        let records = u32::try_from(read.records).unwrap_or(u32::MAX) / RECORDS_OF_UNIT;
        self.spent = self.spent.saturating_add(READ_UNITS).saturating_add(records);
    }

    /// No further message may be taken of what was read.
    pub(super) fn has_no_message(self) -> bool {
        self.messages == 0
    }

    /// Nothing more may be read, nor any message be taken.
    pub(super) fn is_over(self) -> bool {
        self.messages == 0 || self.reads == 0 || self.records == 0 || self.octets == 0
    }
}
