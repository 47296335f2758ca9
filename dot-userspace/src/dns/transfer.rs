//! Finds the end of a zone transfer by the SOA records that frame it.
//!
//! Before: `backend::transfer` has one message after another. After: it knows whether another will follow.
//! Holds: the state of the transfer and two serials; nothing of the zone.
//! Never: follows a pointer, allocates, or judges the records between the SOA records: it only says which part they
//! belong to.
//!
//! Source: RFC 5936 §2.2 (AXFR), RFC 1995 §4 (IXFR).

use super::{
    HEADER_OCTETS, Query,
    records::{Counts, Record, owner_name_end, question_name_end, record_at, walk_tail},
    triage::TYPE_IXFR,
};

/// TYPE of a SOA record.
const TYPE_SOA: u16 = 6;

/// A transfer in progress.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    is_incremental: bool,
    /// The serial of the client's version, in an IXFR.
    has: Option<u32>,
    /// The serial of the version being transferred.
    serial: u32,
    stage: Stage,
}

/// The part that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The first SOA.
    Begin,
    /// The record that distinguishes a whole zone from differences.
    Second,
    /// The zone, up to the next SOA.
    Zone,
    /// Deleted records, up to the next SOA.
    Deletions,
    /// Added records, up to the next SOA.
    Additions,
}

/// Whether another message will follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Another one will.
    More,
    /// This was the last.
    Done,
}

/// The part of a transfer that a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first SOA record: the version that is transferred.
    First,
    /// A record of the whole zone.
    Zone,
    /// A record that the newer version does not have.
    Deleted,
    /// A record that the newer version has beside the others.
    Added,
    /// The SOA record that ends the whole zone.
    End,
    /// A SOA record that begins or ends one of the other two parts.
    Border,
}

impl Transfer {
    /// A transfer of the whole zone, or of the differences from the version with the serial that is given.
    #[must_use]
    pub fn begin(differences_from: Option<u32>) -> Self {
        let is_incremental = differences_from.is_some();
        Self { is_incremental, has: differences_from, serial: 0, stage: Stage::Begin }
    }

    /// The transfer that `message`, which `query` describes, asks for.
    #[must_use]
    pub fn asked_by(message: &[u8], query: &Query) -> Self {
        let is_incremental = query.qtype == TYPE_IXFR;
        let has = is_incremental.then(|| serial_at(message, query.question_end)).flatten();
        Self { is_incremental, has, serial: 0, stage: Stage::Begin }
    }

    /// Takes the next message. `None`: its records do not fit into it.
    pub fn take(&mut self, message: &[u8]) -> Option<Progress> {
        self.take_each(message, |_, _| true)
    }

    /// Takes the next message, and passes to `each` the offset of every record with the part that it belongs to.
    /// `None`: its records do not fit into it, or `each` rejects one.
    pub fn take_each(
        &mut self,
        message: &[u8],
        mut each: impl FnMut(Part, usize) -> bool,
    ) -> Option<Progress> {
        let counts = Counts::read(message)?;
        let question_end = match counts.question {
            0 => HEADER_OCTETS,
            1 => question_name_end(message, HEADER_OCTETS)? + 4,
            _ => return None,
        };
        walk_tail(message, question_end, counts).ok()?;
        let is_error = message.get(3).is_some_and(|flags| flags & 0x0f != 0);
        if is_error || counts.answer == 0 {
            return Some(Progress::Done);
        }
        let is_first = self.stage == Stage::Begin;
        let mut offset = question_end;
        for _ in 0..counts.answer {
            let record = record_at(message, offset)?;
            offset = record.end;
            let serial =
                if record.rtype == TYPE_SOA { Some(serial_at(message, record.start)?) } else { None };
            let is_over = self.is_over_with(serial);
            if !each(self.part(record), record.start) {
                return None;
            }
            if is_over {
                return Some(Progress::Done);
            }
        }
        // A single SOA is the whole answer for a client that has this version already.
        let has_it = self.has.is_none_or(|has| has.wrapping_sub(self.serial).cast_signed() >= 0);
        let is_current = is_first && self.is_incremental && self.stage == Stage::Second && has_it;
        Some(if is_current { Progress::Done } else { Progress::More })
    }

    /// Takes one record, with its serial if it is a SOA. `true`: the transfer is over.
    fn is_over_with(&mut self, serial: Option<u32>) -> bool {
        let (stage, is_over) = match (self.stage, serial) {
            (Stage::Begin, Some(serial)) => {
                self.serial = serial;
                (Stage::Second, false)
            }
            // No transfer begins with this record; the client may judge it.
            (Stage::Begin, None) => (Stage::Begin, true),
            (Stage::Second, Some(serial)) if self.is_incremental && serial != self.serial => {
                (Stage::Deletions, false)
            }
            (Stage::Second | Stage::Zone, Some(_)) => (Stage::Zone, true),
            (Stage::Second | Stage::Zone, None) => (Stage::Zone, false),
            (Stage::Deletions, Some(_)) => (Stage::Additions, false),
            (Stage::Additions, Some(serial)) => (Stage::Deletions, serial == self.serial),
            (stage @ (Stage::Deletions | Stage::Additions), None) => (stage, false),
        };
        self.stage = stage;
        is_over
    }
}

impl Transfer {
    /// The part of the record that was just taken.
    fn part(&self, record: Record) -> Part {
        match (self.stage, record.rtype) {
            (Stage::Begin | Stage::Second, _) => Part::First,
            (Stage::Zone, TYPE_SOA) => Part::End,
            (_, TYPE_SOA) => Part::Border,
            (Stage::Zone, _) => Part::Zone,
            (Stage::Deletions, _) => Part::Deleted,
            (Stage::Additions, _) => Part::Added,
        }
    }
}

/// The serial of the record at `start`, if that is a SOA.
fn serial_at(message: &[u8], start: usize) -> Option<u32> {
    let record = record_at(message, start).filter(|record| record.rtype == TYPE_SOA)?;
    let primary_end = owner_name_end(message, record.rdata)?;
    let mailbox_end = owner_name_end(message, primary_end)?;
    let octets = message.get(mailbox_end..record.end)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record below the root: a SOA of this serial, or another one.
    fn record(serial: Option<u32>) -> Vec<u8> {
        let (rtype, rdata) = match serial {
            Some(serial) => (6_u16, [&[0, 0][..], &serial.to_be_bytes(), &[0; 16]].concat()),
            None => (1, vec![192, 0, 2, 1]),
        };
        let length = u16::try_from(rdata.len()).unwrap().to_be_bytes();
        [&[0][..], &rtype.to_be_bytes(), &[0, 1, 0, 0, 0, 9], &length, &rdata].concat()
    }

    fn message(has_question: bool, records: &[Option<u32>]) -> Vec<u8> {
        let count = u8::try_from(records.len()).unwrap();
        let mut octets = vec![0, 1, 0x84, 0, 0, u8::from(has_question), 0, count, 0, 0, 0, 0];
        if has_question {
            octets.extend([0, 0, 252, 0, 1]);
        }
        octets.extend(records.iter().flat_map(|serial| record(*serial)));
        octets
    }

    fn transfer(is_incremental: bool, has: Option<u32>) -> Transfer {
        Transfer { is_incremental, has, serial: 0, stage: Stage::Begin }
    }

    /// The result for each message of a transfer.
    fn progress(mut transfer: Transfer, messages: &[&[Option<u32>]]) -> Vec<Option<Progress>> {
        let numbered = messages.iter().enumerate();
        numbered.map(|(number, records)| transfer.take(&message(number == 0, records))).collect()
    }

    const MORE: Option<Progress> = Some(Progress::More);
    const DONE: Option<Progress> = Some(Progress::Done);

    /// Goal: a zone ends with its second SOA, however it is divided into messages.
    #[test]
    fn a_whole_zone_ends_with_the_second_soa() {
        let axfr = transfer(false, None);
        assert_eq!(progress(axfr, &[&[Some(7), None, None, Some(7)]]), [DONE]);
        assert_eq!(progress(axfr, &[&[Some(7)], &[None], &[None], &[Some(7)]]), [MORE, MORE, MORE, DONE]);
        assert_eq!(progress(axfr, &[&[Some(7), Some(7), None]]), [DONE], "what trails is not waited for");
        assert_eq!(progress(axfr, &[&[]]), [DONE]);
        assert_eq!(progress(axfr, &[&[None]]), [DONE]);
        let mut refused = message(true, &[Some(7)]);
        refused[3] = 5;
        assert_eq!({ axfr }.take(&refused), DONE);
    }

    /// Goal: differences end with the SOA of the new version, and not with one in between; a whole zone in their place
    /// ends as a zone; a single SOA ends the transfer for a client that has the version.
    #[test]
    fn differences_end_where_they_lead_to() {
        let ixfr = transfer(true, Some(5));
        let two_steps = [Some(7), Some(5), None, Some(6), None, None, Some(6), None, Some(7), None, Some(7)];
        assert_eq!(progress(ixfr, &[&two_steps]), [DONE]);
        for cut in 1..two_steps.len() {
            let (front, rest) = two_steps.split_at(cut);
            assert_eq!(progress(ixfr, &[front, rest]), [MORE, DONE], "cut at {cut}");
        }
        assert_eq!(progress(ixfr, &[&[Some(7), None], &[None, Some(7)]]), [MORE, DONE]);
        for has in [None, Some(7), Some(8)] {
            assert_eq!(progress(transfer(true, has), &[&[Some(7)]]), [DONE], "{has:?}");
        }
        assert_eq!(progress(transfer(true, Some(u32::MAX)), &[&[Some(3)]]), [MORE], "serials wrap");
    }

    /// Goal: records that do not fit give no result.
    #[test]
    fn broken_messages_are_known() {
        let whole = message(true, &[Some(7), None]);
        for end in 0..whole.len() {
            assert_eq!({ transfer(false, None) }.take(&whole[..end]), None);
        }
    }
}
