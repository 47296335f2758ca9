//! How much work a session may be in one turn of its worker, before others are heard.
//!
//! Before: the runtime wakes the session. After: the reader asks before each read and each message whether there is more.
//! Holds: what is left of the turn. Never: looks at a clock, or at what was read.

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

/// What is left of a turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    messages: u16,
    reads: u16,
    records: usize,
    octets: usize,
}

impl Default for Turn {
    fn default() -> Self {
        Self { messages: MESSAGES_MAX, reads: READS_MAX, records: RECORDS_MAX, octets: OCTETS_MAX }
    }
}

impl Turn {
    /// One message was taken.
    pub(super) fn note_message(&mut self) {
        self.messages = self.messages.saturating_sub(1);
    }

    /// One read was done.
    pub(super) fn note_read(&mut self, read: &Read) {
        self.reads = self.reads.saturating_sub(1);
        self.records = self.records.saturating_sub(read.records);
        self.octets = self.octets.saturating_sub(read.octets);
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
