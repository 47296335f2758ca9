//! Moments of one thread as one number, for durations that are measured for each query.
//!
//! Before: a worker has read the clock for a batch. After: the histograms have the duration of each query of the
//! batch.
//! Holds: the time from which the thread's moments count.
//! Never: reads the clock, or leaves its thread: the moments of two threads cannot be compared.

use std::{
    cell::OnceCell,
    num::NonZeroU64,
    time::{Duration, Instant},
};

/// Nanoseconds since the thread's first moment, which is 1. The difference of two is one subtraction, while the
/// difference of two `Instant`s takes about fifty instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Moment(NonZeroU64);

thread_local! {
    static FIRST: OnceCell<Instant> = const { OnceCell::new() };
}

impl Moment {
    /// The moment for a clock time; times before the thread's first moment become that moment.
    #[must_use]
    pub fn of(now: Instant) -> Self {
        let since = FIRST.with(|first| now.saturating_duration_since(*first.get_or_init(|| now)));
        let nanoseconds = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::MIN.saturating_add(nanoseconds))
    }

    /// The time since `earlier`; zero if this is before it.
    #[inline]
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanoseconds_since(earlier))
    }

    /// The same in nanoseconds.
    #[inline]
    #[must_use]
    pub const fn nanoseconds_since(self, earlier: Self) -> u64 {
        self.0.get().saturating_sub(earlier.0.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: differences are those of the clock, and never negative.
    #[test]
    fn differences_are_those_of_the_clock() {
        let now = Instant::now();
        let (first, later) = (Moment::of(now), Moment::of(now + Duration::from_nanos(1500)));
        assert_eq!((later.nanoseconds_since(first), first.nanoseconds_since(later)), (1500, 0));
        let before = now.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(Moment::of(before), first);
    }
}
