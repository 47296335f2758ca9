//! Durations as a histogram of fixed size: one thread writes, any thread reads.
//!
//! Before: a stage of a connection or a query is over. After: `ledger::latency` adds the workers up; metrics and quantiles are
//! made from the sum.
//! Holds: eight buckets an octave from 2^-20 s (1 µs) to 64 s, each a power of 2^(1/8) wide: the bounds of Prometheus's
//! native histograms of schema 3, so both forms are exact.
//! Never: allocates after it was made, locks, or does an atomic read-modify-write.
//!
//! Source: Prometheus native histograms, "Exponential buckets" (a bucket holds its upper bound).

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Buckets of an octave, as a power of two: the schema of native histograms.
pub const SCHEMA: i8 = 3;
/// Upper bound of the first bucket, in seconds as a power of two; shorter durations share one bucket.
pub const SHORTEST_LOG2: i32 = -20;
/// Upper bound of the last bucket but one, in the same form: the longest deadlines are a minute.
pub const LONGEST_LOG2: i32 = 6;
/// Buckets of an octave.
const PER_OCTAVE: usize = 1 << SCHEMA;
/// One bucket for shorter durations, eight for each octave, one for longer ones.
pub const BUCKETS: usize = 2 + PER_OCTAVE * (LONGEST_LOG2 - SHORTEST_LOG2) as usize;

/// The shortest bound as a power of two, in units of 2^-30 s: a nanosecond and a little less, so that octaves of seconds begin
/// at powers of two.
const SHORTEST_UNITS_LOG2: u32 = 10;
/// 2^90 / 10^9, rounded down: a multiplication by this and a shift by [`UNITS_SHIFT`] turn nanoseconds into units,
/// rounded down.
const UNITS_PER_NANOSECOND: u64 = 1_237_940_039_285_380_274;
/// 90 less the 30 of a unit.
const UNITS_SHIFT: u32 = 60;
/// The ends of the eighths of an octave, except the last, as 64-bit fractions of the octave: 2^(n/8) − 1.
const ENDS: [u64; PER_OCTAVE] = [
    0x172b_83c7_d517_adcd,
    0x306f_e0a3_1b71_52de,
    0x4bfd_ad53_62a2_71d4,
    0x6a09_e667_f3bc_c908,
    0x8ace_5422_aa0d_b5ba,
    0xae89_f995_ad3a_d5e8,
    0xd581_8dcf_ba48_725d,
    u64::MAX,
];

/// The durations that one worker measured. Only that worker records.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], nanoseconds: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Records one duration.
    #[inline]
    pub fn record(&self, took: Duration) {
        self.record_times(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), 1);
    }

    /// Records a duration in nanoseconds, `times` times.
    #[inline]
    pub fn record_times(&self, nanoseconds: u64, times: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(nanoseconds)) {
            bucket.store(bucket.load(Relaxed).wrapping_add(times), Relaxed);
        }
        let sum = self.nanoseconds.load(Relaxed).wrapping_add(nanoseconds.wrapping_mul(times));
        self.nanoseconds.store(sum, Relaxed);
    }

    /// Adds its counts to `sum`.
    pub fn add_to(&self, sum: &mut Durations) {
        for (own, all) in self.buckets.iter().zip(sum.buckets.iter_mut()) {
            *all = all.wrapping_add(own.load(Relaxed));
        }
        sum.nanoseconds = sum.nanoseconds.wrapping_add(self.nanoseconds.load(Relaxed));
    }
}

/// The bucket of a duration in nanoseconds; each holds its upper bound.
#[inline]
fn bucket_of(nanoseconds: u64) -> usize {
    let units = (u128::from(nanoseconds) * u128::from(UNITS_PER_NANOSECOND)) >> UNITS_SHIFT;
    let below = u64::try_from(units).unwrap_or(u64::MAX).saturating_sub(1);
    let Some(octave) = below.checked_ilog2().and_then(|log2| log2.checked_sub(SHORTEST_UNITS_LOG2)) else {
        return 0;
    };
    // The bits behind the highest one give the place of the duration in its octave.
    let part = below << below.leading_zeros() << 1;
    let eighth = (part >> (u64::BITS - u32::from(SCHEMA.unsigned_abs()))) as usize;
    let is_beyond = ENDS.get(eighth).is_some_and(|end| part >= *end);
    (1 + octave as usize * PER_OCTAVE + eighth + usize::from(is_beyond)).min(BUCKETS - 1)
}

/// Histograms of several workers, added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durations {
    buckets: Box<[u64; BUCKETS]>,
    nanoseconds: u64,
}

impl Default for Durations {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), nanoseconds: 0 }
    }
}

impl Durations {
    /// The number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// The sum of all durations, in seconds.
    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        Duration::from_nanos(self.nanoseconds).as_secs_f64()
    }

    /// The number of durations up to 2^`log2` seconds, which must be within the bounds.
    #[must_use]
    pub fn within(&self, log2: i32) -> u64 {
        let octaves = usize::try_from(log2 - SHORTEST_LOG2).unwrap_or_default();
        self.buckets.iter().take(1 + octaves * PER_OCTAVE).fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// The number of durations that were too short for a bucket of their own.
    #[must_use]
    pub fn shortest(&self) -> u64 {
        self.buckets.first().copied().unwrap_or_default()
    }

    /// The buckets that are not empty, by their index in a native histogram (the bucket `i` ends at 2^(i/8) s), except
    /// the first one.
    pub fn native(&self) -> impl Iterator<Item = (i32, u64)> {
        let first = SHORTEST_LOG2 * PER_OCTAVE as i32;
        let indices = (first + 1)..;
        indices.zip(self.buckets.iter().skip(1).copied()).filter(|(_, count)| *count > 0)
    }

    /// The duration that `part` of all durations did not exceed, with the precision of a bucket (9 %). `None`: there
    /// were no durations.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let count = self.count();
        let wanted = (count as f64 * part).ceil().max(1.0);
        let mut seen = 0.0;
        for (bucket, own) in self.buckets.iter().enumerate() {
            let before = seen;
            seen += *own as f64;
            if *own > 0 && seen >= wanted {
                // Within a bucket durations are assumed to be spread evenly, on the logarithmic scale of the buckets.
                let within = (wanted - before) / *own as f64;
                let log2 = f64::from(SHORTEST_LOG2) + (bucket as f64 - 1.0 + within) / PER_OCTAVE as f64;
                let seconds =
                    if bucket == 0 { within * f64::from(SHORTEST_LOG2).exp2() } else { log2.exp2() };
                return Duration::try_from_secs_f64(seconds).ok();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Upper bound of a bucket in seconds.
    fn end_of(bucket: usize) -> f64 {
        (f64::from(SHORTEST_LOG2) + bucket as f64 / PER_OCTAVE as f64).exp2()
    }

    /// Goal: each duration is in the one bucket whose bounds, powers of 2^(1/8) s, are around it. Method: some
    /// nanoseconds or a part in 10^7 on each side of each bound; the ends of the measured range.
    #[test]
    fn a_duration_is_within_the_bounds_of_its_bucket() {
        for bucket in 0..BUCKETS - 1 {
            let end = end_of(bucket);
            let slack = (end * 1e-7).max(4e-9);
            let of = |seconds| bucket_of(Duration::from_secs_f64(seconds).as_nanos() as u64);
            assert_eq!(of(end - slack), bucket, "below {end} s");
            assert_eq!(of(end + slack), bucket + 1, "beyond {end} s");
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(1_000_000_000), 160, "a bound belongs to the bucket that it ends");
        assert_eq!(bucket_of(64_000_000_000), BUCKETS - 2);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    /// Goal: a scrape shows what was recorded: count, sum, cumulative and native buckets, and quantiles within 9 %.
    /// Method: a thousand durations from two writers, the true quantiles of their list.
    #[test]
    fn sums_say_what_was_recorded() {
        let (one, two) = (Histogram::default(), Histogram::default());
        let mut durations: Vec<_> = (1..=1000_u64).map(|n| Duration::from_micros(n * n % 7919 + n)).collect();
        for (place, took) in durations.iter().enumerate() {
            if place % 3 == 0 { one.record(*took) } else { two.record(*took) }
        }
        let mut sum = Durations::default();
        assert_eq!((sum.count(), sum.quantile(0.5)), (0, None));
        one.add_to(&mut sum);
        two.add_to(&mut sum);
        assert_eq!(sum.count(), 1000);
        let total: Duration = durations.iter().sum();
        assert!((sum.sum_seconds() - total.as_secs_f64()).abs() < 1e-6);
        for log2 in SHORTEST_LOG2..=LONGEST_LOG2 {
            let bound = Duration::from_secs_f64(f64::from(log2).exp2());
            let within = durations.iter().filter(|took| **took <= bound).count() as u64;
            assert_eq!(sum.within(log2), within, "2^{log2} s");
        }
        assert_eq!(sum.native().map(|(_, count)| count).sum::<u64>() + sum.shortest(), 1000);
        durations.sort_unstable();
        for (part, place) in [(0.5, 499), (0.9, 899), (0.99, 989), (1.0, 999)] {
            let (said, is) = (sum.quantile(part).unwrap(), durations[place]);
            let error = said.as_secs_f64() / is.as_secs_f64();
            assert!((0.91..1.1).contains(&error), "{part}: {said:?} is not {is:?}");
        }
        let index = sum.native().next().unwrap().0;
        let shortest = durations[0].as_secs_f64();
        assert!(
            (f64::from(index - 1) / 8.0).exp2() < shortest && shortest <= (f64::from(index) / 8.0).exp2()
        );
    }
}
