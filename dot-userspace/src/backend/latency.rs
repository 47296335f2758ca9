//! How long one backend usually takes, as measured by one worker: a histogram of fixed size, and one percentile
//! of it.
//!
//! Before: an answer came, or another backend answered first. After: `hedge` knows when a query is late.
//! Holds: about the last two thousand answers in 64 numbers; the width of a bucket is a fifth to an eighth of its
//! value.
//! Never: allocates, reads a clock, or reports a percentile of too few answers.
//!
//! Source: Dean and Barroso, "The Tail at Scale" (2013): ask a second backend after the percentile that leaves as
//! many queries as the allowed extra load.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

/// Number of buckets: four of a quarter of a millisecond, then four an octave up to half a minute, the longest
/// timeout.
const BUCKETS: usize = 64;
/// Buckets of an octave, as a power of two.
const OCTAVE_BITS: u32 = 2;
/// The unit of a bucket's limits, in microseconds as a power of two.
const UNIT_BITS: u32 = 8;
/// With fewer answers there is no percentile.
const ANSWERS_MIN: u32 = 64;
/// Answers between two calculations of the percentile.
const LOOK_EVERY: u32 = 32;
/// After this many answers each bucket is halved, so old answers fade as new ones come.
const ANSWERS_MAX: u32 = 2048;

/// The answers of one backend.
pub struct Latency {
    buckets: RefCell<[u16; BUCKETS]>,
    /// The sum of all buckets.
    answers: Cell<u32>,
    until_look: Cell<u32>,
    /// The percentage of answers that may take longer than [`Latency::usual`].
    slowest_percent: u32,
    usual: Cell<Option<Duration>>,
}

impl Latency {
    /// An empty histogram.
    pub fn new(slowest_percent: u8) -> Self {
        Self {
            buckets: RefCell::new([0; BUCKETS]),
            answers: Cell::new(0),
            until_look: Cell::new(ANSWERS_MIN),
            slowest_percent: u32::from(slowest_percent),
            usual: Cell::new(None),
        }
    }

    /// All but the slowest answers took no longer than this. `None`: there were too few answers.
    pub fn usual(&self) -> Option<Duration> {
        self.usual.get()
    }

    /// Adds the time of an answer, or the time after which another backend answered first: this one would have
    /// taken longer.
    pub fn note(&self, took: Duration) {
        let mut buckets = self.buckets.borrow_mut();
        if let Some(bucket) = buckets.get_mut(bucket_of(took)) {
            *bucket = bucket.saturating_add(1);
            self.answers.set(self.answers.get() + 1);
        }
        if self.answers.get() >= ANSWERS_MAX {
            buckets.iter_mut().for_each(|bucket| *bucket /= 2);
            self.answers.set(buckets.iter().copied().map(u32::from).sum());
        }
        self.until_look.set(self.until_look.get().saturating_sub(1));
        if self.until_look.get() == 0 {
            self.until_look.set(LOOK_EVERY);
            self.usual.set(percentile(&buckets[..], self.answers.get(), self.slowest_percent));
        }
    }
}

/// The upper limit of the bucket above which there are at most `slowest_percent` of `answers`.
fn percentile(buckets: &[u16], answers: u32, slowest_percent: u32) -> Option<Duration> {
    let mut slower = answers;
    let mut counted = buckets.iter().enumerate();
    let found = counted.find(|(_, bucket)| {
        slower = slower.saturating_sub(u32::from(**bucket));
        slower * 100 <= answers * slowest_percent
    });
    found.map(|(bucket, _)| limit_of(bucket))
}

fn bucket_of(took: Duration) -> usize {
    let units = u64::try_from(took.as_micros() >> UNIT_BITS).unwrap_or(u64::MAX);
    let octave = units.checked_ilog2().unwrap_or_default().saturating_sub(OCTAVE_BITS);
    let bucket = (u64::from(octave) << OCTAVE_BITS) + (units >> octave);
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// One past the longest time of a bucket.
fn limit_of(bucket: usize) -> Duration {
    let parts = 1 << OCTAVE_BITS;
    let octave = (bucket / parts).saturating_sub(1);
    let units = (bucket - octave * parts + 1) << octave;
    Duration::from_micros(u64::try_from(units << UNIT_BITS).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    /// Goal: buckets leave no gap, and beyond the first four none is wider than a fifth of its limit. Method: the
    /// limit of each bucket is the first time of the next.
    #[test]
    fn buckets_join() {
        for bucket in 0..BUCKETS - 1 {
            let limit = limit_of(bucket);
            assert_eq!(bucket_of(limit - us(1)), bucket);
            assert_eq!(bucket_of(limit), bucket + 1);
            let width = limit - bucket.checked_sub(1).map_or(Duration::ZERO, limit_of);
            assert!(bucket < 4 || width * 5 <= limit, "{bucket}: {width:?} of {limit:?}");
        }
        assert_eq!((bucket_of(Duration::ZERO), bucket_of(Duration::MAX)), (0, BUCKETS - 1));
        assert!(limit_of(BUCKETS - 1) > Duration::from_secs(30));
    }

    /// Goal: the result is the percentile, rounded up, within a bucket's width; too few answers give none.
    /// Method: 1 to 1,000 ms in a shuffled order, for several percentages.
    #[test]
    fn it_says_the_percentile() {
        for slowest_percent in [1, 5, 20] {
            let latency = Latency::new(slowest_percent);
            for number in 0..u64::from(ANSWERS_MIN) - 1 {
                latency.note(us(number));
            }
            assert_eq!(latency.usual(), None);
            for number in 0..20_000_u64 {
                latency.note(us(1000 * (1 + number * 7919 % 1000)));
            }
            let exact = us(10_000 * (100 - u64::from(slowest_percent)));
            let usual = latency.usual().expect("enough were seen");
            assert!(usual >= exact.mul_f64(0.97) && usual <= exact.mul_f64(1.26), "{usual:?} for {exact:?}");
        }
    }

    /// Goal: a backend that becomes slow, or fast, is known as such after some thousand answers; a few slow
    /// answers change nothing. Method: 1 ms, with one in fifty of a second; then 50 ms for all; then 1 ms again.
    #[test]
    fn it_follows() {
        let latency = Latency::new(5);
        for number in 0..5000 {
            latency.note(if number % 50 == 0 { us(1_000_000) } else { us(1000) });
        }
        assert!(latency.usual().expect("known") <= us(1280), "{:?}", latency.usual());
        for took in [50_000, 1000] {
            (0..8000).for_each(|_| latency.note(us(took)));
            let usual = latency.usual().expect("known");
            assert!(usual > us(took) && usual <= us(took * 5 / 4 + 256), "{usual:?} for {took}");
        }
    }
}
