//! Durations as histograms: classic buckets by default, native ones for a scraper that asks for them.
//!
//! Before: every histogram of the workers, added up. After: three families, their labels those of the ledger.
//! Holds: the bounds of classic buckets: the powers of two of a second from 15 µs to 8 s. They are also bounds of
//! native buckets, so both forms hold the same counts.
//! Never: keeps a histogram between scrapes.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NativeHistogram, NativeHistogramBuckets, NoLabelSet},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use crate::ledger::{Durations, LONGEST_LOG2, Measure, Measured, SCHEMA, SHORTEST_LOG2};

/// Upper bounds of classic buckets, in seconds as powers of two: 15 µs, 31 µs … 8 s.
pub(super) const BOUNDS_LOG2: std::ops::RangeInclusive<i32> = -16..=3;
const _: () = assert!(SHORTEST_LOG2 <= -16 && LONGEST_LOG2 >= 3);

/// Registers the three families.
pub(super) fn register(registry: &mut Registry, measured: Vec<Measured>) {
    registry.register_collector(Box::new(Histograms(measured)));
}

#[derive(Debug)]
struct Histograms(Vec<Measured>);

impl Collector for Histograms {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (measure, help) in [
            (Measure::Stage, "Time in each stage of a connection, and of a query within dotd"),
            (Measure::Query, "Time from a query being read to its response being written"),
            (Measure::Backend, "Time from a query being sent to a backend to its response"),
        ] {
            let name = format!("{}_duration", measure.name());
            let unit = Unit::Seconds;
            let mut family = encoder.encode_descriptor(&name, help, Some(&unit), MetricType::Histogram)?;
            for row in self.0.iter().filter(|row| row.measure == measure) {
                let names = measure.label_names().iter().copied();
                let labels: Vec<_> = names.zip(row.labels.iter().map(String::as_str)).collect();
                write(family.encode_family(&labels)?, &row.durations)?;
            }
        }
        Ok(())
    }
}

fn write(
    mut encoder: prometheus_client::encoding::MetricEncoder<'_>,
    durations: &Durations,
) -> Result<(), fmt::Error> {
    let (mut below, mut buckets) = (0, Vec::new());
    for log2 in BOUNDS_LOG2 {
        let within = durations.within(log2);
        buckets.push((f64::from(log2).exp2(), within.wrapping_sub(below)));
        below = within;
    }
    // Both come from one read of the buckets, so that a scrape of a busy engine is consistent.
    let count = durations.count();
    buckets.push((f64::INFINITY, count.wrapping_sub(below)));
    let (spans, deltas) = sparse(durations);
    let native = NativeHistogram {
        schema: SCHEMA.into(),
        zero_threshold: f64::from(SHORTEST_LOG2).exp2(),
        zero_count: durations.shortest(),
        negative: NativeHistogramBuckets { spans: &[], deltas: &[] },
        positive: NativeHistogramBuckets { spans: &spans, deltas: &deltas },
        created: None,
    };
    encoder.encode_histogram_with_native::<NoLabelSet>(durations.sum_seconds(), count, &buckets, None, native)
}

/// Spans of adjacent buckets, with the gap before each span, and the difference of each bucket to the one before.
fn sparse(durations: &Durations) -> (Vec<(i32, u32)>, Vec<i64>) {
    let (mut spans, mut deltas) = (Vec::<(i32, u32)>::new(), Vec::new());
    let (mut next, mut before) = (0, 0);
    for (index, count) in durations.native() {
        match spans.last_mut() {
            Some((_, length)) if index == next => *length += 1,
            _ => spans.push((index - next, 1)),
        }
        let count = count.cast_signed();
        deltas.push(count - before);
        (next, before) = (index + 1, count);
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ledger::Histogram;

    /// Goal: native buckets are those that contain the durations: gaps and differences add up to them. Method: three
    /// durations, two of them in adjacent buckets. Covers: C-401
    #[test]
    fn gaps_and_differences_are_the_buckets() {
        let histogram = Histogram::default();
        let took = [(1.0, 3), (0.9, 1), (0.001, 2), (1e-7, 4)];
        for (seconds, times) in took {
            (0..times).for_each(|_| histogram.record(Duration::from_secs_f64(seconds)));
        }
        let mut durations = Durations::default();
        histogram.add_to(&mut durations);
        // 2^-10 s is 977 µs, and is the upper bound of bucket -80; a second is that of bucket 0.
        assert_eq!(sparse(&durations), (vec![(-79, 1), (77, 2)], vec![2, -1, 2]));
        assert_eq!(durations.shortest(), 4);
        assert_eq!(sparse(&Durations::default()), (vec![], vec![]));
    }
}
