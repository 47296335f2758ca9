//! Durations of all workers by metric and labels, and their summary for an operator: count, mean and quantiles.
//!
//! Before: workers recorded in histograms of their own. After: `control` makes metrics of the whole histograms, `stats` and
//! `status` show quantiles.
//! Never: stops a writer: a histogram of a running engine may lack the last few durations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BackendSum, Durations, Measure, Stage, WorkerCounters};

/// A whole histogram with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Its metric.
    pub measure: Measure,
    /// The values of the metric's labels, in order.
    pub labels: Vec<String>,
    /// The durations.
    pub durations: Durations,
}

/// The summary of a histogram for an operator. Times are in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// "stage", "query" or "backend".
    pub of: String,
    /// The values of the metric's labels.
    pub labels: BTreeMap<String, String>,
    /// The number of durations.
    pub count: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Half of them took no longer.
    pub p50_us: f64,
    /// Nine of ten.
    pub p90_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1000.
    pub p999_us: f64,
}

/// Every stage, added up over the workers, also those without durations.
#[must_use]
pub fn stages(workers: &[WorkerCounters]) -> Vec<Measured> {
    let measured = Stage::ALL.iter().map(|stage| {
        let (measure, labels) = stage.labels();
        let mut durations = Durations::default();
        let histograms = workers.iter().filter_map(|worker| worker.stages().of(*stage));
        histograms.for_each(|histogram| histogram.add_to(&mut durations));
        Measured { measure, labels: labels.iter().map(|label| (*label).to_owned()).collect(), durations }
    });
    measured.collect()
}

/// A backend's durations: over UDP if it is asked that way, and over connections; `transport` comes from the config.
#[must_use]
pub fn of_backend(name: &str, transport: &str, sum: &BackendSum) -> Vec<Measured> {
    let measured = |transport: &str, durations: &Durations| Measured {
        measure: Measure::Backend,
        labels: vec![name.to_owned(), transport.to_owned()],
        durations: durations.clone(),
    };
    match transport {
        "tcp" | "tls" => vec![measured(transport, &sum.streams)],
        _ => vec![measured("udp", &sum.datagrams), measured("tcp", &sum.streams)],
    }
}

impl Measured {
    /// Count, mean and quantiles. `None`: nothing was measured.
    #[must_use]
    pub fn latency(&self) -> Option<Latency> {
        let count = self.durations.count();
        let quantile = |part| self.durations.quantile(part).map(|took| took.as_secs_f64() * 1e6);
        let names = self.measure.label_names().iter().map(|name| (*name).to_owned());
        Some(Latency {
            of: self.measure.name().to_owned(),
            labels: names.zip(self.labels.iter().cloned()).collect(),
            count,
            mean_us: self.durations.sum_seconds() * 1e6 / count as f64,
            p50_us: quantile(0.5)?,
            p90_us: quantile(0.9)?,
            p99_us: quantile(0.99)?,
            p999_us: quantile(0.999)?,
        })
    }
}

impl Latency {
    /// The values of its labels, without their names.
    #[must_use]
    pub fn name(&self) -> String {
        let labels = self.labels.values().map(String::as_str).collect::<Vec<_>>().join(" ");
        if self.of == Measure::Stage.name() { labels } else { format!("{} {labels}", self.of) }
    }
}

/// Microseconds for people: three digits and a unit.
#[must_use]
pub fn show_us(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 1e3 => (us, "µs"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Goal: the durations of two workers are added up, a stage without durations has no quantiles, and times are
    /// readable. Method: one stage of two workers.
    #[test]
    fn workers_are_one_histogram() {
        let workers = [WorkerCounters::default(), WorkerCounters::default()];
        workers.iter().for_each(|worker| worker.stages().record(Stage::Queue, Duration::from_micros(100)));
        let measured = stages(&workers);
        assert_eq!(measured.len(), Stage::ALL.len());
        let seen: Vec<_> = measured.iter().filter_map(Measured::latency).collect();
        assert_eq!((seen.len(), seen[0].count, seen[0].name()), (1, 2, "queue".to_owned()));
        assert!((90.0..110.0).contains(&seen[0].p99_us), "{seen:?}");
        for (us, shown) in
            [(0.5, "0.50 µs"), (12.34, "12.3 µs"), (999.0, "999 µs"), (1500.0, "1.50 ms"), (2e6, "2.00 s")]
        {
            assert_eq!(show_us(us), shown);
        }
    }
}
