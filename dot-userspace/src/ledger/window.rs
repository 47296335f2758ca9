//! Durations of a span of time: the difference between a histogram at its end and at its beginning.
//!
//! Before: `dotd top` has asked twice. After: quantiles of the durations between both.
//! Holds: the buckets that are not empty. Never: reads a running histogram (`latency` does).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Measured;

/// The bucket of durations that are too short for one of their own.
const SHORTEST: i32 = i32::MIN;

/// A histogram in the form for a reader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sparse {
    /// "stage", "query" or "backend".
    pub of: String,
    /// The values of the metric's labels.
    pub labels: BTreeMap<String, String>,
    /// Bucket and count; the bucket `i` ends at 2^(i/8) seconds.
    pub buckets: Vec<(i32, u64)>,
}

impl From<&Measured> for Sparse {
    fn from(measured: &Measured) -> Self {
        let names = measured.measure.label_names().iter().map(|name| (*name).to_owned());
        let shortest = Some((SHORTEST, measured.durations.shortest())).filter(|(_, count)| *count > 0);
        Self {
            of: measured.measure.name().to_owned(),
            labels: names.zip(measured.labels.iter().cloned()).collect(),
            buckets: shortest.into_iter().chain(measured.durations.native()).collect(),
        }
    }
}

impl Sparse {
    /// The durations recorded since `before`.
    #[must_use]
    pub fn since(&self, before: Option<&Self>) -> Self {
        let known: BTreeMap<i32, u64> =
            before.into_iter().flat_map(|before| before.buckets.iter().copied()).collect();
        let less = |(bucket, count): &(i32, u64)| {
            let new = count.saturating_sub(known.get(bucket).copied().unwrap_or_default());
            (new > 0).then_some((*bucket, new))
        };
        Self { buckets: self.buckets.iter().filter_map(less).collect(), ..self.clone() }
    }

    /// The number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// The microseconds that `part` of all durations did not exceed: the middle of their bucket, which is 9 % wide.
    /// `None`: there are no durations.
    #[must_use]
    pub fn quantile_us(&self, part: f64) -> Option<f64> {
        let wanted = (self.count() as f64 * part).ceil().max(1.0);
        let mut seen = 0.0;
        let bucket = self.buckets.iter().find(|(_, count)| {
            seen += *count as f64;
            seen >= wanted
        });
        bucket.map(|(bucket, _)| match *bucket {
            SHORTEST => 0.5,
            bucket => ((f64::from(bucket) - 0.5) / 8.0).exp2() * 1e6,
        })
    }

    /// The values of its labels.
    #[must_use]
    pub fn name(&self) -> String {
        let labels = self.labels.values().map(String::as_str).collect::<Vec<_>>().join(" ");
        if self.of == "stage" { labels } else { format!("{} {labels}", self.of) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ledger::{Stage, WorkerCounters, latency};

    /// Goal: quantiles are those of the durations between two reads, within 9 %. Method: slow durations before the
    /// first read, fast ones after it.
    #[test]
    fn a_window_forgets_what_was_before() {
        let worker = WorkerCounters::default();
        let look = || {
            let stages = latency::stages(std::slice::from_ref(&worker));
            stages.iter().map(Sparse::from).find(|sparse| sparse.name() == "queue").unwrap()
        };
        (0..100).for_each(|_| worker.stages().record(Stage::Queue, Duration::from_millis(500)));
        let before = look();
        (1..=100).for_each(|n| worker.stages().record(Stage::Queue, Duration::from_micros(10 * n)));
        worker.stages().record(Stage::Queue, Duration::from_nanos(5));
        let window = look().since(Some(&before));
        assert_eq!((before.count(), window.count()), (100, 101));
        for (part, us) in [(0.5, 500.0), (0.99, 990.0)] {
            let said = window.quantile_us(part).unwrap() / us;
            assert!((0.9..1.1).contains(&said), "{part}: {said}");
        }
        assert_eq!(window.quantile_us(0.0), Some(0.5));
        assert_eq!(look().since(Some(&look())).quantile_us(0.5), None);
    }
}
