//! How much work a session may do in one turn of its worker, before others run.
//!
//! Before: the runtime wakes the session. After: the reader asks before each read and each message whether there is more.
//! Holds: what is left of the turn, and its cost: a unit is about 0.4 µs, the time of a message that is answered
//! without a backend.
//! Never: reads a clock, or looks at the content of messages.

use crate::tls::Read;

/// Messages of one turn, a millisecond or less of the worker's time. Messages that are answered without a backend, from
/// the cache or by dotd itself, are never in flight, so nothing else would end the turn of a fast client.
const MESSAGES_MAX: u16 = 512;
/// Reads of one turn: 2 µs each for the system call.
const READS_MAX: u16 = 32;
/// Records of one turn: 0.2 µs each for the AEAD, however little they hold. The last read may exceed the limit by the
/// records of one read, about 3,000, so 64 KiB of the smallest records cost less than a millisecond too.
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

/// From this many units on a turn has its greatest length: more units allow nothing more.
const WHOLE_UNITS: u32 = 512;

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
        Self::WHOLE
    }
}

impl Turn {
    /// The longest turn.
    const WHOLE: Self =
        Self { messages: MESSAGES_MAX, reads: READS_MAX, records: RECORDS_MAX, octets: OCTETS_MAX, spent: 0 };

    /// A turn of this many units, within the limits above.
    pub(super) fn of(units: u32) -> Self {
        if units >= WHOLE_UNITS {
            return Self::WHOLE;
        }
        let times = |each: u32| usize::try_from(units.saturating_mul(each)).unwrap_or(usize::MAX);
        Self {
            messages: u16::try_from(units).map_or(MESSAGES_MAX, |units| units.min(MESSAGES_MAX)),
            reads: u16::try_from(units.div_ceil(READ_UNITS)).map_or(READS_MAX, |reads| reads.min(READS_MAX)),
            records: times(RECORDS_OF_UNIT).min(RECORDS_MAX),
            octets: times(OCTETS_OF_UNIT).min(OCTETS_MAX),
            spent: 0,
        }
    }

    /// Units that the turn has used; 0 if nothing was read.
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

    /// Whether no further message may be taken.
    pub(super) fn has_no_message(self) -> bool {
        self.messages == 0
    }

    /// Whether no further read or message is allowed.
    pub(super) fn is_over(self) -> bool {
        self.messages == 0 || self.reads == 0 || self.records == 0 || self.octets == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a turn of many units allows what its units pay for, and no more than the longest turn. Method: every
    /// number of units around the longest, for each of its limits.
    #[test]
    fn a_turn_of_many_units_is_the_longest() {
        let parts = |turn: Turn| (turn.messages, turn.reads, turn.records, turn.octets);
        let longest = (MESSAGES_MAX, READS_MAX, RECORDS_MAX, OCTETS_MAX);
        for units in [WHOLE_UNITS, WHOLE_UNITS + 1, u32::MAX] {
            assert_eq!(parts(Turn::of(units)), longest);
        }
        assert_eq!(parts(Turn::of(WHOLE_UNITS - 1)), (511, READS_MAX, 1022, OCTETS_MAX));
        assert_eq!(parts(Turn::of(10)), (10, 2, 20, 10 * 1024));
    }
}
