//! The queries and answers of each backend: counters and durations of one backend, a line for each worker.
//!
//! Before: a worker opens its line of a backend. After: the control thread adds the lines up, for status, metrics and stats.
//! Holds: the lines of the workers that use the backend now, and the sum of earlier lines.
//! Never: takes its lock for a query: it is taken when a worker starts to use a backend, and when the counts are read.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{Durations, Histogram};

/// The counters of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Traffic {
    /// Queries given to it, also those that another backend got before.
    Asked,
    /// Queries that went elsewhere or failed, because it gave no answer.
    Lost,
    /// Answers with rcode NOERROR.
    NoError,
    /// With FORMERR.
    FormErr,
    /// With SERVFAIL.
    ServFail,
    /// With NXDOMAIN.
    NxDomain,
    /// With NOTIMP.
    NotImp,
    /// With REFUSED.
    Refused,
    /// With any other.
    OtherRcode,
}

impl Traffic {
    /// Every counter, in order.
    pub const ALL: [Self; 9] = [
        Self::Asked,
        Self::Lost,
        Self::NoError,
        Self::FormErr,
        Self::ServFail,
        Self::NxDomain,
        Self::NotImp,
        Self::Refused,
        Self::OtherRcode,
    ];

    /// The counters of answers: all except the first two.
    pub const ANSWERS: &'static [Self] = Self::ALL.split_at(2).1;

    /// Its name in snapshots; for answers the rcode, as in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Lost => "lost",
            Self::NoError => "NOERROR",
            Self::FormErr => "FORMERR",
            Self::ServFail => "SERVFAIL",
            Self::NxDomain => "NXDOMAIN",
            Self::NotImp => "NOTIMP",
            Self::Refused => "REFUSED",
            Self::OtherRcode => "other",
        }
    }

    /// The answer with this rcode, of which a header has four bits.
    #[must_use]
    pub const fn of_rcode(rcode: u8) -> Self {
        match rcode & 0xf {
            0 => Self::NoError,
            1 => Self::FormErr,
            2 => Self::ServFail,
            3 => Self::NxDomain,
            4 => Self::NotImp,
            5 => Self::Refused,
            _ => Self::OtherRcode,
        }
    }
}

/// One worker's line of a backend. Only that worker writes.
#[derive(Debug, Default)]
pub struct BackendLine {
    counts: [AtomicU64; Traffic::ALL.len()],
    datagrams: Histogram,
    streams: Histogram,
}

impl BackendLine {
    /// Counts one event.
    #[inline]
    pub fn count(&self, what: Traffic) {
        if let Some(cell) = self.counts.get(what as usize) {
            cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// Counts an answer with this rcode, and records the nanoseconds since the query was sent as a datagram or over a
    /// connection.
    #[inline]
    pub fn answered(&self, rcode: u8, is_datagram: bool, nanoseconds: u64) {
        self.count(Traffic::of_rcode(rcode));
        let histogram = if is_datagram { &self.datagrams } else { &self.streams };
        histogram.record_times(nanoseconds, 1);
    }

    fn add_to(&self, sum: &mut BackendSum) {
        for (own, all) in self.counts.iter().zip(&mut sum.counts) {
            *all = all.wrapping_add(own.load(Relaxed));
        }
        self.datagrams.add_to(&mut sum.datagrams);
        self.streams.add_to(&mut sum.streams);
    }
}

/// The lines of a backend, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendSum {
    counts: [u64; Traffic::ALL.len()],
    /// The time from sending a query as a datagram to its answer.
    pub datagrams: Durations,
    /// The same over connections.
    pub streams: Durations,
}

impl BackendSum {
    /// The count of an event.
    #[must_use]
    pub fn count(&self, what: Traffic) -> u64 {
        self.counts.get(what as usize).copied().unwrap_or_default()
    }

    /// The number of all answers.
    #[must_use]
    pub fn answers(&self) -> u64 {
        Traffic::ANSWERS.iter().fold(0, |sum, answer| sum.wrapping_add(self.count(*answer)))
    }
}

/// A handle to a backend's lines. Clones share them; two handles are equal if they share.
#[derive(Clone, Debug, Default)]
pub struct BackendLines(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    open: Vec<Arc<BackendLine>>,
    /// The counts of workers that do not use the backend any more.
    past: BackendSum,
}

impl PartialEq for BackendLines {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for BackendLines {}

impl BackendLines {
    /// Makes a line for a worker that starts to use the backend. A line that is not written any more is added to the
    /// sum of earlier lines, so that there are as many lines as workers, however often the config is read again.
    #[must_use]
    pub fn open(&self) -> Arc<BackendLine> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Lines { open, past } = &mut *lines;
        open.retain(|line| {
            let is_written = Arc::strong_count(line) > 1;
            if !is_written {
                line.add_to(past);
            }
            is_written
        });
        let line = Arc::<BackendLine>::default();
        open.push(Arc::clone(&line));
        line
    }

    /// The counts of all workers since the backend was added to the config.
    #[must_use]
    pub fn sum(&self) -> BackendSum {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = lines.past.clone();
        lines.open.iter().for_each(|line| line.add_to(&mut sum));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: nothing that was counted is lost when workers start again with a backend, and no old line is kept. Method:
    /// many reloads, with a count before each.
    #[test]
    fn reloads_lose_no_count_and_keep_no_line() {
        let lines = BackendLines::default();
        for _ in 0..1000 {
            let (one, two) = (lines.open(), lines.open());
            one.count(Traffic::Asked);
            two.answered(2, true, 1_000_000);
            two.answered(0, false, 1_000_000);
        }
        let sum = lines.sum();
        assert_eq!(
            (sum.count(Traffic::Asked), sum.count(Traffic::ServFail), sum.answers()),
            (1000, 1000, 2000)
        );
        assert_eq!((sum.datagrams.count(), sum.streams.count()), (1000, 1000));
        drop(lines.open());
        assert!(lines.0.lock().unwrap().open.len() <= 3);
        for (place, what) in Traffic::ALL.into_iter().enumerate() {
            assert_eq!(what as usize, place);
        }
    }
}
